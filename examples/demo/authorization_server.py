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
from starlette.responses import JSONResponse
from starlette.routing import Route

from dpop_middleware import DPoPPolicy, DPoPProof, ResourceRequest, errors
from dpop_middleware import proof as dpop
from dpop_middleware.freshness import check_freshness
from dpop_middleware.request import one_proof

POLICY = DPoPPolicy(algorithms=("ES256",))
LIFETIME = 300


def verified_proof(request: Request, token_endpoint: str) -> DPoPProof:
    """Check the proof of a token request (RFC 9449 sections 4.3 and 5)."""
    jws = dpop.split_proof(one_proof(ResourceRequest.from_scope(request.scope).dpop))
    header = dpop.parse_header(jws.header, POLICY.algorithms)
    proof = dpop.parse_claims(jws.payload, header)
    dpop.check_htm(proof, request.method)
    dpop.check_htu(proof, token_endpoint)
    dpop.check_signature(jws, header)
    check_freshness(proof, POLICY, nonces=None, nonce=None, now=time.time())
    return proof


class AuthorizationServer:
    """Issues RFC 9068 access tokens for authorization codes that a user is taken to have approved."""

    def __init__(self, issuer: str, resource: str) -> None:
        self._issuer = issuer
        self._resource = resource
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = secrets.token_hex(4)
        self._approved = {"SPLIT_123": "user123", "SPLIT_124": "user123"}

    async def metadata(self, request: Request) -> JSONResponse:
        """Answer as RFC 8414 says."""
        return JSONResponse(
            {
                "issuer": self._issuer,
                "jwks_uri": f"{self._issuer}/jwks",
                "token_endpoint": f"{self._issuer}/token",
                "dpop_signing_alg_values_supported": POLICY.algorithms,
            }
        )

    async def jwks(self, request: Request) -> JSONResponse:
        """Publish the key with which resource servers verify our tokens."""
        public_jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public_jwk, "kid": self._kid, "use": "sig", "alg": "ES256"}]})

    async def token(self, request: Request) -> JSONResponse:
        """Exchange an authorization code for a token that only the holder of the proof's key can use."""
        try:
            proof = verified_proof(request, f"{self._issuer}/token")
        except errors.DPoPError as error:
            return JSONResponse({"error": error.code, "error_description": error.description}, 400)
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
            "cnf": {"jkt": proof.jkt},
        }
        access_token = jwt.encode(claims, self._key, "ES256", {"typ": "at+jwt", "kid": self._kid})
        answer = {"access_token": access_token, "token_type": "DPoP", "expires_in": LIFETIME}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})


def create_app() -> Starlette:
    """Build the application; its identifiers come from the environment."""
    server = AuthorizationServer(os.environ["DEMO_ISSUER"], os.environ["DEMO_RESOURCE"])
    return Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", server.metadata),
            Route("/jwks", server.jwks),
            Route("/token", server.token, methods=["POST"]),
        ]
    )
