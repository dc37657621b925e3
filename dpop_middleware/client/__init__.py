"""The client's side of DPoP: a key, proofs, token requests, `auth=` and `transport=` for httpx2 and httpx.

`DPoPKey`, `pkce_pair` and `authorization_url` need the core only. `DPoPAuth`, `DPoPTransport`, `TokenSource`
and the token requests need httpx2 or httpx (extra `client`), which are imported at their first use.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

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
    from dpop_middleware.client.token_source import TokenSource
    from dpop_middleware.client.transport import DPoPTransport

__all__ = [
    "PKCE",
    "AuthorizationCode",
    "ClientCredentials",
    "DPoPAuth",
    "DPoPKey",
    "DPoPTransport",
    "RefreshToken",
    "TokenRequestError",
    "TokenResponse",
    "TokenSource",
    "authorization_url",
    "fetch_token",
    "fetch_token_async",
    "pkce_pair",
]

_MODULES: Final = MappingProxyType(
    {"DPoPAuth": "auth", "DPoPTransport": "transport", "TokenSource": "token_source"}
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "token_request")
    return getattr(import_module(f"{__name__}.{module}"), name)
