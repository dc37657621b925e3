"""How a fence judges the anchors of a cluster, without a server."""

import dataclasses
import math

import pytest

from dpop_middleware.replay.redis.anchors import Anchor, Sights, Standing
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.resp import NOTHING_USUAL, Buckets
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of

NOW = 1_800_000_000.0
MARGIN = 5.0
BUCKETS = Buckets(b"dpop", spread=True)


def server(name: str, *, replica_of: str = "", flushed: bool = False) -> ServerInfo:
    return ServerInfo(
        run_id=f"run {name}",
        replication_id=f"data {name}",
        role="master",
        uptime=100_000,
        time=NOW,
        former_replication_id=f"data {replica_of}" if replica_of else "",
        rewriting_commands=frozenset({"flushall"} if flushed else ()),
    )


A, B, C = (server(name) for name in "abc")


def anchor(info: ServerInfo, since: float = -math.inf, begun: float = NOW - 5000) -> bytes:
    return Anchor.new(identity_of(info), since, server_time=begun).value


def known(value: bytes | None) -> Anchor:
    found = Anchor.parse(value)
    assert found is not None
    return found


def written(command: bytes) -> Anchor:
    """The anchor that a `SET` or the script writes."""
    return Anchor.parse(command.split(b"\r\n")[-2]) or known(command.split(b"\r\n")[6])


def since_in(command: bytes) -> float:
    """The moment that a `SET` or the script writes."""
    return written(command).since


class Cluster:
    """The fences of one worker, by the server's name."""

    def __init__(self) -> None:
        self.sights = Sights(BUCKETS)
        self.sights.offset = 0.0
        self.fences: dict[str, Fence] = {}

    def meet(self, info: ServerInfo, anchors: dict[int, bytes | None], at: float = NOW) -> Fence:
        fence = self.fences.setdefault(info.run_id, Fence(self.sights, "accept"))
        fence.connected(info, anchors, lived=0, asked=(at, at))
        return fence


def test_an_anchor_that_another_master_has_came_from_there_and_is_adopted() -> None:
    worker, moved = Cluster(), anchor(A)
    worker.meet(A, {1: moved, 2: anchor(A)})
    here = worker.meet(B, {3: anchor(B)}, at=NOW + 9)
    here.own([1, 3])
    here.observe(1, moved, NOW + 10, NOW + 10)
    assert here.standing.foreign == {1: moved}
    here.settle(dict(here.standing.foreign), frozenset({identity_of(A)}), NOW + 10)
    assert worker.sights.since[1] == -math.inf
    (write,) = here.opening(NOW + 11, [1])
    assert identity_of(B) in write
    # Until that is done no further question is needed.
    here.observe(1, moved, NOW + 11, NOW + 11)
    assert here.standing.foreign == {}


def test_where_the_server_does_not_own_the_bucket_yet_nothing_is_written() -> None:
    worker, moved = Cluster(), anchor(A)
    worker.meet(A, {1: moved})
    here = worker.meet(B, {3: anchor(B)})
    here.observe(1, moved, NOW + 10, NOW + 10)
    here.settle(dict(here.standing.foreign), frozenset({identity_of(A)}), NOW + 10)
    assert worker.sights.since[1] == -math.inf
    assert here.opening(NOW + 11, [1]) == []
    # As soon as it does, the anchor is read again.
    assert here.own([1, 3])
    assert 1 in here.standing.unread


@pytest.mark.parametrize(
    ("info", "present"),
    [
        (B, frozenset[bytes]()),
        (B, frozenset({identity_of(C)})),
        (server("b", replica_of="a"), frozenset({identity_of(A)})),
    ],
    ids=["nobody has it", "another has something else", "a replica of it, promoted"],
)
def test_an_anchor_that_no_master_has_now_was_lost(info: ServerInfo, present: frozenset[bytes]) -> None:
    worker, moved = Cluster(), anchor(A)
    worker.meet(A, {1: moved})
    here = worker.meet(info, {1: moved, 3: anchor(info)})
    assert here.standing.foreign == {1: moved}
    here.settle({1: moved}, present, NOW + 10)
    assert worker.sights.since[1] == NOW + 10 + MARGIN
    (write,) = here.opening(NOW + 11, [1, 3])
    assert since_in(write) == NOW + 10 + MARGIN


