"""Asking an authorization server for a token that is bound to our key (RFC 9449 section 5)."""

import base64
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NotRequired, TypeAlias, TypedDict, Unpack
from urllib.parse import quote_plus

from dpop_middleware._request.secure_url import checked_url
from dpop_middleware.client.auth import DPoPAuth
from dpop_middleware.client.authorization import NO_PARAMETERS, optional_parameters
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import origin_of
from dpop_middleware.jose import JOSEError, strict_json

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = [
    "AuthorizationCode",
    "ClientCredentials",
    "Grant",
    "RefreshToken",
    "TokenRequestError",
    "TokenRequestOptions",
    "TokenResponse",
    "fetch_token",
    "fetch_token_async",
]

ClientAuthentication = Literal["basic", "post"]

_MAX_ANSWER: Final = 64 * 1024
# RFC 6749 section 5.2; a line break would forge a line of a log.
_READABLE: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationCode:
    """The authorization code grant with PKCE (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""

    grant_type: ClassVar = "authorization_code"
    code: str = field(repr=False)
    redirect_uri: str
    code_verifier: str = field(repr=False)

    def parameters(self) -> dict[str, str]:
        """Return the form parameters of this grant."""
        return {"code": self.code, "redirect_uri": self.redirect_uri, "code_verifier": self.code_verifier}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """The client credentials grant: the client acts for itself (RFC 6749 section 4.4)."""

    grant_type: ClassVar = "client_credentials"

    def parameters(self) -> dict[str, str]:
        """Return the form parameters of this grant: none."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """The refresh token grant; a public client's token needs the key that it was issued to (section 5)."""

    grant_type: ClassVar = "refresh_token"
    refresh_token: str = field(repr=False)

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


class TokenRequestError(Exception):
    """The token endpoint refused, or its answer can't be used.

    `error` is the server's OAuth error code (RFC 6749 section 5.2), None where there was none; `status` is
    the HTTP status code, 0 where nothing was asked. The message quotes the server's `error_description`:
    don't show it as HTML.
    """

    def __init__(self, message: str, *, status: int, error: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class TokenRequestOptions(TypedDict):
    """The keyword arguments of `fetch_token`, where each is described."""

    key: DPoPKey | DPoPAuth
    client_id: str
    insecure_http_hosts: NotRequired[Collection[str]]
    client_secret: NotRequired[str | None]
    client_authentication: NotRequired[ClientAuthentication]
    scopes: NotRequired[Iterable[str]]
    resource: NotRequired[str | None]
    parameters: NotRequired[Mapping[str, str]]


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
    - `resource`: the API that the token is for (RFC 8707).
    - `parameters`: more form parameters, such as `client_assertion`.
    - `insecure_http_hosts`: hosts that may be asked by plain http, besides loopback ones.

    Redirects are not followed. The token itself is not looked into: that is the API's part.

    Raises TokenRequestError when the server refuses or its answer is not a DPoP token; ConfigurationError (a
    ValueError), before anything is sent, for a plain http endpoint that isn't named; ValueError for a
    `DPoPAuth` with a token or with `follow_redirects`; and what the client raises when the server can't be
    reached.
    """
    response = client.post(**_request(client, token_endpoint, grant, **options))
    return _token_response(response.status_code, response.content)


async def fetch_token_async(
    client: "httpx2.AsyncClient | httpx.AsyncClient",
    token_endpoint: str,
    grant: Grant,
    **options: Unpack[TokenRequestOptions],
) -> TokenResponse:
    """Do as `fetch_token` does, with an async client."""
    response = await client.post(**_request(client, token_endpoint, grant, **options))
    return _token_response(response.status_code, response.content)


def _request(
    client: Any,
    token_endpoint: str,
    grant: Grant,
    *,
    key: DPoPKey | DPoPAuth,
    client_id: str,
    client_secret: str | None = None,
    client_authentication: ClientAuthentication = "basic",
    scopes: Iterable[str] = (),
    resource: str | None = None,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    insecure_http_hosts: Collection[str] = (),
) -> dict[str, Any]:
    """Return the arguments of the client's `post`."""
    # A client with a base_url makes of a path what is then called.
    endpoint = str(client.build_request("POST", token_endpoint).url)
    checked_url("token_endpoint", origin_of(endpoint), insecure_http_hosts=insecure_http_hosts)
    data = {
        "grant_type": grant.grant_type,
        **grant.parameters(),
        **optional_parameters(scope=" ".join(scopes), resource=resource),
    }
    headers = {"Accept": "application/json"}
    if client_secret is None:
        data["client_id"] = client_id
    elif client_authentication == "post":
        data |= {"client_id": client_id, "client_secret": client_secret}
    else:
        # RFC 6749 section 2.3.1: both are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"
    return {
        "url": token_endpoint,
        "data": data | dict(parameters),
        "headers": headers,
        "auth": _proofs_only(key, insecure_http_hosts),
        "follow_redirects": False,
    }


def _proofs_only(key: DPoPKey | DPoPAuth, insecure_http_hosts: Collection[str]) -> DPoPAuth:
    if isinstance(key, DPoPKey):
        return DPoPAuth(key, insecure_http_hosts=insecure_http_hosts)
    if key.has_token:
        raise ValueError("a token endpoint gets proofs without a token: use DPoPAuth(key)")
    if key.follow_redirects:
        raise ValueError("a token request follows no redirect: use DPoPAuth(key) without follow_redirects")
    return key


def _token_response(status: int, content: bytes) -> TokenResponse:
    answer = _answer(content)
    if status != 200 or "error" in answer:
        code = _readable(answer.get("error"))
        description = _readable(answer.get("error_description"))
        message = f"the token endpoint refused: {code or 'no OAuth error'} (HTTP {status})"
        if description is not None:
            message = f"{message}: {description}"
        raise TokenRequestError(message, status=status, error=code)
    token_type = answer.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "dpop":
        raise TokenRequestError(
            "the token endpoint did not bind the token to the key: its token_type is not DPoP", status=status
        )
    access_token = answer.get("access_token")
    if not isinstance(access_token, str) or not access_token:
        raise TokenRequestError("the token endpoint's answer has no access_token", status=status)
    return TokenResponse(
        access_token=access_token,
        token_type=token_type,
        expires_in=_seconds(answer.get("expires_in"), status),
        scope=_text(answer, "scope", status),
        refresh_token=_text(answer, "refresh_token", status),
        parameters=MappingProxyType(answer),
    )


def _readable(value: object) -> str | None:
    return value if isinstance(value, str) and _READABLE.fullmatch(value) else None


def _answer(content: bytes) -> dict[str, Any]:
    if len(content) > _MAX_ANSWER:
        return {}
    try:
        return strict_json.parse_object(content)
    except JOSEError:
        return {}


def _seconds(value: object, status: int) -> float | None:
    if value is None:
        return None
    # Some servers send the number as a string.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < 0
    ):
        raise TokenRequestError("the token endpoint's expires_in is not a number of seconds", status=status)
    return value


def _text(answer: Mapping[str, Any], name: str, status: int) -> str | None:
    value = answer.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenRequestError(f"the token endpoint's {name} is not a string", status=status)
    return value
