import dataclasses
import math
from typing import Any

import pytest

from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.fence import Fence, NewServer
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.vitals import ServerChanged, ServerInfo, identity_of

NOW = 1_800_000_000.0
# As much as two workers' clocks may differ.
MARGIN = 5.0
OLD_SERVER = ServerInfo(run_id="a" * 40, replication_id="r" * 40, role="master", uptime=1000)
NEW_SERVER = dataclasses.replace(OLD_SERVER, run_id="b" * 40, replication_id="s" * 40, uptime=0)
PROMOTED = dataclasses.replace(OLD_SERVER, replication_id="t" * 40, former_replication_id="r" * 40)
FLUSHED = dataclasses.replace(OLD_SERVER, rewriting_commands=frozenset({"flushdb"}))
ANCHOR = b"dpop::anchor"


class Worker(Fence):
    """A fence in front of one server, in a process whose event loop's clock shows what the entries' does."""

    def __init__(self, new_server: NewServer = "wait") -> None:
        super().__init__(Sights(Buckets(b"dpop", spread=False)), new_server)

    @property
    def change(self) -> float:
        return self.sights.since[0]


class Memory:
    """The part of a server that the fence writes and reads."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}

    def connect(self, fence: Worker, info: ServerInfo | None, *, lived: float = 0, at: float = NOW) -> Worker:
        fence.connected(info, {0: self.keys.get(ANCHOR)}, lived=lived, asked=(at, at))
        return fence

    def worker(
        self, info: ServerInfo | None = OLD_SERVER, new_server: NewServer = "wait", lived: float = 0
    ) -> Worker:
        return self.connect(Worker(new_server), info, lived=lived)

    def batch(self, fence: Worker, now: float) -> None:
        """Run the fence's steps around one batch of writes."""
        fence.sights.offset = 0.0
        self.obey(*fence.opening(now, [0]))
        if fence.active:
            fence.observe(0, self.keys.get(ANCHOR), now, now)

    def survey(self, fence: Worker, at: float) -> None:
        """Run the fence's steps between batches, or before any entry."""
        writes, buckets = fence.survey(at)
        self.obey(*writes)
        fence.surveyed(buckets, [self.keys.get(ANCHOR) for _ in buckets], at)

    def obey(self, *commands: bytes) -> None:
        """`SET name value`, with `NX`, `XX` or `IFEQ`, and the script."""
        for command in commands:
            verb, name, *words = command.split(b"\r\n")[2::2]
            assert verb == (b"EVAL" if name.startswith(b"if ") else b"SET")
            if name.startswith(b"if "):
                found, value = words[2:4]
                if self.keys.get(words[1]) == found:
                    self.keys[words[1]] = value
                continue
            known = self.keys.get(name)
            match words:
                case value, b"NX":
                    met = known is None
                case value, b"IFEQ", found:
                    met = known == found
                case _:
                    (value, condition), met = words, known is not None
                    assert condition == b"XX"
            if met:
                self.keys[name] = value

    @property
    def since(self) -> float:
        anchor = Anchor.parse(self.keys.get(ANCHOR))
        assert anchor is not None
        return anchor.since


def like(server: ServerInfo, **changes: Any) -> ServerInfo:
    return dataclasses.replace(server, **changes)


@pytest.mark.parametrize(
    ("info", "new_server", "lived", "change"),
    [
        pytest.param(OLD_SERVER, "wait", 0, NOW + MARGIN, id="never flushed: its uptime may be wrong"),
        pytest.param(NEW_SERVER, "wait", 0, NOW + MARGIN, id="just started: what came before may be lost"),
        pytest.param(NEW_SERVER, "accept", 0, -math.inf, id="just started, and declared new: never"),
        pytest.param(NEW_SERVER, "accept", 1, NOW + MARGIN, id="started after the store was made: never new"),
        pytest.param(
            like(OLD_SERVER, former_replication_id="q" * 40), "wait", 0, NOW + MARGIN, id="a replica"
        ),
        pytest.param(
            like(OLD_SERVER, rewriting_commands=frozenset({"flushall"})),
            "wait",
            0,
            NOW + MARGIN,
            id="flushed",
        ),
        pytest.param(PROMOTED, "accept", 0, NOW + MARGIN, id="a replica: not new by declaration"),
        pytest.param(FLUSHED, "accept", 0, NOW + MARGIN, id="flushed: not new by declaration"),
    ],
)
def test_the_loss_of_an_unknown_server_has_a_moment(
    info: ServerInfo, new_server: NewServer, lived: float, change: float
) -> None:
    memory = Memory()
    fence = memory.worker(info, new_server, lived)
    memory.batch(fence, NOW)
    assert fence.change == change
    memory.batch(fence, NOW + 1)
    assert fence.change == memory.since == change
    assert fence.opening(NOW + 2, [0]) == []


