"""Requests for an authorization code that is bound to the client's key (RFC 7636, RFC 9449 section 10).

Either by a URL for the browser, or by a URL that names a request which was pushed before (RFC 9126).
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict, Unpack
from urllib.parse import urlencode

from dpop_middleware import _options
from dpop_middleware._runtime import Deferred
from dpop_middleware.client.form_request import (
    NO_PARAMETERS,
    ClientAuthentication,
    Form,
    Parameters,
    TokenRequestError,
    check_kind,
    checked_key,
    checked_resources,
    form_request,
    keyword_arguments,
    optional_parameters,
    posted,
    posted_async,
    seconds_in,
    text_in,
    what_it_granted,
)
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import check_secure
from dpop_middleware.jose import base64url

if TYPE_CHECKING:
    import httpx
    import httpx2

    from dpop_middleware.client import auth
else:
    auth = Deferred("dpop_middleware.client.auth")
    httpx, httpx2 = Deferred("httpx"), Deferred("httpx2")

__all__ = [
    "PKCE",
    "PushedAuthorizationRequest",
    "PushedRequestOptions",
    "authorization_url",
    "pkce_pair",
    "push_authorization_request",
    "push_authorization_request_async",
]

_ENDPOINT: Final = "the endpoint for pushed requests"
_CREATED: Final = 201
# What a request for a code asks, besides the client and its key.
_ASKED: Final = ("redirect_uri", "code_challenge", "state", "scopes", "resource")
_NOT_IN_AN_ENDPOINT: Final = re.compile(r"[\s\x00-\x1f#]")


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
    resource: str | Iterable[str] | None = None,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    insecure_http_hosts: Collection[str] = (),
) -> str:
    """Return the URL at which a user's browser asks for an authorization code.

    The code will be bound to `key` by `dpop_jkt` (RFC 9449 section 10). `resource` names the API, or several
    (RFC 8707), `parameters` adds others, such as `nonce`. `insecure_http_hosts` are hosts that the browser
    may open by plain http, besides loopback ones. Nothing is sent, and the caller must compare `state`.

    Raises ConfigurationError (a ValueError) for a plain http endpoint that isn't named: the user logs in
    there, and on the way somebody could replace `dpop_jkt` with that of another key (RFC 6749 section 3.1).
    Schemes other than http aren't checked. Also for a `code_challenge` that isn't text.
    """
    _check_endpoint(endpoint, insecure_http_hosts)
    query = _code_request_parameters(
        client_id=client_id,
        redirect_uri=redirect_uri,
        code_challenge=code_challenge,
        key=key,
        state=state,
        scopes=scopes,
        resource=resource,
    )
    _options.part("parameters", parameters, "a mapping", fits=isinstance(parameters, Mapping))
    return _with_query(endpoint, {**query, **parameters})


def _code_request_parameters(
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    key: "DPoPKey | auth.DPoPAuth",
    state: str | None = None,
    scopes: Iterable[str] = (),
    resource: str | Iterable[str] | None = None,
) -> Form:
    """Return the parameters of a request for a code that is bound to `key` (RFC 9449 section 10)."""
    scope = " ".join(_options.strings("scopes", scopes))
    of_a_pair = isinstance(code_challenge, str)
    _options.part("code_challenge", code_challenge, "the code_challenge of a pkce_pair()", fits=of_a_pair)
    _options.part("redirect_uri", redirect_uri, "the client's URL", fits=isinstance(redirect_uri, str))
    return {
        "response_type": "code",
        "client_id": _options.credential("client_id", client_id),
        "redirect_uri": redirect_uri,
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
        "dpop_jkt": checked_key(key).jkt,
        **optional_parameters(state=state, scope=scope, resource=checked_resources(resource)),
    }


def _check_endpoint(endpoint: str, insecure_http_hosts: Collection[str]) -> None:
    # A browser leaves out white space before a URL; behind a fragment the query would not be sent.
    if not isinstance(endpoint, str) or _NOT_IN_AN_ENDPOINT.search(endpoint):
        raise _options.refused("endpoint", "a URL without white space or a fragment", endpoint)
    if endpoint.lower().startswith("http:"):
        check_secure("endpoint", endpoint, insecure_http_hosts)


def _with_query(endpoint: str, query: Form) -> str:
    separator = "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(query, doseq=True)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedAuthorizationRequest:
    """The server's answer to a pushed request (RFC 9126 section 2.2).

    `request_uri` names the request: for one use, within `expires_in` seconds of the answer. `expires_in` is
    None where the server didn't say. `client_id` is the client that pushed it.
    """

    client_id: str
    request_uri: str
    expires_in: float | None

    def authorization_url(self, endpoint: str, *, insecure_http_hosts: Collection[str] = ()) -> str:
        """Return the URL of the authorization `endpoint` to which the user's browser goes (section 4).

        Raises ConfigurationError (a ValueError) for a plain http endpoint that isn't named in
        `insecure_http_hosts`.
        """
        _check_endpoint(endpoint, insecure_http_hosts)
        return _with_query(endpoint, {"client_id": self.client_id, "request_uri": self.request_uri})


class PushedRequestOptions(TypedDict):
    """The keyword arguments of `push_authorization_request`, which describes each of them."""

    key: "DPoPKey | auth.DPoPAuth"
    client_id: str
    redirect_uri: str
    code_challenge: str
    insecure_http_hosts: NotRequired[Collection[str]]
    client_secret: NotRequired[str | None]
    client_authentication: NotRequired[ClientAuthentication]
    state: NotRequired[str | None]
    scopes: NotRequired[Iterable[str]]
    resource: NotRequired[str | Iterable[str] | None]
    parameters: NotRequired[Parameters]


def push_authorization_request(
    client: "httpx2.Client | httpx.Client", endpoint: str, **options: Unpack[PushedRequestOptions]
) -> PushedAuthorizationRequest:
    """Push a request for a code that is bound to `key`, by a proof and by `dpop_jkt` (RFC 9449 section 10.1).

    - `client`: the httpx2 or httpx client to use, with its time-outs and trust.
    - `endpoint`: the server's `pushed_authorization_request_endpoint` (RFC 9126 section 5).

    Of the keyword arguments `key`, `client_id`, `redirect_uri` and `code_challenge` are required:

    - `redirect_uri`, `code_challenge`, `state`, `scopes`, `resource`: as for `authorization_url`. The caller
      must compare `state`.
    - `key`, `client_id`, `client_secret`, `client_authentication`, `parameters`, `insecure_http_hosts`: as
      for `fetch_token`, to which the code must be given with the same key.

    One nonce challenge is answered. Redirects are not followed. Raises what `fetch_token` raises.
    """
    given = keyword_arguments("push_authorization_request", options, PushedRequestOptions)
    check_kind(client, "Client")
    request = _request(client, endpoint, **given)
    return _pushed(*posted(client, request), options["client_id"])


async def push_authorization_request_async(
    client: "httpx2.AsyncClient | httpx.AsyncClient", endpoint: str, **options: Unpack[PushedRequestOptions]
) -> PushedAuthorizationRequest:
    """Do as `push_authorization_request` does, with an async client."""
    given = keyword_arguments("push_authorization_request_async", options, PushedRequestOptions)
    check_kind(client, "AsyncClient")
    request = _request(client, endpoint, **given)
    return _pushed(*await posted_async(client, request), options["client_id"])


def _request(client: Any, endpoint: str, **given: Any) -> dict[str, Any]:
    """Return the arguments of `posted`."""
    asked = {name: given.pop(name) for name in _ASKED if name in given}
    data = _code_request_parameters(client_id=given["client_id"], key=given["key"], **asked)
    return form_request(client, endpoint, data, option="endpoint", **given)


def _pushed(status: int, content: bytes, client_id: str) -> PushedAuthorizationRequest:
    answer = what_it_granted(status, content, expected=_CREATED, endpoint=_ENDPOINT)
    request_uri = text_in(answer, "request_uri", status=status, endpoint=_ENDPOINT)
    if not request_uri:
        raise TokenRequestError(f"{_ENDPOINT}'s answer has no request_uri", status=status)
    return PushedAuthorizationRequest(
        client_id=client_id,
        request_uri=request_uri,
        expires_in=seconds_in(answer, "expires_in", status=status, endpoint=_ENDPOINT),
    )
