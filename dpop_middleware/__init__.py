"""OAuth 2.0 DPoP (RFC 9449) for ASGI applications: access tokens that are worth nothing to a thief."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpop_middleware import errors, profiles
from dpop_middleware._judge.challenges import ErrorResponse
from dpop_middleware._judge.verdicts import VerifiedRequest
from dpop_middleware._metadata import ResourceMetadata
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.asgi import DPoPMiddleware
from dpop_middleware.nonces import HMACNonceProvider, Nonce, NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.jwt_or_opaque import JWTOrOpaqueVerifier
from dpop_middleware.tokens.multi_issuer import MultiIssuerVerifier
from dpop_middleware.websocket_tickets import WebSocketTickets

if TYPE_CHECKING:
    from dpop_middleware.replay import RedisReplayStore

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


def __getattr__(name: str) -> Any:
    """Import `RedisReplayStore` and the Redis client at the first use: half of all that is imported."""
    if name != "RedisReplayStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("dpop_middleware.replay.redis").RedisReplayStore