def test_a_new_store_does_not_treat_a_flush_as_its_beginning() -> None:
    memory = Memory()
    fence = memory.worker(dataclasses.replace(OLD_SERVER, time=NOW), "accept")
    memory.batch(fence, NOW)
    assert fence.change == -math.inf
    memory.keys.clear()
    memory.batch(fence, NOW + 3)
    assert fence.change == NOW + 3 + MARGIN


def test_a_loss_that_could_not_be_recorded_is_recorded_on_the_next_server() -> None:
    memory = Memory()
    fence = memory.worker(NEW_SERVER, "accept", lived=100)
    fence.opening(NOW, [0])
    fence.observe(0, None, NOW, NOW)
    other = dataclasses.replace(OLD_SERVER, run_id="c" * 40, replication_id="u" * 40)
    memory.connect(fence, other, lived=100, at=NOW + 50)
    for at in (NOW + 50, NOW + 51):
        memory.batch(fence, at)
    assert fence.change == memory.since == NOW + MARGIN


def test_the_second_process_learns_the_moment_from_the_first() -> None:
    memory = Memory()
    first, second = memory.worker(NEW_SERVER), memory.worker(NEW_SERVER)
    memory.batch(first, NOW)
    memory.survey(first, NOW)
    memory.batch(second, NOW + 7)
    assert first.change == second.change == NOW + MARGIN


def test_every_worker_sees_a_flush_at_its_next_batch() -> None:
    memory = Memory()
    one, other = memory.worker(), memory.worker()
    memory.batch(one, NOW)
    memory.batch(one, NOW + 1)
    memory.batch(other, NOW + 1)
    memory.keys.clear()
    memory.batch(one, NOW + 10)
    assert one.change == NOW + 10 + MARGIN
    memory.batch(one, NOW + 11)
    assert one.change == NOW + 10 + MARGIN
    memory.batch(other, NOW + 30)
    assert other.change == NOW + 10 + MARGIN
    memory.batch(one, NOW + 40)
    assert one.change == NOW + 10 + MARGIN


def test_of_two_workers_that_miss_the_anchor_the_first_writes_it() -> None:
    memory = Memory()
    one, other = memory.worker(), memory.worker()
    for fence in (one, other):
        memory.batch(fence, NOW)
    memory.batch(one, NOW + 1)
    memory.keys.clear()
    for number, fence in enumerate((one, other)):
        fence.sights.offset = 0.0
        fence.observe(0, None, NOW + 10 + number, NOW + 10 + number)
    memory.obey(*one.opening(NOW + 12, [0]))
    value = memory.keys[ANCHOR]
    memory.obey(*other.opening(NOW + 12, [0]))
    assert memory.keys[ANCHOR] == value
    assert memory.since == NOW + 10 + MARGIN


def test_two_flushes_are_two_changes() -> None:
    memory = Memory()
    fence = memory.worker()
    memory.batch(fence, NOW)
    for moment in (10, 20):
        memory.batch(fence, NOW + moment - 5)
        memory.keys.clear()
        memory.batch(fence, NOW + moment)
        assert fence.change == NOW + moment + MARGIN


def test_while_an_anchor_can_not_be_written_the_moment_stays_at_the_present() -> None:
    flushed = dataclasses.replace(OLD_SERVER, rewriting_commands=frozenset({"flushall"}))
    fence = Memory().worker(flushed)
    for step in range(3):
        fence.opening(NOW + step, [0])
        fence.observe(0, None, NOW + step, NOW + step)
        assert fence.change == NOW + step + MARGIN


