"""Keys by the user's own function: where it runs, and its bounds."""

import asyncio
import concurrent.futures
import gc
import json
import threading
import time
from typing import Any

import httpx2
import pytest

from dpop_middleware import JWTAccessTokenVerifier
from dpop_middleware._request.secure_url import checked_endpoint
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.tokens.connections import Deadline, FetchError
from dpop_middleware.tokens.fetch import Fetch, OwnFetcher
from dpop_middleware.tokens.issuer_keys import FetchOptions
from tests.support.issuer_server import IssuerServer
from tests.support.issuer_tokens import issuer_key, key_set

ISSUER = "https://auth.example.com"
LIMIT = 64


def verifier(fetch: Fetch, *, issuer: str = ISSUER, **options: Any) -> JWTAccessTokenVerifier:
    return JWTAccessTokenVerifier(issuer=issuer, audience="https://api.example.com", fetch=fetch, **options)


async def get(fetch: Any, *, seconds: float = 5) -> dict[str, Any]:
    """Ask from a thread, as the key source does."""
    fetcher = OwnFetcher(fetch, asyncio.get_running_loop())
    endpoint = checked_endpoint("jwks", f"{ISSUER}/jwks", insecure_http_hosts=())
    return await asyncio.to_thread(fetcher.get, endpoint, deadline=Deadline(seconds), limit=LIMIT)


async def test_a_client_of_the_application_fetches_metadata_and_keys() -> None:
    key = issuer_key()
    with IssuerServer() as server:
        server.publish(key_set(key))
        # The server closes each connection after its answer, so that none can be kept.
        unkept = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(trust_env=False, limits=unkept) as client:
            seen: list[tuple[str, threading.Thread]] = []

            async def fetch(url: str) -> bytes:
                seen.append((url, threading.current_thread()))
                return (await client.get(url)).raise_for_status().content

            own = verifier(fetch, issuer=server.origin)
            await own.open()
            token = key.token(iss=server.origin)
            assert (await own.verify(token)).issuer == server.origin
            assert (await own.verify(token)).issuer == server.origin
            assert (await own.health()).ok
            with pytest.raises(InvalidToken):
                await own.verify(issuer_key(kid="other").token(iss=server.origin))
            await own.aclose()
    assert seen[0][0] == f"{server.origin}/.well-known/oauth-authorization-server"
    assert {thread for _, thread in seen} == {threading.current_thread()}, "the client lives in this loop"


async def test_the_result_of_fetch_is_read_strictly() -> None:
    async def fetch(url: str) -> bytes:
        assert url == f"{ISSUER}/jwks"
        return b'{"keys": []}'

    assert await get(fetch) == {"keys": []}


def returning(value: Any) -> Any:
    async def fetch(url: str) -> Any:
        return value

    return fetch


class GivenUp(BaseException):
    """Such as the time-outs of some libraries, which no handler of errors should catch."""


def raising(error: BaseException) -> Any:
    async def fetch(url: str) -> Any:
        raise error

    return fetch


def not_async(url: str) -> bytes:
    return b"{}"


@pytest.mark.parametrize(
    ("fetch", "reason"),
    [
        (returning("{}"), "fetch returned str, not bytes"),
        (returning(None), "fetch returned NoneType, not bytes"),
        (returning({"keys": []}), "fetch returned dict, not bytes"),
        (returning(b"x" * (LIMIT + 1)), "larger than the limit"),
        (returning(b"[]"), "not a JSON object"),
        (returning(b'{"a": 1, "a": 2}'), "not a JSON object"),
        (raising(OSError("secret")), "fetch raised OSError"),
        (raising(TimeoutError("secret")), "fetch raised TimeoutError"),
        (raising(GivenUp("secret")), "fetch raised GivenUp"),
        (raising(asyncio.CancelledError()), r"\bfetch was cancelled$"),
        (not_async, "fetch raised TypeError"),
    ],
)
async def test_an_error_of_fetch_is_a_fetch_error(fetch: Any, reason: str) -> None:
    with pytest.raises(FetchError, match=reason) as caught:
        await get(fetch)
    assert "secret" not in str(caught.value)


async def test_after_any_error_of_fetch_the_next_attempt_is_made() -> None:
    key = issuer_key()
    outcomes = [raising(GivenUp()), returning(json.dumps(key_set(key)).encode())]

    async def fetch(url: str) -> bytes:
        body: bytes = await outcomes.pop(0)(url)
        return body

    own = verifier(fetch, jwks=f"{ISSUER}/jwks")
    with pytest.raises(Unavailable) as caught:
        await own.verify(key.token(iss=ISSUER))
    assert "fetch raised GivenUp" in str(caught.value.actual)
    while outcomes:
        await own.health()
    assert (await own.verify(key.token(iss=ISSUER))).issuer == ISSUER


