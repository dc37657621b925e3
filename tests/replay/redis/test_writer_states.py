"""The table in the writer's docstring: the events between the states, and what a request gets in each.

The event loop's clock stands still except where a test moves it: no pause and no deadline ends otherwise.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.connection import Connection
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.topology import Surroundings
from dpop_middleware.replay.redis.writer import State, Writer
from dpop_middleware.replay.redis.writes import PendingWrite
from tests.support.loop_clock import LoopClock
from tests.support.replay import entry, standalone
from tests.support.scripted import ScriptedServer, info

BUCKETS = Buckets(b"dpop", spread=False)
PATIENCE = 2.0
PAUSE = 0.1


class Stage:
    """A writer and its server. Each attempt to connect ends as the test says, when the test says."""

    def __init__(self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(monkeypatch)
        self.until = self.clock.until
        self.server = server
        self.attempts: list[asyncio.Future[bool]] = []
        self.writer = self._new_writer(None)

    def _new_writer(self, around: Surroundings | None) -> Writer:
        return Writer("here", self._connect, Settings(timeout=PATIENCE), Sights(BUCKETS), around)

    async def join_cluster(self) -> None:
        """Take a writer in a cluster whose slots all stay where they are."""

        async def present(identities: frozenset[bytes], **_: object) -> frozenset[bytes]:
            return identities

        def again(write: PendingWrite) -> None:
            self.writer.submit(write)

        around = Surroundings(
            resubmit=again,
            redirect=lambda write, error: None,
            look_again=lambda error: None,
            tag=lambda: b"{0}",
            buckets=lambda: [0],
            look_around=lambda: None,
            present=present,
        )
        await self.writer.aclose()
        self.writer = self._new_writer(around)

    async def _connect(self, timeout: float) -> Connection:
        attempt: asyncio.Future[bool] = self.loop.create_future()
        self.attempts.append(attempt)
        if not await attempt:
            raise ConnectionRefusedError
        return await standalone(self.server.url).connect(timeout)

    def ask(self) -> PendingWrite:
        write = PendingWrite(entry(), BUCKETS, Settings(timeout=PATIENCE), self.loop)
        self.writer.submit(write)
        return write

    async def attempt(self, *, succeeds: bool) -> None:
        await self.until(lambda: bool(self.attempts))
        self.attempts.pop().set_result(succeeds)

    async def happens(self, event: str) -> None:
        match event:
            case "a request comes":
                self.ask()
            case "it opens":
                self.server.script = lambda words: None
                await self.attempt(succeeds=True)
                await self.until(lambda: self.writer.state == "judging" and self.writer.is_quiet)
            case "it fails":
                await self.attempt(succeeds=False)
                await self.until(lambda: bool(self.attempts) or self.writer.state == "pausing")
            case "a batch fails":
                self.server.script = lambda words: b"?\r\n" if words[0] == b"SET" else None
                self.ask()
                await self.until(lambda: bool(self.attempts))
            case "it opens, and the batch fails again":
                await self.attempt(succeeds=True)
                await self.until(lambda: self.writer.state == "pausing")
            case "the connection ends":
                self.server.cut()
                await self.until(lambda: self.writer.state != "judging")
            case "the pause is over":
                self.clock.now += PAUSE
                await self.until(lambda: bool(self.attempts))
            case "it is closed":
                await self.writer.aclose()
            case _:
                raise NotImplementedError(event)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async with ScriptedServer() as server:
        with monkeypatch.context() as patch:
            made = Stage(server, patch)
            yield made
            await made.writer.aclose()


async def what_a_request_gets(stage: Stage) -> str:
    write = stage.ask()
    if write.answer.done():
        return "is refused" if isinstance(write.answer.result(), Unavailable) else "?"
    if stage.writer.state == "judging":
        return "is judged" if await write.answer is True else "?"
    await asyncio.sleep(0)
    stage.clock.now += PATIENCE * 0.99
    await asyncio.sleep(0)
    if write.answer.done():
        return "?"
    stage.clock.now += PATIENCE * 0.02
    await stage.until(write.answer.done)
    return "waits, within its own time" if isinstance(write.answer.result(), Unavailable) else "?"


REACHED = {
    "new": [],
    "opening": ["a request comes"],
    "opening, after a failure": ["a request comes", "it fails"],
    "judging": ["a request comes", "it opens"],
    "opening, after a batch failed": ["a request comes", "it opens", "a batch fails"],
    "pausing": ["a request comes", "it fails", "it fails"],
    "opening, after a pause": ["a request comes", "it fails", "it fails", "the pause is over"],
    "closed": ["it is closed"],
}
TABLE: list[tuple[str, str, State]] = [
    ("new", "a request comes", "opening"),
    ("opening", "a request comes", "opening"),
    ("opening", "it opens", "judging"),
    ("opening", "it fails", "opening"),
    ("opening, after a failure", "it opens", "judging"),
    ("opening, after a failure", "it fails", "pausing"),
    ("judging", "a request comes", "judging"),
    ("judging", "a batch fails", "opening"),
    ("judging", "the connection ends", "opening"),
    ("opening, after a batch failed", "it opens", "judging"),
    ("opening, after a batch failed", "it opens, and the batch fails again", "pausing"),
    ("opening, after a batch failed", "it fails", "pausing"),
    ("pausing", "a request comes", "pausing"),
    ("pausing", "the pause is over", "opening"),
    ("opening, after a pause", "it opens", "judging"),
    ("opening, after a pause", "it fails", "pausing"),
    *((state, "it is closed", "closed") for state in REACHED),
]
A_REQUEST: dict[State, str] = {
    "opening": "waits, within its own time",
    "judging": "is judged",
    "pausing": "is refused",
    "closed": "is refused",
}


@pytest.mark.parametrize(("state", "event", "then"), TABLE)
async def test_each_event_leads_from_one_state_to_the_next(
    stage: Stage, state: str, event: str, then: State
) -> None:
    for earlier in REACHED[state]:
        await stage.happens(earlier)
    if state != "new":
        assert stage.writer.state == state.partition(",")[0]
    await stage.happens(event)
    assert stage.writer.state == then
    assert await what_a_request_gets(stage) == A_REQUEST[then]


async def test_pauses_get_longer_up_to_four_tenths_of_a_second(stage: Stage) -> None:
    for event in REACHED["pausing"]:
        await stage.happens(event)
    for pause in (0.1, 0.2, 0.4, 0.4):
        stage.clock.now += pause * 0.9
        await asyncio.sleep(0)
        assert stage.writer.state == "pausing"
        stage.clock.now += pause * 0.11
        await stage.until(lambda: stage.writer.state == "opening")
        await stage.happens("it fails")
        assert stage.writer.state == "pausing"


async def test_an_answered_batch_ends_the_row_of_failures(stage: Stage) -> None:
    for event in ("a request comes", "it opens"):
        await stage.happens(event)
    for _ in range(3):
        await stage.happens("a batch fails")
        await stage.happens("it opens")
        assert await what_a_request_gets(stage) == "is judged"


async def test_an_attempt_for_which_no_request_waits_leads_to_a_pause_at_once(stage: Stage) -> None:
    stage.writer.open()
    await stage.attempt(succeeds=False)
    # The survey that follows tries once more.
    await stage.attempt(succeeds=False)
    await stage.until(lambda: stage.writer.state == "pausing")
    assert await what_a_request_gets(stage) == "is refused"


async def test_a_survey_that_fails_while_a_request_waits_leads_to_no_pause(stage: Stage) -> None:
    for event in REACHED["judging"]:
        await stage.happens(event)
    # The server must be asked for its vital signs again.
    stage.clock.now += 1.5
    stage.server.hold(b"INFO")
    stage.server.script = lambda words: b"?\r\n" if words[0] == b"INFO" else None
    before = len(stage.server.commands)
    stage.writer.survey()
    await stage.until(lambda: len(stage.server.commands) > before)
    write = stage.ask()
    assert not write.answer.done()
    stage.server.release()
    await stage.until(lambda: bool(stage.attempts))
    assert stage.writer.state == "opening"
    stage.server.script = lambda words: None
    await stage.attempt(succeeds=True)
    assert await write.answer is True


async def test_a_survey_that_finds_other_data_leads_to_no_pause(stage: Stage) -> None:
    """The server works, and its present data are asked for at once on a new connection."""
    for event in REACHED["judging"]:
        await stage.happens(event)
    stage.clock.now += 1.5
    renamed = info().replace(b"b" * 40, b"c" * 40)
    stage.server.script = lambda words: renamed if words[0] == b"INFO" else None
    stage.writer.survey()
    await stage.until(lambda: bool(stage.attempts))
    assert stage.writer.state == "opening"
    write = stage.ask()
    await stage.attempt(succeeds=True)
    assert await write.answer is True


async def test_writes_behind_a_batch_that_was_sent_late_are_refused_at_their_own_deadlines(
    stage: Stage,
) -> None:
    """The batch may have more time than they: half of what one request has, from when it is sent."""
    for event in REACHED["judging"]:
        await stage.happens(event)
    stage.writer.server.is_near = True
    assert await stage.ask().answer is True
    stage.server.hold(b"SET")
    together = [stage.ask() for _ in range(40)]
    await stage.until(lambda: together[0].tries == 1)
    stage.clock.now += PATIENCE * 0.5
    await stage.until(lambda: bool(stage.attempts))
    stage.clock.now += PATIENCE * 0.4
    await stage.attempt(succeeds=True)
    await stage.until(lambda: together[0].tries == 2)
    later = stage.ask()
    stage.clock.now += PATIENCE * 0.1
    await stage.until(lambda: all(write.answer.done() for write in together))
    assert not stage.writer.is_quiet
    assert not later.answer.done()


async def test_a_write_that_came_while_the_connection_opened_is_refused_at_its_own_deadline(
    stage: Stage,
) -> None:
    await stage.happens("a request comes")
    await stage.until(lambda: bool(stage.attempts))
    write = stage.ask()
    stage.clock.now += PATIENCE * 0.9
    stage.server.hold(b"SET")
    await stage.attempt(succeeds=True)
    await stage.until(lambda: stage.writer.state == "judging" and bool(stage.server.commands))
    await stage.until(lambda: any(words[0] == b"SET" for words in stage.server.commands))
    stage.clock.now += PATIENCE * 0.1
    await stage.until(write.answer.done)
    assert isinstance(write.answer.result(), Unavailable)
    assert not stage.writer.is_quiet


async def test_a_write_that_is_tried_again_behind_later_ones_is_refused_at_its_own_deadline(
    stage: Stage,
) -> None:
    """So it is in a cluster, where the slot may have another owner by then."""
    await stage.join_cluster()
    for event in REACHED["judging"]:
        await stage.happens(event)
    stage.server.hold(b"SET")
    first = stage.ask()
    await stage.until(lambda: first.tries == 1)
    stage.clock.now += PATIENCE * 0.4
    second = stage.ask()
    stage.clock.now += PATIENCE * 0.1
    await stage.until(lambda: bool(stage.attempts))
    stage.clock.now += PATIENCE * 0.5
    await stage.until(first.answer.done)
    assert not second.answer.done()
