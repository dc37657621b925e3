"""OAuth 2.0 DPoP (RFC 9449) for ASGI applications: access tokens that are worth nothing to a thief."""

from dpop_middleware import errors
from dpop_middleware._judge.challenges import ErrorResponse
from dpop_middleware._judge.verdicts import VerifiedRequest
from dpop_middleware._metadata.resource_metadata import ResourceMetadata
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.asgi import DPoPMiddleware
from dpop_middleware.nonces import HMACNonceProvider, Nonce, NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.redis import RedisReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier

__all__ = [
    "AccessToken",
    "AccessTokenVerifier",
    "DPoPMiddleware",
    "DPoPPolicy",
    "DPoPProof",
    "ErrorResponse",
    "HMACNonceProvider",
    "JWTAccessTokenVerifier",
    "MemoryReplayStore",
    "Nonce",
    "NonceProvider",
    "RedisReplayStore",
    "ReplayEntry",
    "ReplayStore",
    "ResourceMetadata",
    "ResourceRequest",
    "ResourceServer",
    "VerifiedRequest",
    "errors",
]
