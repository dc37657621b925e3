import dataclasses
import math

import pytest

from dpop_middleware.replay.fence import Fence, NewServer
from dpop_middleware.replay.info import ServerInfo

NOW = 1_800_000_000.0
# As much as two workers' clocks may differ.
MARGIN = 5.0
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
            self.keep(opening)
        closing = fence.closing
        if closing:
            fence.observe(self.keys.get(closing.split(b"\r\n")[4]), now)

    def greeting(self, fence: Fence, at: float) -> None:
        """What happens when a link opens before any entry; `at` is the event loop's time."""
        greeting = fence.greeting()
        if greeting:
            self.keep(greeting)
        epoch = self.keys.get(fence.closing.split(b"\r\n")[4])
        if epoch is not None:
            fence.greeted(epoch, at)

    def keep(self, command: bytes) -> None:
        """`SET name value`, with `NX` or without."""
        _, _, _, _, name, _, value, *rest = command.split(b"\r\n")
        if b"NX" not in rest or name not in self.keys:
            self.keys[name] = value


def connected(
    info: ServerInfo | None, new_server: NewServer = "wait", tag: bytes = b"", lived: float = 0
) -> Fence:
    fence = Fence(b"dpop", new_server)
    fence.connected(info, tag, lived)
    return fence


def test_a_server_that_was_never_flushed_has_kept_everything_since_its_start() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    assert fence.change == NOW - 999 + MARGIN
    assert fence.opening(NOW) == b""


def test_a_server_that_just_started_may_have_lost_what_came_before() -> None:
    memory, fence = Memory(), connected(NEW_SERVER)
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN


def test_a_new_server_may_be_declared_new() -> None:
    memory, fence = Memory(), connected(NEW_SERVER, "accept")
    memory.batch(fence, NOW)
    assert fence.change == -math.inf


def test_a_server_that_started_after_the_store_was_made_is_never_new() -> None:
    memory, fence = Memory(), connected(NEW_SERVER, "accept", lived=1)
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN


@pytest.mark.parametrize(
    "evidence", [{"was_replica": True}, {"rewriting_commands": frozenset({"flushall"})}], ids=str
)
def test_traces_of_a_loss_put_it_at_the_present(evidence: dict[str, object]) -> None:
    memory, fence = Memory(), connected(dataclasses.replace(OLD_SERVER, **evidence))  # type: ignore[arg-type]
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN


def test_a_promoted_replica_is_not_new_by_declaration() -> None:
    memory, fence = Memory(), connected(dataclasses.replace(OLD_SERVER, was_replica=True), "accept")
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN


def test_the_second_process_learns_the_moment_from_the_first() -> None:
    memory, first, second = Memory(), connected(NEW_SERVER), connected(NEW_SERVER)
    memory.batch(first, NOW)
    memory.batch(second, NOW + 7)
    assert first.change == second.change == NOW + MARGIN


def test_a_flush_is_seen_at_the_next_batch_by_everybody() -> None:
    memory, one, other = Memory(), connected(OLD_SERVER), connected(OLD_SERVER)
    memory.batch(one, NOW)
    memory.batch(other, NOW)
    memory.keys.clear()
    memory.batch(one, NOW + 10)
    assert one.change == NOW + 10 + MARGIN
    memory.batch(one, NOW + 11)
    assert one.change == NOW + 10 + MARGIN
    memory.batch(other, NOW + 30)
    assert other.change == NOW + 10 + MARGIN
    memory.batch(one, NOW + 40)
    assert one.change == NOW + 10 + MARGIN


def test_two_flushes_are_two_changes() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    for moment in (10, 20):
        memory.batch(fence, NOW + moment - 5)
        memory.keys.clear()
        memory.batch(fence, NOW + moment)
        assert fence.change == NOW + moment + MARGIN


def test_an_epoch_that_can_not_be_written_keeps_the_moment_at_the_present() -> None:
    fence = connected(OLD_SERVER)
    for step in range(3):
        assert fence.opening(NOW + step)
        fence.observe(None, NOW + step)
        assert fence.change == NOW + step + MARGIN


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
    assert fence.change == NOW + 60 - 4 + MARGIN


def test_a_restart_with_an_older_snapshot_is_a_restart() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(NEW_SERVER, b"", 0)
    memory.batch(fence, NOW + 1)
    assert fence.change == NOW + 1 + MARGIN


def test_another_server_that_ran_all_along_took_over_just_now() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(dataclasses.replace(OLD_SERVER, run_id="c" * 40, replication_id="t" * 40), b"", 0)
    memory.batch(fence, NOW + 3)
    assert fence.change == NOW + 3 + MARGIN