ANOTHER = like(OLD_SERVER, run_id="c" * 40, replication_id="t" * 40)


@pytest.mark.parametrize(
    ("is_empty", "info", "at", "change"),
    [
        pytest.param(False, like(OLD_SERVER, uptime=1010), 9, 0, id="the same server: nothing changed"),
        pytest.param(True, like(NEW_SERVER, uptime=5), 60, 56, id="a restart: at the start of the server"),
        pytest.param(False, NEW_SERVER, 3, 3, id="a restart with an older snapshot"),
        pytest.param(False, ANOTHER, 3, 3, id="another one that ran all along: it took over just now"),
        # A host boots 100 s behind, then its clock is set: the server seems to have started long ago.
        pytest.param(True, like(NEW_SERVER, uptime=102), 3, 3, id="an uptime that a clock made too long"),
        pytest.param(False, PROMOTED, 3, 3, id="the old master promoted again"),
        # A wall clock that was set back: the process is the known one.
        pytest.param(True, like(OLD_SERVER, uptime=30), 60, 60, id="it calls itself young, and was flushed"),
    ],
)
def test_the_loss_of_a_known_server_has_a_moment(
    is_empty: bool, info: ServerInfo, at: float, change: float
) -> None:
    memory = Memory()
    fence = memory.worker()
    memory.batch(fence, NOW)
    memory.batch(fence, NOW + 1)
    if is_empty:
        memory.keys.clear()
    memory.connect(fence, info, lived=2, at=NOW + at)
    memory.batch(fence, NOW + at)
    assert fence.change == NOW + change + MARGIN
    memory.batch(fence, NOW + at + 1)
    assert fence.change == memory.since == NOW + change + MARGIN
    assert not fence.has_to_write


def test_after_a_restart_with_an_older_snapshot_the_anchor_is_foreign() -> None:
    memory = Memory()
    first = memory.worker(new_server="accept")
    memory.batch(first, NOW)
    newcomer = memory.worker(dataclasses.replace(NEW_SERVER, uptime=3), "accept")
    memory.batch(newcomer, NOW + 10)
    assert newcomer.change == NOW - 2 + MARGIN
    memory.batch(newcomer, NOW + 11)
    assert memory.since == NOW - 2 + MARGIN


def test_a_first_replica_that_attaches_is_no_change() -> None:
    memory = Memory()
    fence, idle = memory.worker(), memory.worker()
    memory.batch(fence, NOW)
    memory.batch(fence, NOW + 100)
    memory.batch(idle, NOW + 100)
    renamed = dataclasses.replace(OLD_SERVER, replication_id="t" * 40, uptime=1100)
    memory.connect(fence, renamed, at=NOW + 100)
    memory.batch(fence, NOW + 100)
    memory.batch(fence, NOW + 101)
    memory.connect(idle, renamed, at=NOW + 105)
    memory.batch(idle, NOW + 105)
    newcomer = memory.worker(renamed)
    memory.batch(newcomer, NOW + 106)
    for one in (fence, idle, newcomer):
        assert one.change == NOW + MARGIN
        assert not one.has_to_write
    anchor = Anchor.parse(memory.keys[ANCHOR])
    assert anchor is not None
    assert anchor.identity == identity_of(renamed)


@pytest.mark.parametrize("with_script", [True, False])
def test_who_has_not_heard_of_a_new_id_yet_does_not_write_the_former_one(with_script: bool) -> None:
    """Otherwise a third one, which compares nothing, may write the new one again: that looks like a loss."""
    memory = Memory()
    late, early, third = workers = [memory.worker() for _ in "abc"]
    for worker in workers * 2:
        worker.with_script = with_script
        memory.batch(worker, NOW)
    renamed = like(OLD_SERVER, replication_id="t" * 40)
    memory.connect(third, renamed, at=NOW + 10)
    memory.batch(memory.connect(early, renamed, at=NOW + 10), NOW + 10)
    for at in (NOW + 10.1, NOW + 10.2):
        memory.batch(late, at)
    for worker in (third, late, early):
        memory.batch(worker, NOW + 10.3)
    assert {worker.change for worker in workers} == {memory.since} == {NOW + MARGIN}
    anchor = Anchor.parse(memory.keys[ANCHOR])
    assert anchor is not None
    assert (anchor.identity, anchor.moves) == (identity_of(renamed), 1)


