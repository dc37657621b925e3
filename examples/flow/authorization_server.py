"""The authorization server: codes with PKCE, bound to the client's key before the user gives consent.

The proofs and the bindings are `dpop_middleware.authorization_server`'s; the rest is a small OAuth server
with one client and one user, who is assumed to have logged in.
"""

import hashlib
import hmac
import html
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPPolicy, DPoPProof, MemoryReplayStore, NonceProvider, errors
from dpop_middleware.authorization_server import (
    CHECKS,
    InvalidGrant,
    TokenEndpoint,
    check_code_binding,
    check_refresh_binding,
    confirmation,
    dpop_signing_alg_values_supported,
    refresh_jkt,
    requested_jkt,
)
from dpop_middleware.checks import Check
from dpop_middleware.jose import base64url
from examples.flow import decisions
from examples.flow.kept import Kept

CLIENT_ID = "my_client"
USER = "user123"
POLICY = DPoPPolicy(algorithms=("ES256",))
TOKEN_LIFETIME = 3600
CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
CONSENT = Template((Path(__file__).parent / "consent.html").read_text(encoding="utf-8"))


class UnsupportedGrantType(errors.DPoPError):
    """The token endpoint doesn't know the grant type (RFC 6749 section 5.2)."""

    status = 400
    code = "unsupported_grant_type"


@dataclass(frozen=True)
class AuthorizationRequest:
    """What a client asked for, and the key that the code will be bound to."""

    state: str
    code_challenge: str
    dpop_jkt: str | None


@dataclass(frozen=True)
class RefreshGrant:
    """What a refresh token stands for: the key of the public client that it was issued to."""

    jkt: str | None