def test_an_answer_about_an_anchor_that_changed_since_is_ignored() -> None:
    worker = Cluster()
    here = worker.meet(B, {1: anchor(A)})
    asked = dict(here.standing.foreign)
    newer = anchor(C)
    here.observe(1, newer, NOW + 1, NOW + 1)
    here.settle(asked, frozenset({identity_of(A)}), NOW + 2)
    assert here.standing.foreign == {1: newer}
    here.settle({1: b"no anchor"}, frozenset(), NOW + 2)
    assert here.standing.foreign == {1: newer}


# When an anchor was asked for and received, around a loss on another server that is learned at 5 s.
# A read that was under way in the meantime may have come before the loss.
BEFORE, UNDER_WAY, AFTER = (3, 4), (4, 6), (6, 6.5)


def test_a_bucket_that_came_before_a_server_lost_its_data_may_be_lost_with_them() -> None:
    lost = NOW + 7 + MARGIN
    for (asked, received), since in ((BEFORE, lost), (UNDER_WAY, lost), (AFTER, -math.inf)):
        worker, moved = Cluster(), anchor(A)
        there = worker.meet(A, {1: moved})
        here = Fence(worker.sights, "accept")
        here.connected(B, {3: anchor(B)}, lived=0, asked=(NOW, NOW))
        assert not here.has_to_tell
        here.connected(server("b again"), {}, lived=0, asked=(NOW + 5, NOW + 5))
        assert here.has_to_tell
        # A worker that sees it elsewhere afterwards knows that it wasn't here.
        there.standing.read_again()
        there.vitals.look(NOW + asked)
        _, buckets = there.survey(NOW + asked)
        there.surveyed(buckets, [moved], NOW + received)
        here.observe(1, moved, NOW + 7, NOW + 7)
        here.settle(dict(here.standing.foreign), frozenset({identity_of(A)}), NOW + 7)
        assert worker.sights.since[1] == since


def test_a_bucket_that_came_through_a_server_that_lost_data_may_be_lost_with_them() -> None:
    lost = NOW + 5 + MARGIN
    for (asked, received), since in ((BEFORE, lost), (UNDER_WAY, lost), (AFTER, -math.inf)):
        worker, moved = Cluster(), anchor(A)
        there, here = worker.meet(A, {1: moved}), worker.meet(B, {})
        between = Fence(worker.sights, "accept")
        between.connected(C, {3: anchor(C)}, lived=0, asked=(NOW, NOW))
        between.connected(server("c again"), {}, lived=0, asked=(NOW + 5, NOW + 5))
        there.vitals.look(NOW + asked)
        there.observe(1, moved, NOW + received, NOW + received)
        here.own([1])
        here.observe(1, moved, NOW + 60, NOW + 60)
        here.settle({1: moved}, frozenset({identity_of(A)}), NOW + 60)
        assert worker.sights.since[1] == since
        (write,) = here.opening(NOW + 61, [1])
        # Other workers, which know the anchor, learn of that loss only.
        assert (since_in(write), written(write).mark) == (since, known(moved).mark)


def test_anchors_whose_read_is_under_way_when_they_are_needed_are_read_again() -> None:
    kept = anchor(A)
    there = Cluster().meet(A, {1: kept})
    there.standing.read_again()
    _, buckets = there.survey(NOW + 4)
    # Another server has lost its data.
    there.standing.read_again()
    there.surveyed(buckets, [kept], NOW + 6)
    assert there.has_to_write
    assert there.survey(NOW + 7) == ([], [1])


def test_a_replica_that_took_over_before_it_was_known_may_have_lost_a_bucket() -> None:
    worker = Cluster()
    promoted = dataclasses.replace(C, former_replication_id="data of a master")
    worker.meet(A, {1: anchor(A)})
    assert worker.sights.changed_at == -math.inf
    worker.meet(promoted, {3: anchor(promoted)})
    assert worker.sights.changed_at == NOW


def test_an_anchor_in_its_state_before_a_move_means_a_loss() -> None:
    worker, first = Cluster(), anchor(A)
    before, there = worker.meet(A, {1: first}), worker.meet(B, {})
    moved = known(first).under(identity_of(B)).value
    there.own([1])
    there.observe(1, moved, NOW + 1, NOW + 1)
    # During the move it was replaced by what a replica still had.
    before.observe(1, first, NOW + 9, NOW + 9)
    assert worker.sights.since[1] == NOW + 9 + MARGIN
    (write,) = before.opening(NOW + 10, [1])
    assert (since_in(write), written(write).mark) == (NOW + 9 + MARGIN, known(first).mark)


