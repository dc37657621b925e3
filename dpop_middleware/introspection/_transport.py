"""The transport to an introspection endpoint, which bounds connections and bytes for every answer.

httpx2 is imported here only, so that a missing one is named with the way to install it.
"""

import ssl
from collections.abc import AsyncIterator
from typing import Final

try:
    import httpx2
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ModuleNotFoundError(
        "dpop_middleware.introspection needs httpx2: "
        "in a checkout of dpop_middleware, python -m pip install '.[introspection]'",
        name="httpx2",
    ) from error

__all__ = ["AnswerError", "BoundedTransport", "httpx2"]

# Shorter than the servers' own limits, so that they seldom close a connection while a question is being sent.
_KEPT_OPEN: Final = 4.0


class AnswerError(Exception):
    """An answer that won't be read."""


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                raise AnswerError("the answer is larger than the limit")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends requests over at most `max_connections` connections and reads at most `limit` bytes of a body.

    An answer with a content coding is refused: none is requested, and a few bytes could become many. Proxies
    from the environment aren't used.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext, max_connections: int, limit: int) -> None:
        self._limit = limit
        self._inner = httpx2.AsyncHTTPTransport(
            verify=ssl_context,
            trust_env=False,
            limits=httpx2.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEPT_OPEN,
            ),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return its answer, whose body is still to be read; raises AnswerError."""
        answer = await self._inner.handle_async_request(request)
        stream = answer.stream
        if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            await answer.aclose()
            raise AnswerError("the answer has a content coding, although none was asked for")
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - for the types: it came from an async pool
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_BoundedStream(stream, self._limit),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
