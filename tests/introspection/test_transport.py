"""Answers over HTTP: read within a limit, before and after decompression."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.responses import Response

from dpop_middleware.introspection._transport import BoundedTransport
from dpop_middleware.tokens.connections import FetchError, ProxyChoice
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question

LIMIT = 1000


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = BoundedTransport(
        ssl_context=NO_AUTHORITIES, max_connections=2, limit=LIMIT, proxy=ProxyChoice(None)
    )
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as made:
        yield made


async def asked(
    client: httpx2.AsyncClient, issuer: IssuerOfOpaqueTokens, answer: Response
) -> httpx2.Response:
    async def behaves(_question: Question) -> Response:
        return answer

    issuer.behaves = behaves
    return await client.post(issuer.endpoint, data={"token": "any"})


@pytest.mark.parametrize("coding", [None, "identity", "gzip", "x-gzip", "GZip"])
async def test_the_client_gets_the_body_itself(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient, coding: str | None
) -> None:
    body = b"x" * LIMIT
    sent = gzip.compress(body) if coding and "gzip" in coding.lower() else body
    fields = {"Retry-After": "7"} | ({} if coding is None else {"Content-Encoding": coding})
    answer = await asked(client, issuer, Response(sent, status_code=503, headers=fields))
    assert (answer.status_code, answer.content, answer.headers["Retry-After"]) == (503, body, "7")
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Content-Length"] == str(LIMIT)


@pytest.mark.parametrize(
    ("body", "coding", "says"),
    [
        (b"x" * (LIMIT + 1), "identity", "larger than the limit"),
        (b"x" * (LIMIT + 1), "gzip", "larger than the limit"),
        (gzip.compress(b"x" * (LIMIT + 1), mtime=0), "gzip", "larger than the limit"),
        (gzip.compress(b"x", mtime=0)[:-1], "gzip", "not valid gzip data"),
        (b"x", "br", "content coding other than gzip"),
        (b"x", "gzip, gzip", "content coding other than gzip"),
    ],
)
async def test_another_body_is_an_error_and_the_connection_can_be_used_again(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient, body: bytes, coding: str, says: str
) -> None:
    for _ in range(5):
        with pytest.raises(FetchError, match=says):
            await asked(client, issuer, Response(body, headers={"Content-Encoding": coding}))
    assert (await asked(client, issuer, Response(b"{}"))).content == b"{}"


@pytest.mark.parametrize(("body", "coding"), [(b"x" * (LIMIT + 1), "identity"), (b"x", "gzip"), (b"x", "br")])
async def test_a_body_that_can_not_be_read_leaves_a_refusal_its_status_and_its_fields(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient, body: bytes, coding: str
) -> None:
    fields = {"Retry-After": "7", "Content-Encoding": coding}
    answer = await asked(client, issuer, Response(body, status_code=503, headers=fields))
    assert (answer.status_code, answer.content, answer.headers["Retry-After"]) == (503, b"", "7")


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_question(
    issuer: IssuerOfOpaqueTokens, client: httpx2.AsyncClient
) -> None:
    """What a filter in front of the endpoint holds against one token must not follow the others."""
    for number in range(2):
        marked = Response(status_code=403, headers={"Set-Cookie": f"blocked{number}=1; Path=/"})
        assert (await asked(client, issuer, marked)).status_code == 403
    assert (await asked(client, issuer, Response(b"{}"))).status_code == 200
    assert len(issuer.asked) == 3
    assert not any("cookie" in question.headers for question in issuer.asked)


async def asked_of_one_that_hangs_up(client: httpx2.AsyncClient, status: int) -> httpx2.Response:
    """The answer of a server that ends the connection within the body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"token=any")
        writer.write(f"HTTP/1.1 {status} Any\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nshort".encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await client.post(f"http://127.0.0.1:{port}/", data={"token": "any"})


async def test_a_body_that_ends_too_early_leaves_a_refusal_its_status_and_its_fields(
    client: httpx2.AsyncClient,
) -> None:
    answer = await asked_of_one_that_hangs_up(client, 429)
    assert (answer.status_code, answer.content, answer.headers["Retry-After"]) == (429, b"", "7")


async def test_another_body_that_ends_too_early_is_no_answer(client: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        await asked_of_one_that_hangs_up(client, 200)