def test_a_worker_whose_clock_is_behind_does_not_date_a_loss_too_early() -> None:
    memory = Memory()
    ours, theirs = memory.worker(), memory.worker()
    memory.batch(ours, NOW)
    memory.batch(ours, NOW + 1)
    memory.batch(theirs, NOW - 3)
    memory.batch(ours, NOW + 10)
    memory.keys.clear()
    memory.batch(theirs, NOW + 7)
    memory.batch(theirs, NOW + 8)
    memory.batch(ours, NOW + 11)
    assert ours.change == NOW + 7 + MARGIN


def test_a_worker_that_declared_the_server_new_hides_no_flush_from_others() -> None:
    memory = Memory()
    ours = memory.worker()
    memory.batch(ours, NOW)
    memory.batch(ours, NOW + 0.5)
    memory.keys.clear()
    theirs = memory.worker(new_server="accept")
    memory.batch(theirs, NOW + 1)
    assert theirs.change == -math.inf
    # What others wrote since the last look is lost too.
    memory.batch(ours, NOW + 20)
    assert ours.change == NOW + 20 + MARGIN
    assert ours.has_to_write
    memory.batch(ours, NOW + 21)
    assert ours.change == NOW + 20 + MARGIN
    assert not ours.has_to_write
    memory.batch(theirs, NOW + 22)
    assert theirs.change == NOW + 20 + MARGIN
    assert not theirs.has_to_write
    memory.batch(ours, NOW + 60)
    assert ours.change == NOW + 20 + MARGIN


def test_an_opened_connection_knows_that_the_server_was_used_before() -> None:
    memory = Memory()
    busy = memory.worker(new_server="accept")
    memory.batch(busy, NOW)
    idle = memory.worker(new_server="accept")
    memory.survey(idle, at=NOW + 3)
    memory.keys.clear()
    memory.batch(idle, NOW + 10)
    assert idle.change == NOW + 10 + MARGIN


def test_an_opened_connection_learns_of_earlier_losses() -> None:
    memory = Memory()
    first = memory.worker()
    memory.batch(first, NOW)
    memory.batch(first, NOW + 1)
    memory.keys.clear()
    memory.batch(first, NOW + 5)
    memory.batch(first, NOW + 6)
    idle = memory.worker()
    memory.survey(idle, at=NOW + 7)
    memory.batch(idle, NOW + 8)
    assert idle.change == NOW + 5 + MARGIN


def test_the_first_opened_connection_treats_the_server_as_new() -> None:
    memory = Memory()
    fence = memory.worker(new_server="accept")
    memory.survey(fence, at=NOW)
    assert memory.since == -math.inf
    assert not fence.has_to_write
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
def test_an_anchor_that_needs_the_time_is_not_written_without_an_entry(
    info: ServerInfo, new_server: NewServer, lived: float
) -> None:
    memory = Memory()
    fence = memory.worker(info, new_server, lived=lived)
    memory.survey(fence, at=NOW)
    assert memory.keys == {}
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN
    memory.survey(fence, at=NOW)
    assert memory.since == NOW + MARGIN


def test_a_restart_after_the_opening_is_a_restart() -> None:
    memory = Memory()
    fence = memory.worker(new_server="accept")
    memory.survey(fence, at=NOW)
    memory.keys.clear()
    # So soon after the store was created that the uptime says nothing.
    memory.connect(fence, dataclasses.replace(NEW_SERVER, uptime=0), lived=1, at=NOW + 1)
    memory.survey(fence, at=NOW + 1)
    assert memory.keys == {}
    memory.batch(fence, NOW + 1)
    assert fence.change == NOW + 1 + MARGIN


