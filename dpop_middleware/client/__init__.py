"""The client's side of DPoP: a key, proofs, token requests, `auth=` and `transport=` for httpx2 and httpx.

`DPoPKey`, `pkce_pair` and `authorization_url` need the core only. `DPoPAuth`, `DPoPTransport`, `TokenSource`
and the token requests need httpx2 or httpx (extra `client`), which are imported at their first use.
"""

from typing import TYPE_CHECKING

from dpop_middleware._runtime import importing
from dpop_middleware.client.authorization import (
    PKCE,
    PushedAuthorizationRequest,
    authorization_url,
    pkce_pair,
    push_authorization_request,
    push_authorization_request_async,
)
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
    "PushedAuthorizationRequest",
    "RefreshToken",
    "TokenRequestError",
    "TokenResponse",
    "TokenSource",
    "authorization_url",
    "fetch_token",
    "fetch_token_async",
    "pkce_pair",
    "push_authorization_request",
    "push_authorization_request_async",
]

__getattr__ = importing(
    __name__,
    {
        "AuthorizationCode": "token_request",
        "ClientCredentials": "token_request",
        "DPoPAuth": "auth",
        "DPoPTransport": "transport",
        "RefreshToken": "token_request",
        "TokenRequestError": "token_request",
        "TokenResponse": "token_request",
        "TokenSource": "token_source",
        "fetch_token": "token_request",
        "fetch_token_async": "token_request",
    },
    either=("httpx2", "httpx"),
)
