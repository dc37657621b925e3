"""DPoP as tutorials build it from PyJWT and redis-py: what `tests.benchmarks.serving` is compared with.

It is correct for what clients usually send: PyJWT decodes both JWTs, the token is bound to the key by its
thumbprint, `htm`, `htu`, `ath` and `iat` are compared, and `SET NX EX` lets a proof pass once. There is one
as pure ASGI middleware, one as Starlette's BaseHTTPMiddleware. For measuring only: it knows no limits of
size, no nonces and no rotation of keys, and doesn't say what failed.
"""

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from redis.asyncio import Redis
from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["DPoPBaseHTTPMiddleware", "PureASGIMiddleware", "Recipe", "Unauthorized"]

_LIFETIME = 60
_SKEW = 30
_SYMMETRIC_OR_PRIVATE = ("k", "d")
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
_ALGORITHMS = ["ES256", "RS256"]


class Unauthorized(Exception):
    """The request has no valid token or proof."""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638)."""
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(text.encode()).digest())


class Recipe:
    """The common part of both kinds of middleware."""

    def __init__(self, *, issuer: str, audience: str, jwks: dict[str, Any], redis: Redis) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
        self._redis = redis

    async def claims(self, method: str, path: str, headers: Headers) -> dict[str, Any]:
        """Return the claims of the access token; raises Unauthorized."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        proofs = headers.getlist("dpop")
        if scheme.lower() != "dpop" or len(proofs) != 1:
            raise Unauthorized
        try:
            claims = self._token(token)
            proof, jkt = self._proof(proofs[0])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise Unauthorized from error
        if claims.get("cnf", {}).get("jkt") != jkt:
            raise Unauthorized
        if proof["htm"] != method or proof["htu"] != self._audience + path:
            raise Unauthorized
        if proof["ath"] != _base64url(hashlib.sha256(token.encode()).digest()):
            raise Unauthorized
        now = time.time()
        if not now - _LIFETIME - _SKEW <= proof["iat"] <= now + _SKEW:
            raise Unauthorized
        key = f"dpop:{jkt}:{proof['jti']}"
        if not await self._redis.set(key, "1", nx=True, ex=_LIFETIME + 2 * _SKEW):
            raise Unauthorized
        return claims

    def _token(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if header["typ"] != "at+jwt":
            raise Unauthorized
        return jwt.decode(
            token,
            self._keys[header["kid"]],
            algorithms=_ALGORITHMS,
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    def _proof(self, text: str) -> tuple[dict[str, Any], str]:
        header = jwt.get_unverified_header(text)
        jwk = header["jwk"]
        if header["typ"] != "dpop+jwt" or header["alg"] not in _ALGORITHMS:
            raise Unauthorized
        if any(name in jwk for name in _SYMMETRIC_OR_PRIVATE):
            raise Unauthorized
        # `iat` is compared by the rules of DPoP, not by PyJWT's.
        proof = jwt.decode(
            text,
            jwt.PyJWK(jwk, algorithm=header["alg"]),
            algorithms=_ALGORITHMS,
            options={
                "require": ["jti", "htm", "htu", "iat", "ath"],
                "verify_iat": False,
                "verify_aud": False,
            },
        )
        return proof, thumbprint(jwk)


def _refusal() -> JSONResponse:
    challenge = {"www-authenticate": 'DPoP error="invalid_token"'}
    return JSONResponse({"error": "invalid_token"}, status_code=401, headers=challenge)


class PureASGIMiddleware:
    """The recipe without Starlette's classes between server and application."""

    def __init__(self, app: ASGIApp, recipe: Recipe) -> None:
        self._app = app
        self._recipe = recipe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through with the token's claims in its state, or answer it."""
        if scope["type"] == "http":
            try:
                claims = await self._recipe.claims(scope["method"], scope["path"], Headers(scope=scope))
            except Unauthorized:
                await _refusal()(scope, receive, send)
                return
            scope.setdefault("state", {})["claims"] = claims
        await self._app(scope, receive, send)


class DPoPBaseHTTPMiddleware(BaseHTTPMiddleware):
    """The recipe as most tutorials write middleware."""

    def __init__(self, app: ASGIApp, recipe: Recipe) -> None:
        super().__init__(app)
        self._recipe = recipe

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Let the request through with the token's claims in its state, or answer it."""
        try:
            request.state.claims = await self._recipe.claims(
                request.method, request.url.path, request.headers
            )
        except Unauthorized:
            return _refusal()
        return await call_next(request)
