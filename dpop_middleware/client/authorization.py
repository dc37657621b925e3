"""Asking for an authorization code that is bound to our key (RFC 7636, RFC 9449 section 10)."""

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

from dpop_middleware import _options
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import origin_of
from dpop_middleware.jose import base64url

__all__ = [
    "NO_PARAMETERS",
    "PKCE",
    "authorization_url",
    "code_request_parameters",
    "optional_parameters",
    "pkce_pair",
    "pushed_authorization_url",
]

NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})


def optional_parameters(**parameters: str | None) -> dict[str, str]:
    """Return the parameters that have a value."""
    return {name: value for name, value in parameters.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class PKCE:
    """A code verifier, which stays with the client, and its S256 challenge (RFC 7636 section 4)."""

    code_verifier: str = field(repr=False)
    code_challenge: str


def pkce_pair() -> PKCE:
    """Make a verifier of 256 random bits and its challenge (RFC 7636 sections 4.1 and 4.2)."""
    verifier = secrets.token_urlsafe(32)
    challenge = base64url.encode(hashlib.sha256(verifier.encode("ascii")).digest())
    return PKCE(code_verifier=verifier, code_challenge=challenge)


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    key: DPoPKey,
    state: str | None = None,
    scopes: Iterable[str] = (),
    resource: str | None = None,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    insecure_http_hosts: Collection[str] = (),
) -> str:
    """Return the URL at which a user's browser asks for an authorization code.

    The code will be bound to `key` by `dpop_jkt` (RFC 9449 section 10). `resource` names the API (RFC 8707),
    `parameters` adds others, such as `nonce`. `insecure_http_hosts` are hosts that the browser may ask by
    plain http, besides loopback ones. Nothing is sent, and `state` is for the caller to compare.

    Raises ConfigurationError (a ValueError) for a plain http endpoint that isn't named: the user logs in
    there, and on the way `dpop_jkt` could be exchanged for that of another key (RFC 6749 section 3.1). Other
    schemes than http aren't looked at.
    """
    _check_endpoint(endpoint, insecure_http_hosts)
    query = code_request_parameters(
        client_id=client_id,
        redirect_uri=redirect_uri,
        code_challenge=code_challenge,
        key=key,
        state=state,
        scopes=scopes,
        resource=resource,
    )
    return _with_query(endpoint, query | dict(parameters))


def pushed_authorization_url(
    endpoint: str, *, client_id: str, request_uri: str, insecure_http_hosts: Collection[str] = ()
) -> str:
    """Return the URL at which a user's browser asks for what was pushed before (RFC 9126 section 4).

    Raises ConfigurationError as `authorization_url` does.
    """
    _check_endpoint(endpoint, insecure_http_hosts)
    return _with_query(endpoint, {"client_id": client_id, "request_uri": request_uri})


def code_request_parameters(
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    key: DPoPKey,
    state: str | None = None,
    scopes: Iterable[str] = (),
    resource: str | None = None,
) -> dict[str, str]:
    """Return the parameters of a request for a code that is bound to `key` (RFC 9449 section 10)."""
    scope = " ".join(_options.strings("scopes", scopes))
    return {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
        "dpop_jkt": key.jkt,
    } | optional_parameters(state=state, scope=scope, resource=resource)


def _check_endpoint(endpoint: str, insecure_http_hosts: Collection[str]) -> None:
    if endpoint.lower().startswith("http:"):
        checked_url("endpoint", origin_of(endpoint), insecure_http_hosts=insecure_http_hosts)


def _with_query(endpoint: str, query: Mapping[str, str]) -> str:
    separator = "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(query)}"
