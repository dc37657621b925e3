"""The client's side of DPoP: a key, proofs, token requests, and `auth=` for httpx2 and httpx (RFC 9449).

`DPoPKey`, `pkce_pair` and `authorization_url` need the core only. `DPoPAuth` and the token requests need
httpx2 or httpx (extra `client`), which are imported at their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpop_middleware.client.authorization import PKCE, authorization_url, pkce_pair
from dpop_middleware.client.key import DPoPKey

if TYPE_CHECKING:
    from dpop_middleware.client.auth import DPoPAuth
    from dpop_middleware.client.token_request import (
        AuthorizationCode,
        ClientCredentials,
        RefreshToken,
        TokenRequestError,
        TokenResponse,
        fetch_token,
        fetch_token_async,
    )

__all__ = [
    "PKCE",
    "AuthorizationCode",
    "ClientCredentials",
    "DPoPAuth",
    "DPoPKey",
    "RefreshToken",
    "TokenRequestError",
    "TokenResponse",
    "authorization_url",
    "fetch_token",
    "fetch_token_async",
    "pkce_pair",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "auth" if name == "DPoPAuth" else "token_request"
    return getattr(import_module(f"{__name__}.{module}"), name)
