"""The authorization server: metadata, keys, and a token endpoint that binds tokens to the client's key."""

import os
import secrets
import time
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dpop_middleware import DPoPPolicy, MemoryReplayStore, errors
from dpop_middleware.authorization_server import (
    TokenEndpoint,
    confirmation,
    dpop_signing_alg_values_supported,
)

POLICY = DPoPPolicy(algorithms=("ES256",))
LIFETIME = 300


class AuthorizationServer:
    """Issues RFC 9068 access tokens for authorization codes that a user is assumed to have approved."""

    def __init__(self, *, issuer: str, resource: str) -> None:
        self._issuer = issuer
        self._resource = resource
        self._token_url = f"{issuer}/token"
        self._endpoint = TokenEndpoint(url=self._token_url, replay_store=MemoryReplayStore(), policy=POLICY)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = secrets.token_hex(4)
        self._approved = {"SPLIT_123": "user123", "SPLIT_124": "user123"}

    async def metadata(self, request: Request) -> Response:
        """Answer as RFC 8414 says: here the API finds our keys."""
        return JSONResponse(
            {
                "issuer": self._issuer,
                "jwks_uri": f"{self._issuer}/jwks",
                "token_endpoint": self._token_url,
                "dpop_signing_alg_values_supported": dpop_signing_alg_values_supported(POLICY),
            }
        )

    async def jwks(self, request: Request) -> Response:
        """Publish the key with which the API verifies our tokens."""
        public_jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public_jwk, "kid": self._kid, "use": "sig", "alg": "ES256"}]})

    async def token(self, request: Request) -> Response:
        """Exchange an authorization code for a token that only the holder of the proof's key can use."""
        try:
            proof = await self._endpoint.verify(request)
        except errors.DPoPError as error:
            refusal = self._endpoint.error_response(error)
            return Response(refusal.body, refusal.status, dict(refusal.headers))
        form = dict(parse_qsl((await request.body()).decode()))
        user = self._approved.pop(form.get("code", ""), None)  # a code works once
        if user is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "sub": user,
            "aud": self._resource,
            "exp": now + LIFETIME,
            "iat": now,
            "client_id": form.get("client_id", ""),
            "jti": secrets.token_urlsafe(16),
            "cnf": confirmation(proof),
        }
        access_token = jwt.encode(claims, self._key, "ES256", {"typ": "at+jwt", "kid": self._kid})
        answer = {"access_token": access_token, "token_type": "DPoP", "expires_in": LIFETIME}
        return JSONResponse(answer, headers=dict(self._endpoint.response_headers(proof)))


def create_app() -> Starlette:
    """Build the application; its identifiers come from the environment."""
    server = AuthorizationServer(issuer=os.environ["DEMO_ISSUER"], resource=os.environ["DEMO_RESOURCE"])
    return Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", server.metadata),
            Route("/jwks", server.jwks),
            Route("/token", server.token, methods=["POST"]),
        ]
    )
