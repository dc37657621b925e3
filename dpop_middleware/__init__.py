"""OAuth 2.0 DPoP (RFC 9449) for ASGI applications: a stolen access token is useless without its key."""

from typing import TYPE_CHECKING

from dpop_middleware import errors, profiles
from dpop_middleware._judge.verdicts import ErrorResponse, VerifiedRequest
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._runtime import importing
from dpop_middleware.asgi import DPoPMiddleware
from dpop_middleware.nonces import HMACNonceProvider, Nonce, NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier

if TYPE_CHECKING:
    from dpop_middleware._resource_metadata import ResourceMetadata
    from dpop_middleware.replay.redis import RedisReplayStore
    from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
    from dpop_middleware.tokens.several_verifiers import JWTOrOpaqueVerifier, MultiIssuerVerifier
    from dpop_middleware.websocket_tickets import WebSocketTickets

__all__ = [
    "AccessToken",
    "AccessTokenVerifier",
    "DPoPMiddleware",
    "DPoPPolicy",
    "DPoPProof",
    "ErrorResponse",
    "HMACNonceProvider",
    "JWTAccessTokenVerifier",
    "JWTOrOpaqueVerifier",
    "MemoryReplayStore",
    "MultiIssuerVerifier",
    "Nonce",
    "NonceProvider",
    "RedisReplayStore",
    "ReplayEntry",
    "ReplayStore",
    "ResourceMetadata",
    "ResourceRequest",
    "ResourceServer",
    "VerifiedRequest",
    "WebSocketTickets",
    "errors",
    "profiles",
]


__getattr__ = importing(
    __name__,
    {
        "JWTAccessTokenVerifier": "tokens.jwt",
        "JWTOrOpaqueVerifier": "tokens.several_verifiers",
        "MultiIssuerVerifier": "tokens.several_verifiers",
        "RedisReplayStore": "replay.redis",
        "ResourceMetadata": "_resource_metadata",
        "WebSocketTickets": "websocket_tickets",
    },
)
