"""The bounds of the connection to an introspection endpoint, with a real server."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.responses import Response

from dpop_middleware.introspection._transport import AnswerError, BoundedTransport
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question

LIMIT = 1000


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = BoundedTransport(ssl_context=NO_AUTHORITIES, max_connections=2, limit=LIMIT)
    async with httpx2.AsyncClient(transport=transport) as client:
        yield client


async def test_a_body_may_have_as_many_bytes_as_the_limit_and_no_more(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient
) -> None:
    size = LIMIT

    async def behaves(_question: Question) -> Response:
        return Response(b"x" * size)

    issuer.behaves = behaves
    assert len((await client.post(issuer.endpoint)).content) == LIMIT
    size += 1
    with pytest.raises(AnswerError, match="larger than the limit"):
        await client.post(issuer.endpoint)


async def test_a_body_with_a_content_coding_is_not_read(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient
) -> None:
    coding = "gzip"

    async def behaves(_question: Question) -> Response:
        return Response(b"{}", headers={"Content-Encoding": coding})

    issuer.behaves = behaves
    with pytest.raises(AnswerError, match="content coding"):
        await client.post(issuer.endpoint)
    coding = "Identity"
    assert (await client.post(issuer.endpoint)).content == b"{}"