@pytest.mark.parametrize(
    "value", [b"", b"soon", b"i|nan|00000000x", b"i|1.0|x", b"i|1.0|", b"\xff", b"1800000000.0 abcd"]
)
def test_an_invalid_anchor_is_a_loss_now(value: bytes) -> None:
    flushed = dataclasses.replace(OLD_SERVER, rewriting_commands=frozenset({"flushall"}))
    memory = Memory()
    memory.keys[ANCHOR] = value
    fence = memory.worker(flushed)
    memory.batch(fence, NOW)
    assert fence.change == NOW + MARGIN
    memory.batch(fence, NOW + 1)
    assert fence.change == memory.since == NOW + MARGIN


def test_a_loss_is_dated_by_a_clock_as_far_ahead_as_clocks_may_be() -> None:
    memory = Memory()
    one, behind = memory.worker(), memory.worker()
    for fence in (one, behind):
        memory.batch(fence, NOW)
        memory.batch(fence, NOW + 0.5)
    memory.keys.clear()
    for step in (0, 1):
        memory.batch(one, NOW + 10 + MARGIN + step)
    memory.batch(behind, NOW + 10.5)
    assert behind.too_far_ahead is None
    assert behind.change == memory.since == NOW + 10 + 2 * MARGIN


@pytest.mark.parametrize("is_corrected", [True, False], ids=["others have set it right", "nobody has"])
def test_a_worker_that_dated_a_loss_years_ahead_judges_again_when_its_clock_is_set(
    is_corrected: bool,
) -> None:
    memory = Memory()
    wrong, right = memory.worker(), memory.worker()
    for fence in (wrong, right):
        memory.batch(fence, NOW)
        memory.batch(fence, NOW + 0.5)
    memory.keys.clear()
    for step in (1, 2):
        memory.batch(wrong, NOW + 3e8 + step)
    assert wrong.change == NOW + 3e8 + 1 + MARGIN
    if is_corrected:
        for step in (3, 4):
            memory.batch(right, NOW + step)
    memory.batch(wrong, NOW + 5)
    assert wrong.change == NOW + 5 + MARGIN
    assert wrong.too_far_ahead is not None
    for step in (6, 7):
        memory.batch(wrong, NOW + step)
        memory.batch(right, NOW + step)
        assert wrong.too_far_ahead is None
    assert wrong.change == right.change == memory.since == NOW + 5 + MARGIN


def test_the_moment_does_not_go_back_where_an_anchor_or_a_later_loss_is_dated_earlier() -> None:
    memory = Memory()
    fence = memory.worker()
    for step in (0, 1):
        memory.batch(fence, NOW + step)
    memory.keys.clear()
    for step in (100, 101):
        memory.batch(fence, NOW + step)
    assert fence.change == NOW + 100 + MARGIN
    told = Anchor.parse(memory.keys[ANCHOR])
    assert told is not None
    memory.keys[ANCHOR] = told.under(told.identity, since=NOW + 50).value
    memory.batch(fence, NOW + 102)
    assert fence.change == NOW + 100 + MARGIN
    memory.keys.clear()
    # The clock was set back by as much as clocks may differ.
    for step in (98, 99):
        memory.batch(fence, NOW + step)
    assert fence.change == memory.since == NOW + 100 + MARGIN


def test_an_anchor_that_is_dated_years_ahead_does_not_refuse_requests_for_ever() -> None:
    memory = Memory()
    wrong, right, other = memory.worker(), memory.worker(), memory.worker()
    years = 3e8
    for one in (wrong, right, other):
        memory.batch(one, NOW)
        memory.batch(one, NOW + 0.5)
    memory.keys.clear()
    memory.batch(wrong, NOW + years)
    memory.batch(wrong, NOW + years + 1)
    assert memory.since == NOW + years + MARGIN
    memory.batch(right, NOW + 2)
    assert right.change == NOW + 2 + MARGIN
    assert right.too_far_ahead == pytest.approx(years + 3)
    memory.batch(right, NOW + 3)
    assert right.too_far_ahead is None
    memory.batch(other, NOW + 4)
    assert other.change == NOW + 2 + MARGIN
    # The worker with the wrong clock doesn't write that again.
    for step in range(3):
        memory.batch(wrong, NOW + years + 5 + step)
        memory.batch(right, NOW + 5 + step)
    assert right.change == memory.since == NOW + 2 + MARGIN