def test_a_bucket_first_seen_where_data_were_lost_counts_from_then() -> None:
    worker = Cluster()
    here = worker.meet(A, {1: anchor(A)})
    here.vitals.has_lost, here.vitals.lost_at = True, NOW + 5
    here.opening(NOW + 5, [])
    here.own([1, 2])
    here.observe(2, anchor(A), NOW + 60, NOW + 60)
    assert worker.sights.since[2] == NOW + 5 + MARGIN
    (write,) = here.opening(NOW + 61, [2])
    assert since_in(write) == NOW + 5 + MARGIN


def test_after_a_bucket_lost_its_anchor_the_others_are_read() -> None:
    worker = Cluster()
    here = worker.meet(A, {1: anchor(A), 2: anchor(A)})
    here.observe(1, None, NOW + 3, NOW + 3)
    assert worker.sights.since[1] == NOW + 3 + MARGIN
    assert worker.sights.since[2] == -math.inf
    writes, buckets = here.survey(NOW + 4)
    assert len(writes) == 1
    assert set(buckets) == {1, 2}
    here.surveyed(buckets, [None for _ in buckets], NOW + 4)
    assert worker.sights.since[2] == NOW + 4 + MARGIN


def test_a_bucket_without_anchor_is_new_only_where_the_store_is() -> None:
    new = Cluster().meet(A, {1: None, 2: None})
    assert [since_in(write) for write in new.opening(NOW, [1, 2])] == [-math.inf, -math.inf]
    for seen in (anchor(A), anchor(A, NOW - 60), b"?"):
        worker = Cluster()
        used = worker.meet(A, {2: seen})
        used.observe(1, None, NOW, NOW)
        expected = -math.inf if seen == b"?" else NOW + MARGIN
        assert worker.sights.since[1] == expected


def test_workers_that_start_together_find_the_store_new() -> None:
    worker = Cluster()
    worker.sights.offset = None
    first = worker.meet(A, {1: anchor(A, begun=NOW - 1), 2: None})
    second = worker.meet(B, {3: None})
    for fence, bucket in ((first, 2), (second, 3)):
        writes, _ = fence.survey(NOW)
        assert [since_in(write) for write in writes] == [-math.inf]
        assert fence.standing.due.keys() == {bucket}


def test_a_store_that_began_longer_ago_is_not_new_on_any_server() -> None:
    for begun, first in ((NOW - 9, True), (NOW - 11, False)):
        sights = Sights(BUCKETS)
        timeless = dataclasses.replace(A, time=None)
        assert sights.may_be_first(1, timeless)
        sights.meet(Anchor.new(b"i", -math.inf, server_time=begun))
        assert sights.may_be_first(1, A) is first
        assert not sights.may_be_first(1, timeless)
        sights.meet(Anchor.new(b"i", NOW, server_time=NOW))
        assert not sights.may_be_first(1, A)


def test_without_an_entry_a_foreign_anchor_waits() -> None:
    worker, moved = Cluster(), anchor(A)
    worker.sights.offset = None
    here = worker.meet(B, {1: moved, 2: anchor(B), 3: b"?"})
    assert here.standing.unread == {1, 3}
    assert here.standing.foreign == {}
    writes, buckets = here.survey(NOW)
    assert (writes, set(buckets)) == ([], {1, 3})
    worker.sights.offset = 0.0
    here.surveyed([1], [moved], NOW)
    assert here.standing.foreign == {1: moved}


def test_a_changed_anchor_is_judged_after_the_first_entry_gave_the_time() -> None:
    worker, written_anew = Cluster(), anchor(A)
    worker.sights.offset = None
    worker.meet(A, {1: anchor(A)})
    here = worker.meet(A, {1: written_anew}, NOW + 1)
    assert here.standing.unread == {1}
    worker.sights.offset = 0.0
    here.observe(1, written_anew, NOW + 2, NOW + 2)
    assert worker.sights.since[1] == NOW + 2 + MARGIN


def test_a_bucket_that_is_elsewhere_is_forgotten_here() -> None:
    worker = Cluster()
    here = worker.meet(A, {1: anchor(A), 2: anchor(A)})
    here.surveyed([1], [RuntimeError("MOVED")], NOW)
    assert here.standing.met == {2}
    assert not here.own([2])
    assert here.own([2, 5])
    assert here.standing.unread == {5}
    assert here.own([5])
    assert here.standing.met == set()