def test_the_old_master_promoted_again_is_a_change() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    fence.connected(dataclasses.replace(OLD_SERVER, replication_id="t" * 40, was_replica=True), b"", 0)
    memory.batch(fence, NOW + 3)
    assert fence.change == NOW + 3 + MARGIN


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
    assert ours.change == NOW + 7 + MARGIN


def test_a_worker_that_declared_the_server_new_does_not_hide_a_flush_from_us() -> None:
    memory, ours = Memory(), connected(OLD_SERVER)
    memory.batch(ours, NOW)
    memory.keys.clear()
    theirs = connected(OLD_SERVER, "accept")
    memory.batch(theirs, NOW + 1)
    assert theirs.change == -math.inf
    # What others wrote since we last looked is gone too.
    memory.batch(ours, NOW + 20)
    assert ours.change == NOW + 20 + MARGIN
    assert ours.is_missing
    memory.batch(ours, NOW + 21)
    assert ours.change == NOW + 20 + MARGIN
    assert not ours.is_missing
    memory.batch(theirs, NOW + 22)
    assert theirs.change == NOW + 20 + MARGIN
    assert not theirs.is_missing
    memory.batch(ours, NOW + 60)
    assert ours.change == NOW + 20 + MARGIN


def test_a_link_that_was_opened_knows_that_the_server_knew_us() -> None:
    memory, busy, idle = Memory(), connected(OLD_SERVER, "accept"), connected(OLD_SERVER, "accept")
    memory.batch(busy, NOW)
    memory.greeting(idle, at=3)
    memory.keys.clear()
    # The event loop's clock says 13, the entries' NOW + 10.
    idle.date(NOW + 10 - 13)
    memory.batch(idle, NOW + 10)
    assert idle.change == NOW + 10 + MARGIN


def test_a_link_that_was_opened_learns_what_was_noticed_before() -> None:
    memory, first, idle = Memory(), connected(OLD_SERVER), connected(OLD_SERVER)
    memory.batch(first, NOW)
    memory.keys.clear()
    memory.batch(first, NOW + 5)
    memory.batch(first, NOW + 6)
    memory.greeting(idle, at=3)
    idle.date(NOW + 7 - 3)
    assert idle.change == NOW + 5 + MARGIN
    memory.batch(idle, NOW + 8)
    assert idle.change == NOW + 5 + MARGIN


def test_a_link_that_was_opened_first_takes_the_server_for_new() -> None:
    memory, fence = Memory(), connected(OLD_SERVER, "accept")
    memory.greeting(fence, at=3)
    fence.date(NOW)
    memory.batch(fence, NOW + 5)
    assert fence.change == -math.inf
    memory.keys.clear()
    memory.batch(fence, NOW + 6)
    assert fence.change == NOW + 6 + MARGIN


@pytest.mark.parametrize(
    ("info", "new_server", "lived"),
    [(NEW_SERVER, "wait", 0), (NEW_SERVER, "accept", 2)],
    ids=["not to be taken for new", "younger than we"],
)
def test_what_needs_an_entrys_clock_is_not_said_in_a_greeting(
    info: ServerInfo, new_server: NewServer, lived: float
) -> None:
    memory, fence = Memory(), connected(info, new_server, lived=lived)
    assert fence.greeting() == b""
    memory.greeting(fence, at=3)
    fence.date(NOW)
    assert memory.keys == {}
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN


def test_a_restart_after_the_greeting_is_a_restart() -> None:
    memory, fence = Memory(), connected(OLD_SERVER, "accept")
    memory.greeting(fence, at=0)
    memory.keys.clear()
    # So soon after the store was made that uptime says nothing.
    fence.connected(dataclasses.replace(NEW_SERVER, uptime=0), b"", 1)
    assert fence.greeting() == b""
    fence.date(NOW)
    memory.batch(fence, NOW + 1)
    assert fence.change == NOW + 1 + MARGIN


def test_a_link_that_has_seen_entries_needs_no_greeting() -> None:
    memory, fence = Memory(), connected(OLD_SERVER)
    memory.batch(fence, NOW)
    assert fence.greeting() == b""
    memory.greeting(fence, at=NOW + 1)
    fence.date(0)
    memory.keys.clear()
    memory.batch(fence, NOW + 2)
    assert fence.change == NOW + 2 + MARGIN
    memory.greeting(fence, at=NOW + 3)
    assert not fence.is_missing
    memory.batch(connected(OLD_SERVER), NOW + 4)
    assert [value.split()[0] for value in memory.keys.values()] == [repr(NOW + 2 + MARGIN).encode()]


