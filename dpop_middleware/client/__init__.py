"""The client's side of DPoP: a key, proofs, token requests, `auth=` and `transport=` for httpx2 and httpx.

`DPoPKey`, `pkce_pair` and `authorization_url` need the core only. `DPoPAuth`, `DPoPTransport`, `TokenSource`
and the token requests need httpx2 or httpx (extra `client`), which are imported at their first use.

From the top down:

    transport.py      DPoPTransport, below the OAuth client of another library
    auth.py           DPoPAuth, the `auth=` of a client
    token_source.py   TokenSource: tokens that are renewed in time
    token_request.py  requests for a token
    authorization.py  requests for an authorization code, by URL or pushed
    form_request.py   a form for an authorization server, and what its answer says
    proofs.py         the proof of each request, and what refusals say about the next one
    bodies.py         the bodies of answers, of which no more is read than an honest server writes
    key.py            DPoPKey, the proofs that it signs, and which tokens they can be for
    private_keys.py   private keys, as JWKs and in files
    urls.py           the `htu` of a URL, where a token may go, and what each origin said last
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
