"""Only as much is read as an honest server writes: all four kinds of client against a real server."""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import (
    ClientCredentials,
    DPoPAuth,
    DPoPKey,
    DPoPTransport,
    TokenRequestError,
    fetch_token,
    fetch_token_async,
    push_authorization_request,
    push_authorization_request_async,
)
from dpop_middleware.client.bodies import MOST, aread_a_little, read_a_little
from tests.support.clients import CHALLENGE, CLIENTS, JSON, Answer, Answering, Caller, Seen, caller, running
from tests.support.endless import PART, PARTS, Endless

KEY = DPoPKey.generate()

pytestmark = pytest.mark.parametrize("kind", CLIENTS)


@pytest.fixture(scope="module")
def served() -> Generator[Endless]:
    server = Endless()
    with running(server) as server.origin:
        yield server


@pytest.fixture
def endless(served: Endless) -> Endless:
    served.most, served.status, served.headers = 0, 401, {}
    return served


@asynccontextmanager
async def client_of(kind: str, way: str, origin: str) -> AsyncGenerator[Caller]:
    """A client that uses a token at `origin`, in one of the two ways of this package."""
    if way == "auth":
        async with caller(kind, auth=DPoPAuth(KEY, "token", origin=origin)) as client:
            yield client
    else:
        headers = {"Authorization": "Bearer token"}
        transport = DPoPTransport(KEY, origin=origin)
        async with caller(kind, transport=transport, headers=headers) as client:
            yield client


async def beginning(client: Caller, answer: Any) -> bytes:
    """The beginning of a streamed answer, which is then closed."""
    if client.is_async:
        async for part in answer.aiter_raw(100_000):
            await answer.aclose()
            return bytes(part)
    for part in answer.iter_raw(100_000):
        answer.close()
        return bytes(part)
    return b""


@pytest.mark.parametrize("way", ["auth", "transport"])
class TestOfAnEndlessRefusal:
    async def test_an_endless_refusal_is_streamed_from_its_beginning(
        self, kind: str, way: str, endless: Endless
    ) -> None:
        endless.headers = JSON | {"dpop-nonce": "n"}
        async with client_of(kind, way, endless.origin) as client:
            answer = await client.send(client.client.build_request("GET", endless.origin), stream=True)
            assert (answer.status_code, answer.is_stream_consumed) == (401, False)
            assert await beginning(client, answer) == (PART * 7)[:100_000]
            assert answer.elapsed.total_seconds() > 0
            assert (await client.request("GET", f"{endless.origin}/good")).content == b"good"
        assert endless.most < PARTS

    async def test_a_repeated_request_does_not_wait_for_an_endless_refusal(
        self, kind: str, way: str, endless: Endless
    ) -> None:
        endless.headers = CHALLENGE | {"dpop-nonce": "n"}
        async with client_of(kind, way, endless.origin) as client:
            request = client.client.build_request("GET", endless.origin)
            answer = await client.send(request, stream=True)
            assert answer.status_code == 401
            # The caller gets the second refusal.
            assert await beginning(client, answer) == (PART * 7)[:100_000]
        assert endless.most < PARTS


@pytest.mark.parametrize("way", ["auth", "transport"])
async def test_a_compressed_error_is_read(kind: str, way: str, answering: Answering) -> None:
    error = gzip.compress(b'{"error": "use_dpop_nonce"}')

    def handler(seen: Seen) -> Answer:
        if "nonce" in seen.proof:
            return Answer()
        return Answer(401, JSON | {"dpop-nonce": "n", "content-encoding": "gzip"}, error)

    with answering(handler) as server:
        async with client_of(kind, way, server.origin) as client:
            answer = await client.request("GET", server.origin)
    assert answer.status_code == 200
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [200, 201, 400, 503])
class TestOfAnEndlessAnswerOfAnAuthorizationServer:
    async def test_a_token_request_has_an_end(self, kind: str, status: int, endless: Endless) -> None:
        endless.status = status
        async with caller(kind) as client:
            fetch: Any = fetch_token_async if client.is_async else fetch_token
            with pytest.raises(TokenRequestError) as caught:
                await in_thread(client, fetch, endless.origin, ClientCredentials(), key=KEY, client_id="c")
        assert caught.value.status == status
        assert endless.most < PARTS

    async def test_a_pushed_request_has_an_end(self, kind: str, status: int, endless: Endless) -> None:
        endless.status = status
        of_the_code = {"redirect_uri": "https://app.example/cb", "code_challenge": "challenge"}
        async with caller(kind) as client:
            push: Any = push_authorization_request_async if client.is_async else push_authorization_request
            with pytest.raises(TokenRequestError) as caught:
                await in_thread(client, push, endless.origin, key=KEY, client_id="c", **of_the_code)
        assert caught.value.status == status
        assert endless.most < PARTS

    async def test_below_the_client_of_others_a_token_that_can_not_be_checked_is_refused(
        self, kind: str, status: int, endless: Endless
    ) -> None:
        endless.status = status
        async with caller(kind, transport=DPoPTransport(KEY)) as client:
            request = client.client.build_request("POST", endless.origin, data={"grant_type": "x"})
            if status < 400:
                with pytest.raises(TokenRequestError, match="longer than 64 KiB") as caught:
                    await client.send(request, stream=True)
                assert caught.value.status == status
            else:
                answer = await client.send(request, stream=True)
                assert (answer.status_code, answer.is_stream_consumed) == (status, False)
                assert await beginning(client, answer) == (PART * 7)[:100_000]
        assert endless.most < PARTS


