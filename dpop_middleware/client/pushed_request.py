"""Pushing an authorization request before the browser goes there (RFC 9126, RFC 9449 section 10.1)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict, Unpack

from dpop_middleware._runtime import Deferred
from dpop_middleware.client.auth import DPoPAuth
from dpop_middleware.client.authorization import (
    NO_PARAMETERS,
    code_request_parameters,
    pushed_authorization_url,
)
from dpop_middleware.client.form_request import (
    ClientAuthentication,
    TokenRequestError,
    form_request,
    seconds_in,
    text_in,
    what_it_granted,
)
from dpop_middleware.client.key import DPoPKey

if TYPE_CHECKING:
    import httpx
    import httpx2
else:
    httpx, httpx2 = Deferred("httpx"), Deferred("httpx2")

__all__ = [
    "PushedAuthorizationRequest",
    "PushedRequestOptions",
    "push_authorization_request",
    "push_authorization_request_async",
]

_ENDPOINT: Final = "the endpoint for pushed requests"
_CREATED: Final = 201


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedAuthorizationRequest:
    """What the server made of a pushed request (RFC 9126 section 2.2).

    `request_uri` names it, once, for `expires_in` seconds from the answer; None where the server didn't say.
    `client_id` is the client that pushed it.
    """

    client_id: str
    request_uri: str
    expires_in: float | None

    def authorization_url(self, endpoint: str, *, insecure_http_hosts: Collection[str] = ()) -> str:
        """Return the URL of the authorization `endpoint` to which the user's browser goes (section 4).

        Raises ConfigurationError (a ValueError) for a plain http endpoint that isn't named in
        `insecure_http_hosts`.
        """
        return pushed_authorization_url(
            endpoint,
            client_id=self.client_id,
            request_uri=self.request_uri,
            insecure_http_hosts=insecure_http_hosts,
        )


class PushedRequestOptions(TypedDict):
    """The keyword arguments of `push_authorization_request`, where each is described."""

    key: DPoPKey | DPoPAuth
    client_id: str
    redirect_uri: str
    code_challenge: str
    insecure_http_hosts: NotRequired[Collection[str]]
    client_secret: NotRequired[str | None]
    client_authentication: NotRequired[ClientAuthentication]
    state: NotRequired[str | None]
    scopes: NotRequired[Iterable[str]]
    resource: NotRequired[str | None]
    parameters: NotRequired[Mapping[str, str]]


def push_authorization_request(
    client: "httpx2.Client | httpx.Client", endpoint: str, **options: Unpack[PushedRequestOptions]
) -> PushedAuthorizationRequest:
    """Push a request for a code that is bound to `key`, by a proof and by `dpop_jkt` (RFC 9449 section 10.1).

    - `client`: the httpx2 or httpx client to use, with its time-outs and trust.
    - `endpoint`: the server's `pushed_authorization_request_endpoint` (RFC 9126 section 5).

    Of the keyword arguments `key`, `client_id`, `redirect_uri` and `code_challenge` are required:

    - `redirect_uri`, `code_challenge`, `state`, `scopes`, `resource`, `parameters`: as of
      `authorization_url`. `state` is for the caller to compare.
    - `key`, `client_id`, `client_secret`, `client_authentication`, `insecure_http_hosts`: as of
      `fetch_token`, to which the code goes with the same key.

    One nonce challenge is answered. Redirects are not followed. Raises what `fetch_token` raises.
    """
    response = client.post(**_request(client, endpoint, **options))
    return _pushed(response.status_code, response.content, options["client_id"])


async def push_authorization_request_async(
    client: "httpx2.AsyncClient | httpx.AsyncClient", endpoint: str, **options: Unpack[PushedRequestOptions]
) -> PushedAuthorizationRequest:
    """Do as `push_authorization_request` does, with an async client."""
    response = await client.post(**_request(client, endpoint, **options))
    return _pushed(response.status_code, response.content, options["client_id"])


def _request(
    client: Any,
    endpoint: str,
    *,
    key: DPoPKey | DPoPAuth,
    client_id: str,
    client_secret: str | None = None,
    client_authentication: ClientAuthentication = "basic",
    parameters: Mapping[str, str] = NO_PARAMETERS,
    insecure_http_hosts: Collection[str] = (),
    **asked: Any,
) -> dict[str, Any]:
    """Return the arguments of the client's `post`; `asked` is what `code_request_parameters` takes."""
    bound_to = key if isinstance(key, DPoPKey) else key.key
    data = code_request_parameters(client_id=client_id, key=bound_to, **asked)
    return form_request(
        client,
        endpoint,
        data | dict(parameters),
        option="endpoint",
        key=key,
        client_id=client_id,
        client_secret=client_secret,
        client_authentication=client_authentication,
        insecure_http_hosts=insecure_http_hosts,
    )


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