async def test_fetch_is_cancelled_at_the_deadline() -> None:
    cancelled = asyncio.Event()

    async def fetch(url: str) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    with pytest.raises(FetchError, match="time limit"):
        await get(fetch, seconds=0.05)
    await asyncio.wait_for(cancelled.wait(), 5)


def test_what_fetch_raises_after_the_deadline_is_in_no_log() -> None:
    logged: list[dict[str, Any]] = []

    async def fetch(url: str) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("secret") from None
        raise AssertionError

    async def late() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: logged.append(context))
        with pytest.raises(FetchError, match="time limit"):
            await get(fetch, seconds=0.05)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    asyncio.run(late())
    gc.collect()
    assert logged == []


def test_a_loop_that_is_closed_during_a_fetch_ends_it_at_the_deadline_without_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun = asyncio.new_event_loop(), asyncio.Event()
    # asyncio reports the unfinished task: that is for whoever closes the loop.
    loop.set_exception_handler(lambda *_: None)

    async def fetch(url: str) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    def until_deadline(future: object, seconds: float) -> None:
        loop.run_until_complete(begun.wait())
        loop.close()
        raise TimeoutError

    monkeypatch.setattr(concurrent.futures.Future, "exception", until_deadline)
    endpoint = checked_endpoint("jwks", ISSUER, insecure_http_hosts=())
    with pytest.raises(FetchError, match="loop that asked is closed"):
        OwnFetcher(fetch, loop).get(endpoint, deadline=Deadline(60), limit=LIMIT)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_loop_that_is_closed_fetches_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    endpoint = checked_endpoint("jwks", ISSUER, insecure_http_hosts=())
    with pytest.raises(FetchError, match="loop that asked is closed"):
        OwnFetcher(returning(b"{}"), loop).get(endpoint, deadline=Deadline(1), limit=LIMIT)


def test_a_verifier_outlives_the_loop_in_which_it_was_used() -> None:
    key = issuer_key()
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return json.dumps(key_set(key)).encode()

    own = verifier(fetch, jwks=f"{ISSUER}/jwks", jwks_lifetime=1)
    for _ in range(2):
        assert asyncio.run(own.verify(key.token(iss=ISSUER))).issuer == ISSUER
    assert asked == [f"{ISSUER}/jwks"]


def test_each_fetch_is_made_in_the_loop_of_the_request_that_it_begins_for() -> None:
    key, now = issuer_key(), time.time()
    loops: list[asyncio.AbstractEventLoop] = []

    async def fetch(url: str) -> bytes:
        loops.append(asyncio.get_running_loop())
        return json.dumps(key_set(key)).encode()

    async def verified() -> asyncio.AbstractEventLoop:
        assert (await own.verify(key.token(iss=ISSUER, exp=int(now) + 10_000))).issuer == ISSUER
        return asyncio.get_running_loop()

    own = verifier(fetch, jwks=f"{ISSUER}/jwks", jwks_lifetime=300, clock=lambda: now)
    first = asyncio.run(verified())
    now += 1000
    assert loops == [first]
    assert loops != [second := asyncio.run(verified())]
    assert loops == [first, second]


async def test_without_keys_the_answer_is_503() -> None:
    own = verifier(raising(OSError()))
    with pytest.raises(Unavailable, match="can't be fetched now"):
        await own.verify(issuer_key().token(iss=ISSUER))
    assert not (await own.health()).ok


@pytest.mark.parametrize("fetch", ["https://proxy", 1, b""])
def test_a_fetch_that_can_not_be_called_is_refused(fetch: Any) -> None:
    with pytest.raises(ConfigurationError, match="fetch takes an async function from a URL to bytes, not"):
        verifier(fetch)


@pytest.mark.parametrize(
    "options", [{"proxy": "http://proxy:3128"}, {"headers": {"X-Y": "z"}}, {"ssl_context": "default"}]
)
def test_fetch_excludes_the_other_options(options: dict[str, Any]) -> None:
    import ssl

    if "ssl_context" in options:
        options = {"ssl_context": ssl.create_default_context()}
    with pytest.raises(ConfigurationError, match="leave out jwks_proxy, jwks_headers and ssl_context"):
        FetchOptions(fetch=returning(b"{}"), **options)


def test_the_options_show_no_secret() -> None:
    options = FetchOptions(proxy="http://user:secret@proxy:3128", headers={"X-Y": "secret"})
    assert "secret" not in repr(options)