async def in_thread(client: Caller, function: Any, *arguments: Any, **options: Any) -> Any:
    if client.is_async:
        return await function(client.client, *arguments, **options)
    return await asyncio.to_thread(function, client.client, *arguments, **options)


def compressed(coding: str) -> bytes:
    """A few kilobytes that decode to a thousand times as much."""
    much = gzip.compress(b'{"error": "use_dpop_nonce"}' + b" " * 4_000_000)
    return gzip.compress(much) if "," in coding else much


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
@pytest.mark.parametrize("way", ["auth", "transport"])
class TestOfACompressedRefusalThatIsVeryLong:
    async def test_it_is_not_decoded_but_streamed(
        self, kind: str, way: str, coding: str, answering: Answering
    ) -> None:
        body = compressed(coding)
        headers = JSON | {"dpop-nonce": "n", "content-encoding": coding}
        with answering(lambda _: Answer(401, headers, body)) as server:
            async with client_of(kind, way, server.origin) as client:
                answer = await client.send(client.client.build_request("GET", server.origin), stream=True)
                assert (answer.status_code, answer.is_stream_consumed) == (401, False)
                assert await beginning(client, answer) == body[:100_000]
        assert len(server.seen) == 1

    async def test_it_is_not_decoded_where_the_request_is_repeated(
        self, kind: str, way: str, coding: str, answering: Answering
    ) -> None:
        headers = CHALLENGE | {"dpop-nonce": "n", "content-encoding": coding}

        def handler(seen: Seen) -> Answer:
            return Answer() if "nonce" in seen.proof else Answer(401, headers, compressed(coding))

        with answering(handler) as server:
            async with client_of(kind, way, server.origin) as client:
                answer = await client.request("GET", server.origin)
        assert answer.status_code == 200
        assert [refused.content for refused in answer.history] == [b""] * (way == "auth")


async def test_a_coding_that_changes_nothing_is_not_counted(kind: str, answering: Answering) -> None:
    body = gzip.compress(b'{"access_token": "t", "token_type": "DPoP"}')
    with answering(lambda _: Answer(200, JSON | {"content-encoding": "gzip, identity"}, body)) as server:
        async with caller(kind) as client:
            fetch: Any = fetch_token_async if client.is_async else fetch_token
            response = await in_thread(
                client, fetch, server.origin, ClientCredentials(), key=KEY, client_id="c"
            )
    assert response.access_token == "t"


async def test_what_a_refusal_decodes_to_is_never_in_memory_as_a_whole(kind: str) -> None:
    module: Any = httpx2 if kind.startswith("httpx2") else httpx
    body = gzip.compress(b" " * 50_000_000)
    assert len(body) < MOST

    async def later() -> AsyncGenerator[bytes]:
        yield body

    content = later() if kind.endswith("-async") else iter([body])
    response = module.Response(401, headers={"content-encoding": "gzip"}, content=content)
    tracemalloc.start()
    try:
        short = await aread_a_little(response) if kind.endswith("-async") else read_a_little(response)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (short, peak < 1_000_000) == (False, True)


@pytest.mark.parametrize("way", ["auth", "transport"])
async def test_a_refusal_that_can_not_be_decoded_is_dropped_where_the_request_is_repeated(
    kind: str, way: str, answering: Answering
) -> None:
    headers = CHALLENGE | {"dpop-nonce": "n", "content-encoding": "gzip"}

    def handler(seen: Seen) -> Answer:
        return Answer() if "nonce" in seen.proof else Answer(401, headers, b"not compressed")

    with answering(handler) as server:
        async with client_of(kind, way, server.origin) as client:
            assert (await client.request("GET", server.origin)).status_code == 200


async def test_a_refusal_that_was_in_memory_from_the_beginning_stays_there(kind: str) -> None:
    module: Any = httpx2 if kind.startswith("httpx2") else httpx
    nonces: list[bool] = []

    def answer(request: Any) -> Any:
        nonces.append(bool(nonces))
        headers = JSON | {"dpop-nonce": "n"}
        return module.Response(200 if nonces[-1] else 401, headers=headers, json={"error": "use_dpop_nonce"})

    transport = module.MockTransport(answer)
    async with caller(kind, transport=transport, auth=DPoPAuth(KEY, "token")) as client:
        answered = await client.request("GET", "https://api.example.com/")
    assert (answered.status_code, nonces) == (200, [False, True])