@pytest.mark.parametrize(
    "info",
    [
        None,
        ServerInfo(),
        dataclasses.replace(OLD_SERVER, run_id=""),
        dataclasses.replace(OLD_SERVER, uptime=None),
    ],
)
def test_a_server_that_can_not_be_watched_is_not_watched(info: ServerInfo | None) -> None:
    fence = Memory().worker(info)
    assert not fence.active
    assert fence.opening(NOW, [0]) == []
    assert fence.survey(0) == ([], [])
    assert fence.vitals.look(0) == b""
    fence.vitals.looked(OLD_SERVER, 0)
    fence.heed(at=0, now=NOW)
    fence.observe(0, None, NOW, 0)
    fence.settle({0: b"i|1.0|00000000"}, frozenset({b"i"}), 0)
    assert not fence.own([0])
    assert fence.change == -math.inf


AHEAD = 100.0


@pytest.mark.parametrize("noticed", ["before a batch", "in its replies", "between two batches"])
def test_a_loss_that_leaves_the_anchors_is_dated_when_it_is_noticed(noticed: str) -> None:
    memory = Memory()
    fence = memory.worker()
    for step in (0, 1):
        memory.batch(fence, NOW + step)
    if noticed == "before a batch":
        memory.connect(fence, like(OLD_SERVER, evicted_keys=1), at=NOW + 9)
        assert (fence.sights.changed_at, fence.has_to_tell) == (NOW + 9, True)
        memory.obey(*fence.opening(NOW + 10, [0]))
    elif noticed == "in its replies":
        fence.vitals.looked(like(OLD_SERVER, evicted_keys=1), NOW + 9)
        fence.heed(at=NOW + 9, now=NOW + 10)
        assert (fence.sights.changed_at, fence.has_to_tell) == (NOW + 9, True)
    else:
        fence.vitals.looked(like(OLD_SERVER, evicted_keys=1), NOW + 9)
        fence.sights.offset = AHEAD
        memory.obey(*fence.survey(NOW + 10 - AHEAD)[0])
    assert fence.change == NOW + 10 + MARGIN
    assert not fence.vitals.has_lost
    memory.batch(fence, NOW + 11)
    assert fence.change == memory.since == NOW + 10 + MARGIN


def test_what_is_no_longer_foreign_says_nothing_of_other_buckets() -> None:
    fence = Fence(Sights(Buckets(b"dpop", spread=True)), "accept")
    fence.connected(OLD_SERVER, {}, lived=0, asked=(NOW, NOW))
    moved = Anchor.new(b"i", NOW - 100, server_time=None).value
    fence.standing.foreign = {2: moved}
    fence.settle({1: moved, 2: moved}, frozenset({b"i"}), NOW)
    assert fence.standing.agreed == {2: moved}


def test_a_watched_server_may_turn_out_unwatchable() -> None:
    fence = Memory().worker(OLD_SERVER)
    assert fence.active
    fence.off()
    assert not fence.active
    assert fence.opening(NOW, [0]) == []


def test_a_loss_that_others_noticed_first_keeps_its_date() -> None:
    memory = Memory()
    fence, other = memory.worker(), memory.worker()
    memory.batch(fence, NOW)
    memory.batch(fence, NOW + 5)
    memory.batch(other, NOW)
    memory.keys.clear()
    memory.batch(other, NOW + 6)
    memory.survey(other, NOW + 6)
    memory.batch(fence, NOW + 7)
    assert fence.change == NOW + 6 + MARGIN


def raising() -> tuple[Memory, Worker, Worker]:
    """A flushed server, a worker that treated it as new, and a worker that is about to record the loss."""
    memory = Memory()
    ours, theirs = memory.worker(new_server="accept"), memory.worker(new_server="accept")
    memory.batch(ours, NOW)
    memory.keys.clear()
    memory.batch(theirs, NOW + 1)
    memory.batch(ours, NOW + 2)
    assert ours.has_to_write
    return memory, ours, theirs


