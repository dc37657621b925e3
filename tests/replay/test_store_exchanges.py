"""The replay store reports its exchanges with a server."""

import asyncio
import secrets
import time
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.events import StoreExchange
from dpop_middleware.replay import RedisReplayStore
from tests.support.load import recovery
from tests.support.replay import ENDLESS, entry
from tests.support.valkey import HOST, Server


def store_at(server: Server, sink: Any) -> RedisReplayStore:
    return RedisReplayStore.from_url(
        server.url, prefix=secrets.token_hex(4), timeout=ENDLESS, on_exchange=sink
    )


async def test_entries_that_are_sent_together_are_one_exchange(shared_server: Server) -> None:
    told: list[StoreExchange] = []
    store, begun = store_at(shared_server, told.append), time.monotonic()
    assert await store.add(entry()) is True
    assert all(await asyncio.gather(*(store.add(entry()) for _ in range(20))))
    await store.aclose()
    assert sum(exchange.entries for exchange in told) == 21
    assert 2 <= len(told) <= 4
    assert all(exchange.answered and exchange.seconds > 0 for exchange in told)
    assert sum(exchange.seconds for exchange in told) < time.monotonic() - begun


async def test_an_exchange_without_an_answer_is_reported_as_such(server: Server) -> None:
    told: list[StoreExchange] = []
    store = RedisReplayStore.from_url(server.url, timeout=0.2, on_exchange=told.append)
    await recovery(store, entry)
    assert told[-1].answered
    told.clear()
    server.pause()
    with pytest.raises(Unavailable):
        await store.add(entry())
    server.resume()
    await store.aclose()
    assert not told[0].answered


async def test_an_exception_of_the_listener_changes_no_answer(
    shared_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(exchange: StoreExchange) -> None:
        raise RuntimeError("s3cr3t")

    store = store_at(shared_server, faulty)
    item = entry()
    assert [await store.add(item), await store.add(item)] == [True, False]
    await store.aclose()
    assert [record.getMessage() for record in caplog.records] == ["on_exchange raised RuntimeError"]


def test_an_asynchronous_listener_is_refused() -> None:
    async def sink(exchange: StoreExchange) -> None: ...

    for wrong in (sink, "print", 1):
        with pytest.raises(ConfigurationError, match="on_exchange takes a synchronous function"):
            RedisReplayStore.from_url(f"redis://{HOST}:1", on_exchange=wrong)  # type: ignore[arg-type]