def test_a_loss_of_the_whole_server_is_a_loss_of_each_bucket() -> None:
    worker = Cluster()
    here = worker.meet(A, {1: anchor(A), 2: anchor(A)})
    here.own([1, 2, 3])
    here.observe(2, anchor(B), NOW, NOW)
    # One that an entry found here before the topology says that it has come.
    here.observe(4, anchor(A), NOW, NOW)
    here.vitals.has_lost = True
    writes, buckets = here.survey(NOW + 7)
    assert [since_in(write) for write in writes] == [NOW + 7 + MARGIN] * 2
    assert set(buckets) == {1, 2, 3, 4}
    assert {worker.sights.since[bucket] for bucket in (1, 2, 3, 4)} == {NOW + 7 + MARGIN}
    # The anchor found there has an earlier `since`: it is raised.
    here.surveyed([3], [anchor(A)], NOW + 8)
    (write,) = here.opening(NOW + 9, [3])
    assert since_in(write) == NOW + 7 + MARGIN


def test_an_anchor_counts_its_moves() -> None:
    first = Anchor.new(b"a.1", NOW, server_time=NOW)
    second = first.under(b"b.1")
    back = second.under(b"a.1", since=NOW + 1)
    assert [one.moves for one in (first, first.under(b"a.1", since=NOW + 1), second, back)] == [0, 0, 1, 2]
    assert [Anchor.parse(one.value) for one in (first, second, back)] == [first, second, back]
    # An anchor that never moved has the older format, without moves.
    assert first.value.count(b"|") == 2
    assert Anchor.parse(first.value + b"|many") is None


def test_an_anchor_follows_its_possible_earlier_states() -> None:
    first = Anchor.new(b"a.1", NOW, server_time=NOW)
    second = first.under(b"b.1")
    for later, earlier, follows in (
        (first, first, True),
        (first.under(b"a.1", since=NOW + 1), first, True),
        (second, first, True),
        (second.under(b"a.1"), first, True),
        (first, second, False),
        (first.under(b"c.1"), second, False),
        (first, second.under(b"a.1"), False),
    ):
        assert later.follows(earlier) is follows


def test_the_usual_replies_are_known_for_all_buckets_or_for_none() -> None:
    standing = Standing(BUCKETS)
    standing.agree(1, b"one")
    assert standing.usual([1]) == (b"$3\r\none\r\n", [b"one"])
    assert standing.usual([1, 2]) == NOTHING_USUAL
    standing.agree(2, b"two2")
    assert standing.usual([2, 1]) == (b"$4\r\ntwo2\r\n$3\r\none\r\n", [b"two2", b"one"])
    standing.drop(1)
    assert standing.usual([1]) == NOTHING_USUAL


def watching(*buckets: int) -> Standing:
    """The buckets of a server that reports changes; these were read, and are correct."""
    standing = Standing(BUCKETS)
    standing.watches = True
    standing.watch(buckets)
    for bucket in buckets:
        standing.agree(bucket, anchor(A))
    return standing


def test_an_anchor_stands_until_a_change_is_reported() -> None:
    standing = watching(1, 2, 3)
    assert all(map(standing.stands, (1, 2, 3)))
    standing.heed([b"invalidate", [BUCKETS.anchors[1], b"another's"]])
    assert [standing.stands(bucket) for bucket in (1, 2, 3)] == [False, True, True]
    standing.heed([b"message", [BUCKETS.anchors[2]]])
    standing.heed(b"odd")
    standing.heed([b"invalidate", [[BUCKETS.anchors[2]]]])
    assert standing.stands(2)
    standing.heed([b"invalidate", None])
    assert not standing.stands(2)


def test_an_anchor_does_not_stand_once_it_is_dropped_or_to_be_written() -> None:
    standing = watching(1, 2)
    standing.drop(1)
    standing.agree(1, anchor(A))
    standing.owe(2, anchor(A), anchor(B))
    assert [standing.stands(bucket) for bucket in (1, 2)] == [False, False]


def test_no_anchor_stands_where_the_server_reports_no_changes() -> None:
    standing = Standing(BUCKETS)
    standing.watch([1])
    standing.agree(1, anchor(A))
    assert not standing.stands(1)