def test_who_comes_last_from_a_master_that_was_replaced_tells_the_others_when_it_left() -> None:
    """A master that restarts while its replica is promoted goes on answering whoever is connected to it."""
    former, promoted, replica = Memory(), Memory(), like(PROMOTED, run_id="c" * 40)
    early, last = (former.worker(lived=100) for _ in "ab")
    for worker in (early, last):
        former.batch(worker, NOW)
    promoted.keys = dict(former.keys)
    promoted.batch(promoted.connect(early, replica, at=NOW + 1), NOW + 1)
    promoted.batch(early, NOW + 1.1)
    assert promoted.since == NOW + 1 + MARGIN
    # Entries from before this moment are only there.
    former.batch(last, NOW + 10)
    promoted.batch(promoted.connect(last, replica, at=NOW + 10.1), NOW + 10.1)
    assert last.change == NOW + 10.1 + MARGIN
    promoted.batch(last, NOW + 10.2)
    new = promoted.worker(replica)
    for at in (NOW + 20, NOW + 21):
        promoted.batch(new, at)
        promoted.batch(early, at)
    assert new.change == early.change == promoted.since == NOW + 10.1 + MARGIN


def test_an_anchor_that_is_due_survives_a_broken_connection() -> None:
    memory, ours, theirs = raising()
    memory.connect(ours, dataclasses.replace(OLD_SERVER, uptime=1002), lived=100, at=NOW + 3)
    memory.batch(ours, NOW + 3)
    memory.batch(ours, NOW + 4)
    memory.batch(theirs, NOW + 5)
    assert ours.change == theirs.change == NOW + 2 + MARGIN


def test_a_flush_between_two_connections_to_one_server_is_dated_now() -> None:
    memory = Memory()
    away, idle = memory.worker(), memory.worker()
    memory.batch(away, NOW)
    memory.batch(away, NOW + 1)
    memory.batch(idle, NOW + 1)
    memory.keys.clear()
    memory.connect(away, OLD_SERVER, lived=2, at=NOW + 13)
    memory.batch(away, NOW + 13)
    memory.batch(idle, NOW + 14)
    newcomer = memory.worker()
    memory.batch(newcomer, NOW + 15)
    assert away.change == idle.change == newcomer.change == NOW + 13 + MARGIN


def test_a_loss_that_was_noticed_survives_a_broken_connection() -> None:
    memory = Memory()
    fence = memory.worker(new_server="accept", lived=2000)
    fence.observe(0, None, NOW + 12, NOW + 12)
    memory.connect(fence, OLD_SERVER, lived=2002, at=NOW + 13)
    memory.batch(fence, NOW + 13)
    memory.survey(fence, NOW + 13)
    newcomer = memory.worker(new_server="accept", lived=1)
    memory.batch(newcomer, NOW + 14)
    assert newcomer.change == fence.change > -math.inf


def test_a_beginning_that_can_not_be_written_does_not_count() -> None:
    memory = Memory()
    fence = memory.worker(new_server="accept")
    fence.observe(0, None, NOW, NOW)
    assert fence.change == -math.inf
    # Its write was refused, or is lost again.
    assert fence.opening(NOW + 1, [0])
    fence.observe(0, None, NOW + 1, NOW + 1)
    assert fence.change == NOW + 1 + MARGIN


def test_an_anchor_whose_write_was_refused_is_written_again() -> None:
    memory, ours, theirs = raising()
    # The server answered the write with an error, and the read with what it had.
    ours.survey(NOW + 3)
    ours.surveyed([0], [memory.keys[ANCHOR]], NOW + 3)
    assert ours.has_to_write
    memory.survey(ours, NOW + 4)
    assert not ours.has_to_write
    memory.batch(theirs, NOW + 5)
    assert ours.change == theirs.change == NOW + 2 + MARGIN


def test_another_replication_id_hides_no_flush() -> None:
    memory = Memory()
    ours = memory.worker(new_server="accept")
    memory.batch(ours, NOW)
    memory.batch(ours, NOW + 100)
    memory.keys.clear()
    renamed = dataclasses.replace(
        OLD_SERVER,
        replication_id="t" * 40,
        uptime=1200,
        rewriting_commands=frozenset({"flushall"}),
    )
    memory.batch(memory.worker(renamed, "accept"), NOW + 150)
    memory.connect(ours, renamed, lived=1200, at=NOW + 160)
    memory.batch(ours, NOW + 160)
    assert ours.change == NOW + 160 + MARGIN


