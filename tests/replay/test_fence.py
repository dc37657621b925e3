import dataclasses
import math

import pytest

from dpop_middleware.replay.fence import Fence, NewServer
from dpop_middleware.replay.info import ServerInfo

NOW = 1_800_000_000.0
OLD_SERVER = ServerInfo(run_id="a" * 40, replication_id="r" * 40, role="master", uptime=1000)
NEW_SERVER = dataclasses.replace(OLD_SERVER, run_id="b" * 40, replication_id="s" * 40, uptime=0)


class Memory:
    """The part of a server that the fence writes and reads."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}

    def batch(self, fence: Fence, now: float) -> None:
        """What happens around one batch of writes."""
        opening = fence.opening(now)
        if opening:
            _, _, _, _, name, _, value, *_ = opening.split(b"\r\n")
            self.keys.setdefault(name, value)
        closing = fence.closing
        if closing:
            fence.observe(self.keys.get(closing.split(b"\r\n")[4]), now)


def connected(
    info: ServerInfo | None, new_server: NewServer = "wait", tag: bytes = b"", lived: float = 0
) -> Fence:
    fence = Fence(b"dpop", new_server)
    fence.connected(info, tag, lived)
    return fence


def test_a_server_that_was_never_flushed_has_kept_everything_since_its_start() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    assert fence.change == NOW - 999
    assert fence.opening(NOW) == b""


def test_a_server_that_just_started_may_have_lost_what_came_before() -> None:
    memory, fence = Memory(), connected(NEW_SERVER)
    memory.batch(fence, NOW)
    assert fence.change == NOW


def test_a_new_server_may_be_declared_new() -> None:
    memory, fence = Memory(), connected(NEW_SERVER, "accept")
    memory.batch(fence, NOW)
    assert fence.change == -math.inf


def test_a_server_that_started_after_the_store_was_made_is_never_new() -> None:
    memory, fence = Memory(), connected(NEW_SERVER, "accept", lived=1)
    memory.batch(fence, NOW)
    assert fence.change == NOW


@pytest.mark.parametrize(
    "evidence", [{"was_replica": True}, {"rewriting_commands": frozenset({"flushall"})}], ids=str
)
def test_traces_of_a_loss_put_it_at_the_present(evidence: dict[str, object]) -> None:
    memory, fence = Memory(), connected(dataclasses.replace(OLD_SERVER, **evidence))  # type: ignore[arg-type]
    memory.batch(fence, NOW)
    assert fence.change == NOW


def test_a_promoted_replica_is_not_new_by_declaration() -> None:
    memory, fence = Memory(), connected(dataclasses.replace(OLD_SERVER, was_replica=True), "accept")
    memory.batch(fence, NOW)
    assert fence.change == NOW


def test_the_second_process_learns_the_moment_from_the_first() -> None:
    memory, first, second = Memory(), connected(NEW_SERVER), connected(NEW_SERVER)
    memory.batch(first, NOW)
    memory.batch(second, NOW + 7)
    assert first.change == second.change == NOW


def test_a_flush_is_seen_at_the_next_batch_by_everybody() -> None:
    memory, one, other = Memory(), connected(OLD_SERVER), connected(OLD_SERVER)
    memory.batch(one, NOW)
    memory.batch(other, NOW)
    memory.keys.clear()
    memory.batch(one, NOW + 10)
    assert one.change == NOW + 10
    memory.batch(one, NOW + 11)
    assert one.change == NOW + 10
    memory.batch(other, NOW + 30)
    assert other.change == NOW + 10
    memory.batch(one, NOW + 40)
    assert one.change == NOW + 10


def test_two_flushes_are_two_changes() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    for moment in (10, 20):
        memory.batch(fence, NOW + moment - 5)
        memory.keys.clear()
        memory.batch(fence, NOW + moment)
        assert fence.change == NOW + moment


def test_an_epoch_that_can_not_be_written_keeps_the_moment_at_the_present() -> None:
    fence = connected(OLD_SERVER)
    for step in range(3):
        assert fence.opening(NOW + step)
        fence.observe(None, NOW + step)
        assert fence.change == NOW + step


def test_a_new_connection_to_the_same_server_changes_nothing() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    change = fence.change
    fence.connected(dataclasses.replace(OLD_SERVER, uptime=1010), b"", 0)
    memory.batch(fence, NOW + 10)
    assert fence.change == change


def test_a_restart_is_placed_at_the_start_of_the_server() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    memory.keys.clear()
    fence.connected(dataclasses.replace(NEW_SERVER, uptime=5), b"", 0)
    memory.batch(fence, NOW + 60)
    assert fence.change == NOW + 60 - 4


def test_a_restart_with_an_older_snapshot_is_a_restart() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(NEW_SERVER, b"", 0)
    memory.batch(fence, NOW + 1)
    assert fence.change == NOW + 1


def test_another_server_that_ran_all_along_took_over_just_now() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(dataclasses.replace(OLD_SERVER, run_id="c" * 40, replication_id="t" * 40), b"", 0)
    memory.batch(fence, NOW + 3)
    assert fence.change == NOW + 3


def test_the_old_master_promoted_again_is_a_change() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(dataclasses.replace(OLD_SERVER, replication_id="t" * 40, was_replica=True), b"", 0)
    memory.batch(fence, NOW + 3)
    assert fence.change == NOW + 3


def test_a_first_replica_that_attaches_is_no_change() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    memory.batch(fence, NOW + 100)
    fence.connected(dataclasses.replace(OLD_SERVER, replication_id="t" * 40, uptime=1100), b"", 0)
    memory.batch(fence, NOW + 100)
    assert fence.change < NOW


def test_a_slot_that_moved_away_is_no_change() -> None:
    memory, fence = Memory(), connected(OLD_SERVER, tag=b"{1}")
    memory.batch(fence, NOW)
    fence.connected(dataclasses.replace(OLD_SERVER, uptime=1100), b"{2}", 0)
    memory.batch(fence, NOW + 100)
    assert fence.change < NOW


def test_a_worker_whose_clock_is_behind_does_not_date_the_change_before_what_we_saw() -> None:
    memory, ours, theirs = Memory(), connected(OLD_SERVER), connected(OLD_SERVER)
    memory.batch(ours, NOW)
    memory.batch(theirs, NOW - 3)
    memory.batch(ours, NOW + 10)
    memory.keys.clear()
    memory.batch(theirs, NOW + 7)
    memory.batch(theirs, NOW + 8)
    memory.batch(ours, NOW + 11)
    assert ours.change == NOW + 10


def test_a_worker_that_declared_the_server_new_does_not_hide_a_flush_from_us() -> None:
    memory, ours = Memory(), connected(OLD_SERVER)
    memory.batch(ours, NOW)
    memory.keys.clear()
    memory.batch(connected(OLD_SERVER, "accept"), NOW + 1)
    memory.batch(ours, NOW + 2)
    assert ours.change == NOW


@pytest.mark.parametrize("value", [b"", b"soon", b"nan x", b"inf x", b"1e300 x", b"\xff"])
def test_an_epoch_that_makes_no_sense_is_a_change_now(value: bytes) -> None:
    fence = connected(OLD_SERVER)
    fence.opening(NOW)
    fence.observe(value, NOW)
    assert fence.change == NOW
    fence.observe(value, NOW + 1)
    assert fence.change == NOW


@pytest.mark.parametrize(
    "info",
    [
        None,
        ServerInfo(),
        dataclasses.replace(OLD_SERVER, run_id=""),
        dataclasses.replace(OLD_SERVER, uptime=None),
    ],
)
def test_a_server_that_can_not_be_watched_is_not(info: ServerInfo | None) -> None:
    fence = connected(info)
    assert not fence.active
    assert fence.opening(NOW) == fence.closing == b""
    fence.observe(None, NOW)
    assert fence.change == -math.inf


def test_a_watched_server_may_turn_out_unwatchable() -> None:
    fence = connected(OLD_SERVER)
    assert fence.active
    fence.off()
    assert not fence.active
    assert fence.opening(NOW) == fence.closing == b""


def test_batches_answered_out_of_order_move_nothing_back() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW + 5)
    memory.batch(fence, NOW)
    memory.keys.clear()
    memory.batch(connected(OLD_SERVER, "accept"), NOW + 6)
    memory.batch(fence, NOW + 7)
    assert fence.change == NOW + 5