@pytest.mark.parametrize("value", [b"", b"soon", b"nan x", b"inf x", b"1e300 x", b"\xff"])
def test_an_epoch_that_makes_no_sense_is_a_change_now(value: bytes) -> None:
    fence = connected(OLD_SERVER)
    fence.opening(NOW)
    fence.observe(value, NOW)
    assert fence.change == NOW + MARGIN
    fence.observe(value, NOW + 1)
    assert fence.change == NOW + MARGIN


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
    assert fence.opening(NOW) == fence.greeting() == fence.closing == b""
    assert fence.look(0) == b""
    fence.looked(OLD_SERVER, at=0, now=NOW)
    fence.observe(None, NOW)
    fence.greeted(b"1.0 x", 0)
    fence.date(0)
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
    memory.batch(connected(OLD_SERVER), NOW + 6)
    memory.batch(fence, NOW + 7)
    assert fence.change == NOW + 7 + MARGIN


def overruling() -> tuple[Memory, Fence, Fence]:
    """A server that was flushed, one that took it for new, and one that is about to overrule that."""
    memory, ours, theirs = Memory(), connected(OLD_SERVER, "accept"), connected(OLD_SERVER, "accept")
    memory.batch(ours, NOW)
    memory.keys.clear()
    memory.batch(theirs, NOW + 1)
    memory.batch(ours, NOW + 2)
    assert ours.is_missing
    return memory, ours, theirs


def test_an_overruling_survives_a_broken_connection() -> None:
    memory, ours, theirs = overruling()
    ours.connected(dataclasses.replace(OLD_SERVER, uptime=1002), b"", 100)
    memory.batch(ours, NOW + 3)
    memory.batch(ours, NOW + 4)
    memory.batch(theirs, NOW + 5)
    assert (ours.change, theirs.change) == (NOW + 2 + MARGIN, NOW + 2 + MARGIN)


def test_a_flush_between_two_connections_to_one_server_is_one_of_now() -> None:
    memory, away, idle = Memory(), connected(OLD_SERVER), connected(OLD_SERVER)
    memory.batch(away, NOW)
    memory.batch(idle, NOW)
    memory.keys.clear()
    away.connected(OLD_SERVER, b"", 2)
    memory.batch(away, NOW + 13)
    memory.batch(idle, NOW + 14)
    newcomer = connected(OLD_SERVER)
    memory.batch(newcomer, NOW + 15)
    assert away.change == idle.change == newcomer.change == NOW + 13 + MARGIN


def test_a_loss_that_was_noticed_survives_a_broken_connection() -> None:
    memory, fence = Memory(), connected(OLD_SERVER, "accept", lived=1)
    fence.observe(None, NOW + 12)
    fence.connected(OLD_SERVER, b"", 2)
    memory.batch(fence, NOW + 13)
    newcomer = connected(OLD_SERVER, "accept", lived=1)
    memory.batch(newcomer, NOW + 14)
    assert newcomer.change == fence.change == NOW + 12 + MARGIN


def test_an_overruling_survives_an_epoch_that_could_not_be_written() -> None:
    memory, fence = Memory(), connected(OLD_SERVER, "accept", lived=1)
    # The server refuses the epoch, as when it is full, and before it is written anew the connection breaks.
    assert fence.opening(NOW + 1)
    fence.observe(None, NOW + 1)
    fence.connected(OLD_SERVER, b"", 2)
    newcomer = connected(OLD_SERVER, "accept", lived=1)
    memory.batch(newcomer, NOW + 2)
    memory.greeting(fence, at=2)
    fence.date(NOW)
    memory.batch(fence, NOW + 3)
    memory.batch(fence, NOW + 4)
    memory.batch(newcomer, NOW + 5)
    assert newcomer.change >= NOW + 1


def test_an_overruling_that_was_refused_is_tried_again() -> None:
    memory, ours, theirs = overruling()
    assert ours.greeting()
    # The server answered the SET with an error, and the GET with what it had.
    (epoch,) = memory.keys.values()
    ours.greeted(epoch, 5)
    assert ours.is_missing
    memory.greeting(ours, 6)
    assert not ours.is_missing
    memory.batch(theirs, NOW + 5)
    assert ours.change == theirs.change == NOW + 2 + MARGIN


def test_another_name_hides_no_flush() -> None:
    memory, ours = Memory(), connected(OLD_SERVER, "accept")
    memory.batch(ours, NOW)
    memory.batch(ours, NOW + 100)
    memory.keys.clear()
    renamed = dataclasses.replace(
        OLD_SERVER,
        replication_id="t" * 40,
        uptime=1200,
        rewriting_commands=frozenset({"flushall"}),
    )
    memory.batch(connected(renamed, "accept"), NOW + 150)
    ours.connected(renamed, b"", 1200)
    memory.batch(ours, NOW + 160)
    assert ours.change == NOW + 160 + MARGIN
