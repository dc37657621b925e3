"""Posting a form to an authorization server, with proof and client authentication (RFC 6749 section 2.3)."""

import base64
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import quote_plus

from dpop_middleware import _options
from dpop_middleware._options import part, refused
from dpop_middleware._runtime import Deferred, installed
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import NEW_FORM, check_secure
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError, strict

if TYPE_CHECKING:
    from dpop_middleware.client import auth, bodies
else:
    auth, bodies = Deferred("dpop_middleware.client.auth"), Deferred("dpop_middleware.client.bodies")

__all__ = [
    "NO_PARAMETERS",
    "ClientAuthentication",
    "Form",
    "Parameters",
    "TokenRequestError",
    "basic_credentials",
    "check_kind",
    "check_options",
    "checked_key",
    "checked_request",
    "checked_resources",
    "form_request",
    "keyword_arguments",
    "optional_parameters",
    "posted",
    "posted_async",
    "seconds_in",
    "text_in",
    "what_it_granted",
]

ClientAuthentication = Literal["basic", "post"]
Parameters: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
Form: TypeAlias = Mapping[str, str | tuple[str, ...]]
"""A parameter with several values is there once for each of them."""

NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})
_PARAMETERS: Final = "a mapping, or a synchronous function that returns one"
# RFC 6749 section 5.2; a line break would let a server forge a line of the log.
_READABLE: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,512}", re.ASCII)


