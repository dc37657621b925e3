"""The issuer: metadata, keys that can be rotated, and tokens for clients that act for themselves."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dpop_middleware import DPoPPolicy, MemoryReplayStore, errors
from dpop_middleware.authorization_server import TokenEndpoint, confirmation

# Small, so that the tokens of a key expire while we look on.
LIFETIME = 10


class SigningKey:
    """A key of the issuer, and its name in the tokens' headers."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.kid = secrets.token_hex(4)

    def public_jwk(self) -> dict[str, str]:
        """Return what the API verifies with."""
        public: dict[str, str] = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "use": "sig", "alg": "ES256"}


class Issuer:
    """Issues RFC 9068 access tokens, signed with the newest of its keys."""

    def __init__(self, *, issuer: str, resource: str, client_secret: str) -> None:
        self._issuer = issuer
        self._resource = resource
        self._client_secret = client_secret
        self._endpoint = TokenEndpoint(
            url=f"{issuer}/token", replay_store=MemoryReplayStore(), policy=DPoPPolicy(algorithms=("ES256",))
        )
        self._keys = [SigningKey()]

    def rotate(self) -> None:
        """Sign with a new key from now on; the old ones stay published, for the tokens that they signed."""
        self._keys.insert(0, SigningKey())

    def withdraw(self) -> None:
        """Publish the newest key only: call it when the last token of the others has expired."""
        del self._keys[1:]

    async def metadata(self, request: Request) -> Response:
        """Answer as RFC 8414 says: here the API finds our keys."""
        urls = {"jwks_uri": f"{self._issuer}/jwks", "token_endpoint": f"{self._issuer}/token"}
        return JSONResponse({"issuer": self._issuer, **urls})

    async def jwks(self, request: Request) -> Response:
        """Publish the keys with which the API verifies our tokens, the newest first."""
        return JSONResponse({"keys": [key.public_jwk() for key in self._keys]})

    async def token(self, request: Request) -> Response:
        """Give a client a token that only the holder of the proof's key can use."""
        try:
            proof = await self._endpoint.verify(request)
        except errors.DPoPError as error:
            refusal = self._endpoint.error_response(error)
            return Response(refusal.body, refusal.status, dict(refusal.headers))
        form = dict(parse_qsl((await request.body()).decode()))
        if not secrets.compare_digest(form.get("client_secret", "").encode(), self._client_secret.encode()):
            return JSONResponse({"error": "invalid_client"}, 401)
        now, key = int(time.time()), self._keys[0]
        claims = {
            "iss": self._issuer,
            "sub": form["client_id"],
            "aud": self._resource,
            "exp": now + LIFETIME,
            "iat": now,
            "client_id": form["client_id"],
            "jti": secrets.token_urlsafe(16),
            "cnf": confirmation(proof),
        }
        signed = jwt.encode(claims, key.private, "ES256", {"typ": "at+jwt", "kid": key.kid})
        answer = {"access_token": signed, "token_type": "DPoP", "expires_in": LIFETIME}
        return JSONResponse(answer, headers=dict(self._endpoint.response_headers(proof)))


def create_app() -> Starlette:
    """Build the application; the signals USR1 and USR2 rotate its keys and withdraw the old ones."""
    issuer = Issuer(
        issuer=os.environ["PRODUCTION_ISSUER"],
        resource=os.environ["PRODUCTION_RESOURCE"],
        client_secret=os.environ["PRODUCTION_CLIENT_SECRET"],
    )

    @contextlib.asynccontextmanager
    async def operated(_: Starlette) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, issuer.rotate)
        loop.add_signal_handler(signal.SIGUSR2, issuer.withdraw)
        yield

    routes = [
        Route("/.well-known/oauth-authorization-server", issuer.metadata),
        Route("/jwks", issuer.jwks),
        Route("/token", issuer.token, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=operated)