def test_an_anchor_is_replaced_only_where_it_is_what_was_read() -> None:
    memory, ours, _ = raising()
    (write,) = ours.opening(NOW + 3, [0])
    assert b"EVAL" in write
    another = Anchor.new(identity_of(OLD_SERVER), NOW + 50, server_time=None).value
    memory.keys[ANCHOR] = another
    memory.obey(write)
    assert memory.keys[ANCHOR] == another
    ours.with_script = False
    (write,) = ours.opening(NOW + 3, [0])
    assert b"EVAL" not in write
    memory.obey(write)
    assert memory.since == NOW + 2 + MARGIN


def test_an_anchor_that_was_lost_is_not_put_back_where_nothing_can_be_compared() -> None:
    """The write of another id is under way when the server is flushed."""
    memory = Memory()
    late, other = (memory.worker() for _ in "ab")
    for at in (NOW, NOW + 1):
        memory.batch(late, at)
        memory.batch(other, at)
    renamed = like(OLD_SERVER, replication_id="t" * 40)
    for worker in (late, other):
        memory.connect(worker, renamed, at=NOW + 10)
    late.with_script = False
    assert late.has_to_write
    memory.keys.clear()
    memory.batch(late, NOW + 11)
    assert memory.keys == {}
    memory.batch(other, NOW + 11)
    assert late.change == other.change == NOW + 11 + MARGIN


def test_a_new_valkey_compares_without_a_script() -> None:
    valkey = dataclasses.replace(OLD_SERVER, software="valkey", version="8.1.0")
    memory = Memory()
    ours = memory.worker(valkey, "accept")
    memory.batch(ours, NOW)
    memory.keys.clear()
    memory.batch(memory.worker(valkey, "accept"), NOW + 1)
    memory.batch(ours, NOW + 2)
    (write,) = ours.opening(NOW + 3, [0])
    assert b"IFEQ" in write
    memory.obey(write)
    assert memory.since == NOW + 2 + MARGIN


# A promoted server whose backlog is freed gets another replication id, and doesn't report the former one.
RENAMED = like(OLD_SERVER, replication_id="u" * 40)


@pytest.mark.parametrize(
    ("told", "confirmed", "since"),
    [
        pytest.param(RENAMED, RENAMED, None, id="it is the server's own: nothing was lost"),
        pytest.param(
            like(PROMOTED, replication_id="u" * 40),
            PROMOTED,
            NOW + 60.6 + MARGIN,
            id="the server has it no more",
        ),
    ],
)
def test_an_id_that_another_worker_learned_later_is_asked_for_before_it_is_judged(
    told: ServerInfo, confirmed: ServerInfo, since: float | None
) -> None:
    memory = Memory()
    late, early = (memory.worker(PROMOTED) for _ in "ab")
    for fence in (late, early) * 2:
        memory.batch(fence, NOW + 1)
    known = late.change
    memory.batch(memory.connect(early, told, at=NOW + 60), NOW + 60)
    with pytest.raises(ServerChanged, match="^another worker knows the server's data by another id$"):
        memory.batch(late, NOW + 60.5)
    memory.batch(memory.connect(late, confirmed, at=NOW + 60.6), NOW + 60.6)
    assert late.change == (known if since is None else since)


def test_an_id_is_asked_for_once() -> None:
    memory = Memory()
    worker = memory.worker(PROMOTED)
    memory.batch(worker, NOW + 1)
    for number, former in enumerate("pq"):
        memory.keys[ANCHOR] = Anchor.new(
            identity_of(like(PROMOTED, replication_id=former * 40)), -math.inf, server_time=None
        ).value
        with pytest.raises(ServerChanged):
            memory.batch(worker, NOW + 10 + number)
        # A bucket that isn't this server's (yet) isn't read as the connection opens.
        worker.connected(PROMOTED, {}, lived=0, asked=(NOW + 10.5 + number, NOW + 10.6 + number))
        memory.batch(worker, NOW + 10.7 + number)
        assert worker.change == NOW + 10.7 + number + MARGIN