class TokenRequestError(Exception):
    """The authorization server refused a token request or a pushed request, or its answer can't be used.

    `error` is the server's OAuth error code (RFC 6749 section 5.2), None where there was none; `status` is
    the HTTP status code, 0 where no request was sent. The message quotes the server's `error_description`:
    don't show it as HTML.
    """

    def __init__(self, message: str, *, status: int, error: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


def optional_parameters(**parameters: str | tuple[str, ...] | None) -> Form:
    """Return the parameters that have a value."""
    return {name: value for name, value in parameters.items() if value}


def checked_resources(resource: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the APIs that the option `resource` names, maybe none (RFC 8707); raises ConfigurationError."""
    return _options.names_or_one("resource", resource) if resource else ()


def keyword_arguments(of: str, given: Mapping[str, Any], known: type, *others: str) -> dict[str, Any]:
    """Return what the function or class `of` was `given`, and None for a required argument that is missing.

    `known` is the TypedDict of what it hands on, `others` name the arguments of its own: where one is wrong,
    the caller is told by the name of what was called. Raises ConfigurationError for an unknown one.
    """
    required, optional = (getattr(known, f"__{kind}_keys__") for kind in ("required", "optional"))
    names = sorted((*required, *optional, *others))
    for name in given:
        if name not in names:
            raise refused(of, ", ".join(names), name)
    return dict.fromkeys(required) | dict(given)


def checked_key(key: "DPoPKey | auth.DPoPAuth") -> DPoPKey:
    """Return the key that the option `key` is or has; raises ConfigurationError for anything else."""
    if isinstance(key, DPoPKey):
        return key
    return part("key", key, "a DPoPKey or a DPoPAuth", fits=isinstance(key, auth.DPoPAuth)).key


def check_kind(client: object, kind: Literal["Client", "AsyncClient"]) -> None:
    """Raise ConfigurationError where the option `client` is asynchronous and must not be, or the reverse."""
    other = "AsyncClient" if kind == "Client" else "Client"
    takes = f"{'a synchronous' if kind == 'Client' else 'an'} {kind} of httpx2 or httpx"
    part("client", client, takes, fits=not isinstance(client, installed(other)))


def check_options(
    *,
    key: "DPoPKey | auth.DPoPAuth",
    client_id: str,
    client_secret: str | None = None,
    client_authentication: ClientAuthentication = "basic",
    parameters: Parameters = NO_PARAMETERS,
    **_others: Any,
) -> None:
    """Raise ConfigurationError for what no request can be made with."""
    checked_key(key)
    _options.credential("client_id", client_id)
    # RFC 6749 section 2.3.1: an empty secret is one, too.
    if client_secret is not None and client_secret != "":
        _options.credential("client_secret", client_secret)
    _options.choice("client_authentication", client_authentication, get_args(ClientAuthentication))
    if not callable(parameters):
        _mapping(parameters)
    elif _options.is_asynchronous(parameters):
        raise refused("parameters", _PARAMETERS, parameters)


def _mapping(parameters: object) -> Mapping[str, str]:
    if isinstance(parameters, Mapping):
        return parameters
    if inspect.iscoroutine(parameters):
        parameters.close()
    # The value isn't shown: it may contain an assertion.
    raise ConfigurationError(f"parameters takes {_PARAMETERS}, not a {type(parameters).__name__}")


def checked_request(client: Any, option: str, url: str, insecure_http_hosts: Collection[str]) -> Any:
    """Return a request of `client` to `url`, where that is https or a named host.

    `option` is what the user calls `url`. Raises ConfigurationError.
    """
    fits = _options.provides(client, "build_request", "stream")
    part("client", client, "a client of httpx2 or httpx", fits=fits)
    part(option, url, "an https URL", fits=url is not None)
    # A client with a base_url turns a path into the URL that is then called.
    request = client.build_request("POST", url)
    check_secure(option, str(request.url), insecure_http_hosts)
    return request


def basic_credentials(client_id: str, client_secret: str) -> str:
    """Return the value of `Authorization` for a client with a secret (RFC 6749 section 2.3.1)."""
    # Both are form-encoded before they are joined.
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def form_request(
    client: Any,
    url: str,
    data: Form,
    *,
    option: str,
    key: "DPoPKey | auth.DPoPAuth",
    client_id: str,
    client_secret: str | None = None,
    client_authentication: ClientAuthentication = "basic",
    parameters: Parameters = NO_PARAMETERS,
    insecure_http_hosts: Collection[str] = (),
) -> dict[str, Any]:
    """Return the arguments of `posted`; redirects are not followed.

    `data` is the form without the client's authentication, and takes precedence over it, as the user's
    `parameters` do over both; `option` is what the user calls `url`, for errors. Raises ConfigurationError
    and ValueError as `fetch_token` says.
    """
    check_options(
        key=key,
        client_id=client_id,
        client_secret=client_secret,
        client_authentication=client_authentication,
        parameters=parameters,
    )
    request = checked_request(client, option, url, insecure_http_hosts)
    headers = {"Accept": "application/json"}
    authentication: dict[str, str] = {}
    if client_secret is None:
        authentication = {"client_id": client_id}
    elif client_authentication == "post":
        authentication = {"client_id": client_id, "client_secret": client_secret}
    else:
        headers["Authorization"] = basic_credentials(client_id, client_secret)

    def form() -> Form:
        more = _mapping(parameters() if callable(parameters) else parameters)
        return {**authentication, **data, **more}

    return {
        "url": url,
        "data": form(),
        "headers": headers,
        "extensions": {NEW_FORM: form} if callable(parameters) else None,
        "auth": _proofs_only(key, request, insecure_http_hosts),
        "follow_redirects": False,
    }


def _proofs_only(
    key: "DPoPKey | auth.DPoPAuth", request: Any, insecure_http_hosts: Collection[str]
) -> "auth.DPoPAuth":
    if isinstance(key, DPoPKey):
        return auth.DPoPAuth(key, insecure_http_hosts=insecure_http_hosts)
    if key.has_token:
        raise ValueError("a token endpoint gets proofs without a token: use DPoPAuth(key)")
    if key.follow_redirects:
        raise ValueError("a token request follows no redirect: use DPoPAuth(key) without follow_redirects")
    if not key.covers(request):
        raise ValueError("the DPoPAuth makes no proof for this origin: name all of the server's by origin=")
    return key


def posted(client: Any, request: Mapping[str, Any]) -> tuple[int, bytes]:
    """Send a request of `form_request`; return the answer's status, and its body unless that is too long."""
    with client.stream("POST", **request) as response:
        return response.status_code, response.content if bodies.read_a_little(response) else b""


async def posted_async(client: Any, request: Mapping[str, Any]) -> tuple[int, bytes]:
    """Do as `posted` does, with an async client."""
    async with client.stream("POST", **request) as response:
        return response.status_code, response.content if await bodies.aread_a_little(response) else b""


def what_it_granted(status: int, content: bytes, *, expected: int, endpoint: str) -> dict[str, Any]:
    """Return the JSON object of a successful answer.

    `expected` is the status of success; `endpoint` names the server in errors. Raises
    TokenRequestError where the server refused, and where the answer is no JSON object.
    """
    found = _answer(content)
    answer = found or {}
    # Some servers write every member that they know: null and "" say that there is no error.
    if status != expected or answer.get("error"):
        code = _readable(answer.get("error"))
        description = _readable(answer.get("error_description"))
        message = f"{endpoint} refused: {code or 'no OAuth error'} (HTTP {status})"
        if description is not None:
            message = f"{message}: {description}"
        raise TokenRequestError(message, status=status, error=code)
    if found is None:
        raise TokenRequestError(
            f"the answer of {endpoint} is not a JSON object of at most {bodies.MOST // 1024} KiB",
            status=status,
        )
    return answer


def _readable(value: object) -> str | None:
    return value if isinstance(value, str) and _READABLE.fullmatch(value) else None


def _answer(content: bytes) -> dict[str, Any] | None:
    if len(content) > bodies.MOST:
        return None
    try:
        return strict.parse_document(content)
    except JOSEError:
        return None


def seconds_in(answer: Mapping[str, Any], name: str, *, status: int, endpoint: str) -> float | None:
    """Return a member that is a number of seconds, None where there is none; raises TokenRequestError."""
    value = answer.get(name)
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
        raise TokenRequestError(f"{endpoint}'s {name} is not a number of seconds", status=status)
    return value


def text_in(answer: Mapping[str, Any], name: str, *, status: int, endpoint: str) -> str | None:
    """Return a member that is a string, None where there is none; raises TokenRequestError."""
    value = answer.get(name)
    if value is not None and (not isinstance(value, str) or _options.CONTROL.search(value)):
        raise TokenRequestError(f"{endpoint}'s {name} is not a string of visible characters", status=status)
    return value
