"""Requests to an authorization server for a token that is bound to the client's key (RFC 9449 section 5)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NotRequired, TypeAlias, TypedDict, Unpack

from dpop_middleware import _options
from dpop_middleware._runtime import Deferred
from dpop_middleware.client.auth import DPoPAuth
from dpop_middleware.client.form_request import (
    ClientAuthentication,
    Parameters,
    TokenRequestError,
    check_kind,
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
from dpop_middleware.client.key import DPoPKey, is_access_token

if TYPE_CHECKING:
    import httpx
    import httpx2
else:
    httpx, httpx2 = Deferred("httpx"), Deferred("httpx2")

__all__ = [
    "AuthorizationCode",
    "ClientCredentials",
    "Grant",
    "RefreshToken",
    "TokenRequestError",
    "TokenRequestOptions",
    "TokenResponse",
    "checked_grant",
    "fetch_token",
    "fetch_token_async",
]

_ENDPOINT: Final = "the token endpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationCode:
    """The authorization code grant with PKCE (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""

    grant_type: ClassVar = "authorization_code"
    code: str = field(repr=False)
    redirect_uri: str
    code_verifier: str = field(repr=False)

    def __post_init__(self) -> None:
        _options.credential("code", self.code)
        _options.credential("code_verifier", self.code_verifier)

    def parameters(self) -> dict[str, str]:
        """Return the form parameters of this grant."""
        return {"code": self.code, "redirect_uri": self.redirect_uri, "code_verifier": self.code_verifier}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """The client credentials grant: the client acts on its own behalf (RFC 6749 section 4.4)."""

    grant_type: ClassVar = "client_credentials"

    def parameters(self) -> dict[str, str]:
        """Return the form parameters of this grant: none."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """The refresh token grant; a public client's token needs the key that it was issued to (section 5)."""

    grant_type: ClassVar = "refresh_token"
    refresh_token: str = field(repr=False)

    def __post_init__(self) -> None:
        _options.credential("refresh_token", self.refresh_token)

    def parameters(self) -> dict[str, str]:
        """Return the form parameters of this grant."""
        return {"refresh_token": self.refresh_token}


Grant: TypeAlias = AuthorizationCode | ClientCredentials | RefreshToken


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A successful answer of a token endpoint (RFC 6749 section 5.1).

    `expires_in` is in seconds from the answer, None where the server didn't say. `scope` is the server's
    string, None where it granted what was asked. `parameters` is the whole answer, read-only.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: float | None
    scope: str | None
    refresh_token: str | None = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)


class TokenRequestOptions(TypedDict):
    """The keyword arguments of `fetch_token`, which describes each of them."""

    key: DPoPKey | DPoPAuth
    client_id: str
    insecure_http_hosts: NotRequired[Collection[str]]
    client_secret: NotRequired[str | None]
    client_authentication: NotRequired[ClientAuthentication]
    scopes: NotRequired[Iterable[str]]
    resource: NotRequired[str | Iterable[str] | None]
    parameters: NotRequired[Parameters]


def fetch_token(
    client: "httpx2.Client | httpx.Client",
    token_endpoint: str,
    grant: Grant,
    **options: Unpack[TokenRequestOptions],
) -> TokenResponse:
    """Ask `token_endpoint` for an access token that is bound to `key` (RFC 9449 section 5).

    - `client`: the httpx2 or httpx client to use, with its time-outs and trust.
    - `grant`: an `AuthorizationCode`, `ClientCredentials` or `RefreshToken`.

    Of the keyword arguments, `key` and `client_id` are required:

    - `key`: the client's key; or a `DPoPAuth` without token, which remembers nonces between calls.
    - `client_id`: the client's identifier.
    - `client_secret`: of a confidential client, sent as `client_authentication` says: in the
      `Authorization` header (`"basic"`, the default) or in the form (`"post"`, RFC 6749 section 2.3.1).
      Public clients have none.
    - `scopes`: what to ask for; without any, what the server grants by default.
    - `resource`: the API that the token is for, or several (RFC 8707).
    - `parameters`: more form parameters; or a function that returns them, called for each request, also where
      a nonce challenge is answered: a `client_assertion` is for one (RFC 7523 section 3).
    - `insecure_http_hosts`: hosts that may be reached by plain http, besides loopback ones.

    Redirects are not followed. The content of the token is not checked: that is the task of the API.

    Raises TokenRequestError when the server refuses or its answer is not a DPoP token; ConfigurationError (a
    ValueError), before anything is sent, for a plain http endpoint that isn't named and for an argument that
    is unknown, missing or of another type; ValueError for a `DPoPAuth` with a token, with `follow_redirects`
    or of another origin; and what the client raises when the server can't be reached.
    """
    given = keyword_arguments("fetch_token", options, TokenRequestOptions)
    check_kind(client, "Client")
    request = _request(client, token_endpoint, grant, **given)
    return _token_response(*posted(client, request))


async def fetch_token_async(
    client: "httpx2.AsyncClient | httpx.AsyncClient",
    token_endpoint: str,
    grant: Grant,
    **options: Unpack[TokenRequestOptions],
) -> TokenResponse:
    """Do as `fetch_token` does, with an async client."""
    given = keyword_arguments("fetch_token_async", options, TokenRequestOptions)
    check_kind(client, "AsyncClient")
    request = _request(client, token_endpoint, grant, **given)
    return _token_response(*await posted_async(client, request))


def checked_grant(grant: Grant) -> Grant:
    """Return the option `grant`; raises ConfigurationError for anything else than a grant."""
    takes = "an AuthorizationCode(…), a ClientCredentials() or a RefreshToken(…)"
    return _options.part("grant", grant, takes, fits=_options.provides(grant, "parameters"))


def _request(
    client: Any,
    token_endpoint: str,
    grant: Grant,
    *,
    scopes: Iterable[str] = (),
    resource: str | Iterable[str] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return the arguments of `posted`; `others` are what `form_request` takes."""
    data = {
        "grant_type": checked_grant(grant).grant_type,
        **grant.parameters(),
        **optional_parameters(
            scope=" ".join(_options.strings("scopes", scopes)), resource=checked_resources(resource)
        ),
    }
    return form_request(client, token_endpoint, data, option="token_endpoint", **others)


def _token_response(status: int, content: bytes) -> TokenResponse:
    answer = what_it_granted(status, content, expected=200, endpoint=_ENDPOINT)
    token_type = answer.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "dpop":
        raise TokenRequestError(
            f"{_ENDPOINT} did not bind the token to the key: its token_type is not DPoP", status=status
        )
    access_token = answer.get("access_token")
    if not is_access_token(access_token):
        raise TokenRequestError(
            f"{_ENDPOINT}'s answer has no access_token that a header field can hold", status=status
        )
    return TokenResponse(
        access_token=access_token,
        token_type=token_type,
        expires_in=seconds_in(answer, "expires_in", status=status, endpoint=_ENDPOINT),
        scope=text_in(answer, "scope", status=status, endpoint=_ENDPOINT),
        refresh_token=text_in(answer, "refresh_token", status=status, endpoint=_ENDPOINT),
        parameters=MappingProxyType(answer),
    )
