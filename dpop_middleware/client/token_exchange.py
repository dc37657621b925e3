"""Which requests ask for a token, and what a client is told of the answer (RFC 9449 section 5)."""

import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from dpop_middleware import _options
from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware._request.uri import normalize
from dpop_middleware.client.libraries import installed
from dpop_middleware.client.proofs import can_repeat
from dpop_middleware.client.token_request import TokenRequestError
from dpop_middleware.client.urls import named_urls, origin_of, request_origin, target_of

__all__ = ["TokenEndpoints"]

_GRANT: Final = re.compile(rb"(?:\A|&)grant_type=")


class TokenEndpoints:
    """The token endpoints that are named, or else wherever a POST of a form has a `grant_type`.

    `translate` says whether a client is told that a DPoP token is of the type Bearer.
    """

    def __init__(
        self, named: str | Iterable[str] | None, insecure_http_hosts: Collection[str], *, translate: bool
    ) -> None:
        urls = named_urls("token_endpoint", named)
        self._hosts = checked_hosts(insecure_http_hosts)
        self._translate = _options.flag("translate_token_type", translate)
        self._named = frozenset(normalize(target_of(url)) for url in urls)
        for url in urls:
            checked_url("token_endpoint", origin_of(url), insecure_http_hosts=self._hosts)

    def __contains__(self, request: Any) -> bool:
        if request.method != "POST":
            return False
        if self._named:
            return _target(request) in self._named
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded" or not can_repeat(request):
            return False
        return _GRANT.search(b"".join(request.stream)) is not None

    def require_secure(self, request: Any) -> None:
        """Raise ConfigurationError for a request by plain http that crosses a network and isn't named."""
        checked_url("the token endpoint", request_origin(request), insecure_http_hosts=self._hosts)

    def for_the_client(self, response: Any) -> bytes | None:
        """Return the body that the client gets instead of an answer's own, None where it gets that.

        Raises TokenRequestError for a token that is not bound, and for a redirect to another origin or to
        what is none of the named endpoints.
        """
        status = response.status_code
        if response.has_redirect_location:
            target = _redirected_to(response)
            if target is None:
                raise TokenRequestError("the token endpoint redirects to another origin", status=status)
            if self._named and target not in self._named:
                raise TokenRequestError("the token endpoint redirects to another endpoint", status=status)
        answer = _object(response) if response.is_success else {}
        token_type = str(answer.get("token_type")).lower()
        if token_type == "bearer" and "access_token" in answer:
            raise TokenRequestError(
                "the token endpoint did not bind the token to the key: its token_type is Bearer, not DPoP",
                status=status,
            )
        if token_type != "dpop" or not self._translate:
            return None
        return json.dumps(answer | {"token_type": "Bearer"}).encode()


def _target(request: Any) -> str | None:
    try:
        return normalize(target_of(str(request.url)))
    except ValueError:
        return None


def _redirected_to(response: Any) -> str | None:
    """Return the target of a redirect in normal form, None for one that leaves the origin."""
    try:
        # As the client itself reads it: another reader could disagree about where it leads.
        location = type(response.request.url)(response.headers["Location"])
        if location.scheme and not location.host:  # of which a client makes the same host at another port
            return None
        url = str(response.request.url.join(location))
        return normalize(target_of(url)) if origin_of(url) == request_origin(response.request) else None
    except (ValueError, *installed("InvalidURL")):
        return None


def _object(response: Any) -> dict[str, Any]:
    try:
        answer = response.json()
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return {}
    return answer if isinstance(answer, dict) else {}
