import secrets
from collections.abc import AsyncIterator

import pytest

from dpop_middleware.replay import RedisReplayStore, ReplayStore
from tests.replay.contract import ReplayStoreContract
from tests.support.valkey import Server


class TestContract(ReplayStoreContract):
    @pytest.fixture
    async def store(self, shared_server: Server) -> AsyncIterator[ReplayStore]:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), new_server="accept")
        yield store
        await store.aclose()
