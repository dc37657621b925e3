"""What the links of a cluster ask of it, without servers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware.replay.buckets import Buckets
from dpop_middleware.replay.cluster import Cluster, Place
from dpop_middleware.replay.connecting import connector
from dpop_middleware.replay.line import Line
from dpop_middleware.replay.replies import ServerError
from dpop_middleware.replay.settings import Settings
from dpop_middleware.replay.sights import Sights
from dpop_middleware.replay.target import target_of_url
from tests.support.valkey import HOST

BUCKETS = Buckets(b"dpop", spread=True)


def cluster() -> Any:
    return Cluster(target_of_url(f"redis+cluster://{HOST}:1"), Settings(), BUCKETS)


async def test_before_the_topology_is_known_nobody_owns_anything() -> None:
    made = cluster()
    assert made.buckets((HOST, 1)) == []
    assert await made.present(frozenset({b"a.b"}), (HOST, 1)) == frozenset()
    await made.aclose()


async def test_where_one_server_has_other_data_the_others_are_looked_at() -> None:
    made = cluster()
    changed, other = made._link((HOST, 1)), made._link((HOST, 2))
    changed.fence.standing.owned, other.fence.standing.owned = {1}, {2}
    Place(made, (HOST, 1)).look_around()
    assert changed.fence.standing.unread == set()
    assert other.fence.standing.unread == {2}
    await made.aclose()


class Moving:
    """A cluster that is told of a slot that has moved."""

    def __init__(self) -> None:
        self.told: list[Exception] = []

    def look_again(self, error: Exception) -> None:
        self.told.append(error)

    def tag(self) -> bytes:
        return b"{2}"


async def test_retentions_follow_to_another_slot() -> None:
    moved: Any = Moving()
    connect = connector(target_of_url(f"redis://{HOST}:1"))
    line = Line("here", connect, Settings(), Sights(BUCKETS), moved)
    line.follow_tag()
    assert moved.told == []
    error = ServerError("MOVED 1 h:1")
    line.retentions.read(error, error, now=0.0)
    line.follow_tag()
    assert moved.told == [error]
    assert line.retentions.elsewhere is None
    await asyncio.sleep(0)
    await line.aclose()


class Elsewhere(Moving):
    """A cluster that is asked to look at its other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def look_around(self) -> None:
        self.looks += 1


async def test_a_server_that_comes_back_with_other_data_has_the_others_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others: Any = Elsewhere()
    connect = connector(target_of_url(f"redis://{HOST}:1"))
    line: Any = Line("here", connect, Settings(), Sights(BUCKETS), others)
    opening: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    opening.set_result(SimpleNamespace(channel=None, info=None, anchors={}, asked=(0.0, 0.0)))
    for changed in (False, True):
        monkeypatch.setattr(type(line.fence), "connected", lambda *_, changed=changed, **__: changed)
        line._opened(opening)
        assert others.looks == changed
    await line.aclose()