class AuthorizationServer:
    """Serves one public client, whose redirect URI is `redirect_uri`."""

    def __init__(
        self, *, issuer: str, resource: str, redirect_uri: str, nonces: NonceProvider | None = None
    ) -> None:
        self._issuer = issuer
        self._resource = resource
        self._redirect_uri = redirect_uri
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = secrets.token_hex(4)
        self._requests = Kept[AuthorizationRequest](lifetime=600)
        self._codes = Kept[AuthorizationRequest](lifetime=60)
        self._refresh_tokens = Kept[RefreshGrant](lifetime=TOKEN_LIFETIME)
        self._endpoint = TokenEndpoint(
            url=f"{issuer}/token",
            replay_store=MemoryReplayStore(),
            policy=POLICY if nonces is None else replace(POLICY, nonce="required"),
            nonces=nonces,
        )

    async def metadata(self, request: Request) -> Response:
        """Answer as RFC 8414 says."""
        return JSONResponse(
            {
                "issuer": self._issuer,
                "authorization_endpoint": f"{self._issuer}/authorize",
                "token_endpoint": f"{self._issuer}/token",
                "jwks_uri": f"{self._issuer}/jwks",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
                "dpop_signing_alg_values_supported": dpop_signing_alg_values_supported(POLICY),
            }
        )

    async def jwks(self, request: Request) -> Response:
        """Publish the key with which resource servers verify our tokens."""
        public_jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public_jwk, "kid": self._kid, "use": "sig", "alg": "ES256"}]})

    async def ask_the_user(self, request: Request) -> Response:
        """Show the authorization request and ask for consent (RFC 6749 section 4.1.1)."""
        query = request.query_params
        if (query.get("client_id"), query.get("redirect_uri")) != (CLIENT_ID, self._redirect_uri):
            # Never redirect to the URL of an unknown client.
            return HTMLResponse("<!doctype html><title>Error</title><p>Unknown client.", 400)
        state = query.get("state", "")
        if query.get("response_type") != "code":
            return self._redirect(state, error="unsupported_response_type")
        code_challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not CODE_CHALLENGE.fullmatch(code_challenge):
            return self._redirect(state, error="invalid_request")
        try:
            dpop_jkt = requested_jkt(dpop_jkt=query.get("dpop_jkt"))
        except errors.DPoPError as error:
            return self._redirect(state, error=error.code or "invalid_request")
        name = self._requests.put(AuthorizationRequest(state, code_challenge, dpop_jkt))
        page = CONSENT.substitute(
            client=CLIENT_ID, user=USER, request=name, dpop_jkt=html.escape(dpop_jkt or "no key")
        )
        return HTMLResponse(page, headers=self._consent_headers())

    async def user_decided(self, request: Request) -> Response:
        """Send the user back to the client, with a code or with a refusal."""
        form = await _form(request)
        asked = self._requests.take(form.get("request", ""))
        if asked is None:
            return HTMLResponse("<!doctype html><title>Error</title><p>Start again at the client.", 400)
        if form.get("decision") != "allow":
            return self._redirect(asked.state, error="access_denied")
        return self._redirect(asked.state, code=self._codes.put(asked))

    async def token(self, request: Request) -> Response:
        """Exchange a code or a refresh token for an access token that only the proof's key can use."""
        checks = (*CHECKS, Check.JKT)
        try:
            proof = await self._endpoint.verify(request)
            self._check_grant(await _form(request), proof)
        except errors.DPoPError as error:
            refusal = self._endpoint.error_response(error)
            headers = dict(refusal.headers) | {
                decisions.HEADER: decisions.of_token_request(error, checks=checks)
            }
            return Response(refusal.body, refusal.status, headers)
        answer = {
            "access_token": self._access_token(proof),
            "token_type": "DPoP",
            "expires_in": TOKEN_LIFETIME,
            "refresh_token": self._refresh_tokens.put(RefreshGrant(refresh_jkt(proof, public_client=True))),
        }
        headers = dict(self._endpoint.response_headers(proof)) | {
            decisions.HEADER: decisions.of_token_request(None, checks=checks)
        }
        return JSONResponse(answer, headers=headers)

    def _check_grant(self, form: Mapping[str, str], proof: DPoPProof) -> None:
        if form.get("client_id") != CLIENT_ID:
            raise InvalidGrant("the grant was issued to another client")
        if form.get("grant_type") == "authorization_code":
            self._check_code(form, proof)
        elif form.get("grant_type") == "refresh_token":
            self._check_refresh_token(form.get("refresh_token", ""), proof)
        else:
            raise UnsupportedGrantType("the grant type is not supported")

    def _check_code(self, form: Mapping[str, str], proof: DPoPProof) -> None:
        asked = self._codes.take(form.get("code", ""))
        if asked is None or form.get("redirect_uri") != self._redirect_uri:
            raise InvalidGrant("the authorization code is unknown, expired or used")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if not hmac.compare_digest(base64url.encode(digest), asked.code_challenge):
            raise InvalidGrant("the code_verifier does not fit the code_challenge")
        check_code_binding(proof, dpop_jkt=asked.dpop_jkt)

    def _check_refresh_token(self, refresh_token: str, proof: DPoPProof) -> None:
        granted = self._refresh_tokens.get(refresh_token)
        if granted is None:
            raise InvalidGrant("the refresh token is unknown, expired or used")
        check_refresh_binding(proof, jkt=granted.jkt)
        # Only now, so that a thief without the key can't consume the owner's token.
        self._refresh_tokens.take(refresh_token)

    def _access_token(self, proof: DPoPProof) -> str:
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "sub": USER,
            "aud": self._resource,
            "exp": now + TOKEN_LIFETIME,
            "iat": now,
            "client_id": CLIENT_ID,
            "jti": secrets.token_urlsafe(16),
            "cnf": confirmation(proof),
        }
        return jwt.encode(claims, self._key, "ES256", {"typ": "at+jwt", "kid": self._kid})

    def _redirect(self, state: str, **parameters: str) -> Response:
        # 303: the browser follows with GET, whatever method it used. `iss` is RFC 9207's.
        query = urlencode({**parameters, "state": state, "iss": self._issuer})
        return RedirectResponse(
            f"{self._redirect_uri}?{query}", 303, headers={"Referrer-Policy": "no-referrer"}
        )

    def _consent_headers(self) -> dict[str, str]:
        return {
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
                f"form-action 'self' {self._redirect_uri}"
            ),
        }


async def _form(request: Request) -> dict[str, Any]:
    return dict(parse_qsl((await request.body()).decode("ascii", "replace")))


def create_app(*, issuer: str, resource: str, page: str, nonces: NonceProvider | None = None) -> ASGIApp:
    """Build the server, which demands `nonces`, if any; the page at the origin `page` is its client."""
    server = AuthorizationServer(issuer=issuer, resource=resource, redirect_uri=f"{page}/", nonces=nonces)
    app = Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", server.metadata),
            Route("/jwks", server.jwks),
            Route("/authorize", server.ask_the_user),
            Route("/authorize", server.user_decided, methods=["POST"]),
            Route("/token", server.token, methods=["POST"]),
        ]
    )
    return CORSMiddleware(
        app,
        allow_origins=[page],
        allow_methods=["GET", "POST"],
        allow_headers=["DPoP"],
        expose_headers=["DPoP-Nonce", decisions.HEADER],
    )
