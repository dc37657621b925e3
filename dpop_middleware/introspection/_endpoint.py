"""One question to an introspection endpoint and its answer (RFC 7662 section 2), and how its URL is found.

The caller bounds the total time, the transport connections and bytes. Redirects aren't followed. For one
event loop.
"""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from dpop_middleware import client
from dpop_middleware.introspection._transport import (
    BoundedTransport,
    ConnectionLostError,
    EndpointError,
    NotNamedError,
    error_of_status,
    httpx2,
)
from dpop_middleware.introspection.client_authentication import (
    BoundToken,
    ClientAuthentication,
    request_credentials,
)
from dpop_middleware.jose import JOSEError, strict
from dpop_middleware.tokens.connections import FetchError, ProxyChoice
from dpop_middleware.tokens.issuer_keys import endpoint_named, metadata_urls

if TYPE_CHECKING:
    from dpop_middleware.client import DPoPAuth

__all__ = ["Answer", "Endpoint", "EndpointOptions"]

_LOG = logging.getLogger(__name__)

_OK: Final = 200
_LIMIT: Final = 128 * 1024
_PLACE_LIFETIME: Final = 3600.0
# For how many seconds one question looks whether a place that is known has changed, and how soon another may:
# without a reason, and after questions that failed.
_LOOK: Final = 0.5
_BETWEEN_LOOKS: Final = 60.0
_BETWEEN_LOOKS_AFTER_FAILURES: Final = 1.0
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "dpop_middleware"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer with status 200, and its media type in lower case."""

    media_type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """How to ask. `url` is None where the issuer's metadata has it; `accept` is the media type to ask for."""

    issuer: str
    url: str | None
    authentication: ClientAuthentication
    accept: str
    clock: Callable[[], float]
    insecure_http_hosts: frozenset[str]
    ssl_context: ssl.SSLContext
    max_connections: int
    proxy: ProxyChoice
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the endpoint is; `until` is when to look again, `looked` when that was done last."""

    url: str
    auth: "DPoPAuth | None"
    until: float
    looked: float = -math.inf


class Endpoint:
    """Asks one introspection endpoint, in one event loop."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        bounded = BoundedTransport(
            ssl_context=options.ssl_context,
            max_connections=options.max_connections,
            limit=_LIMIT,
            proxy=options.proxy,
        )
        self._client = httpx2.AsyncClient(transport=bounded, timeout=None, trust_env=False, headers=_HEADERS)
        self._discovering = asyncio.Lock()
        self._metadata: tuple[str, ...] = metadata_urls(
            options.issuer, insecure_http_hosts=options.insecure_http_hosts
        )
        self._place = None if options.url is None else self._at(options.url, until=math.inf)

    @property
    def url(self) -> str | None:
        """Where the endpoint is, None where that isn't known yet."""
        return None if self._place is None else self._place.url

    async def ask(self, token: str) -> Answer:
        """Ask about `token`; raises EndpointError. The caller must bound the time."""
        place = await self._located()
        try:
            return await self._asked(place, token)
        except EndpointError as error:
            if not error.of_token:
                self._look_soon(place)
            raise
        except asyncio.CancelledError:
            # There was no answer in time.
            self._look_soon(place)
            raise

    async def locate(self) -> None:
        """Find the endpoint's URL, unless it is known; raises EndpointError."""
        await self._located()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _look_soon(self, failed: _Place) -> None:
        """Read the metadata again before the next question: the endpoint may have moved."""
        if self._options.url is None and self._place is failed:
            self._place = replace(failed, until=failed.looked + _BETWEEN_LOOKS_AFTER_FAILURES)

    async def _located(self) -> _Place:
        async with self._discovering:
            place, now = self._place, self._options.monotonic()
            if place is None:
                place = self._place = self._at(await self._discover(), until=now + _PLACE_LIFETIME)
            elif now >= place.until:
                # Also where nothing comes of the look: the next questions go where it was.
                self._place = replace(place, until=now + _BETWEEN_LOOKS, looked=now)
                place = self._place = await self._looked_up(self._place, until=now + _PLACE_LIFETIME)
            return place

    async def _looked_up(self, known: _Place, *, until: float) -> _Place:
        """Return where the endpoint is now; `known` where the metadata can't be read."""
        try:
            async with asyncio.timeout(_LOOK):
                url = await self._discover()
        except NotNamedError:
            self._place = None
            raise
        except (EndpointError, TimeoutError) as error:
            reason = str(error) or f"no metadata within {_LOOK:g} s"
            _LOG.warning(
                "the introspection endpoint's last URL is used, since it can't be looked up: %s", reason
            )
            return known
        return replace(known, until=until) if url == known.url else self._at(url, until=until)

    def _at(self, url: str, *, until: float) -> _Place:
        authentication = self._options.authentication
        auth = None
        if isinstance(authentication, BoundToken):
            auth = client.DPoPAuth(
                authentication.key,
                authentication.token,
                origin=url,
                clock=self._options.clock,
                insecure_http_hosts=self._options.insecure_http_hosts,
            )
        return _Place(url, auth, until)

    async def _discover(self) -> str:
        issuer, hosts = self._options.issuer, self._options.insecure_http_hosts
        reasons: list[str] = []
        kind = EndpointError
        for url in self._metadata:
            try:
                metadata = await self._document(url)
            except EndpointError as error:
                reasons.append(str(error))
                continue
            except asyncio.CancelledError:
                # In time nothing answered there: the next attempt tries it last (see `Discovery`).
                self._metadata = (*(other for other in self._metadata if other != url), url)
                raise
            try:
                return endpoint_named(
                    "introspection_endpoint", metadata, issuer=issuer, insecure_http_hosts=hosts
                ).url
            except FetchError as error:
                # The advice about a document that is there comes before one that isn't.
                reasons.insert(0, f"{error} (at {url})")
                kind = NotNamedError
        raise kind("; ".join(reasons))

    async def _document(self, url: str) -> dict[str, Any]:
        answer = await self._exchange("GET", url, headers={"Accept": "application/json"})
        if answer.status_code != _OK:
            raise EndpointError(f"{url}: the status is {answer.status_code}, not 200")
        try:
            return strict.parse_document(answer.content)
        except JOSEError as error:
            raise EndpointError(f"{url}: the answer is not a JSON object: {error.description}") from error

    async def _asked(self, place: _Place, token: str) -> Answer:
        try:
            answer = await self._post(place, token)
        except ConnectionLostError:
            # The server closed an idle connection just as the question was sent.
            answer = await self._post(place, token)
        if answer.status_code == _OK:
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Answer(media_type, answer.content)
        raise error_of_status(place.url, answer.status_code, answer.headers.get("Retry-After", ""))

    async def _post(self, place: _Place, token: str) -> httpx2.Response:
        options = self._options
        who = request_credentials(options.authentication, issuer=options.issuer, now=options.clock())
        return await self._exchange(
            "POST",
            place.url,
            headers={"Accept": options.accept, **who.headers},
            data={"token": token, "token_type_hint": "access_token", **who.form},
            auth=place.auth,
        )

    async def _exchange(self, method: str, url: str, **what: Any) -> httpx2.Response:
        try:
            return await self._client.request(method, url, follow_redirects=False, **what)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            raise ConnectionLostError(f"{url}: {type(error).__name__}: {error}".removesuffix(": ")) from error
        except httpx2.HTTPError as error:
            raise EndpointError(f"{url}: {type(error).__name__}: {error}".removesuffix(": ")) from error
        except FetchError as error:
            raise EndpointError(f"{url}: {error}", blocked=True) from error
        except Exception as error:  # noqa: BLE001 - a token source of the user's may fail with anything
            # Its message may quote a token.
            raise EndpointError(f"{url}: {type(error).__name__}") from None
