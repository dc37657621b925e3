"""The worker processes as their parent sees them."""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.soak.journal import Journal
from tests.soak.oracle import Proof, Verdict
from tests.soak.worker import LONGEST_LINE

__all__ = ["Measured", "Unanswered", "Worker", "WorkerDied", "has_grown"]

# The growth that a process may show after warming up: allocators and caches settle.
SPARE_BYTES = 24 * 1024 * 1024
SPARE_DESCRIPTORS = 16
_STARTS_WITHIN = 30.0
_ENDS_WITHIN = 10.0


class WorkerDied(Exception):
    """A worker ended unexpectedly."""


class Unanswered(Exception):
    """A worker was ended before it answered."""


class Measured(NamedTuple):
    """Resident memory in bytes and open file descriptors, `at` a moment of the monotonic clock."""

    at: float
    rss: int
    fds: int


class Worker:
    """One worker process; `async with` starts and ends it. Its log goes to `log`."""

    def __init__(self, number: int, config: Mapping[str, Any], log: Path, journal: Journal) -> None:
        self.number = number
        self.offset = float(config["offset"])
        self._config = config
        self._log = log
        self._journal = journal
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._up = asyncio.Event()
        self.measured: list[Measured] = []

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(kill=False)

    async def restart(self, *, kill: bool) -> None:
        """Another process takes its place: after the last answer, or at once with `kill`."""
        await self._end(kill=kill)
        self.measured.clear()
        await self._start()

    async def ask(self, proof: Proof) -> Verdict:
        """Present `proof` to this worker; raises `Unanswered` where it is restarted meanwhile."""
        await self._up.wait()
        told = await self._exchange(api=proof.api, token=proof.token, proof=proof.text)
        return Verdict(told["status"], told.get("error", ""), told.get("description", ""), told["nonce"])

    async def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.soak.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LONGEST_LINE,
                # An interrupt is for the parent, who ends its workers in good order.
                start_new_session=True,
            )
        ready = self._waiting[0] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())
        self._send(self._config)
        try:
            await asyncio.wait_for(ready, _STARTS_WITHIN)
        except BaseException:
            await self._end(kill=True)
            raise
        self._up.set()

    async def _end(self, *, kill: bool) -> None:
        self._up.clear()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 0 if kill else _ENDS_WITHIN)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def measure(self) -> Measured:
        """Ask for memory and descriptors; times when its event loop was blocked go to the journal."""
        await self._up.wait()
        told = await self._exchange()
        for end, seconds in told["stalls"]:
            self._journal.stalled(end, seconds)
            self._journal.note(f"worker {self.number}: event loop held up for {seconds:.2f} s", at=end)
        measured = Measured(time.monotonic(), told["rss"], told["fds"])
        self.measured.append(measured)
        return measured

    def freeze(self) -> None:
        """Pause the process."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        os.kill(self._process.pid, signal.SIGCONT)

    async def _exchange(self, **values: str) -> Mapping[str, Any]:
        number = next(self._ids)
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._send({"id": number, **values})
        return await answer

    def _send(self, values: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.is_closing() or self._process.returncode is not None:
            raise WorkerDied(f"worker {self.number} ended, see {self._log}")
        self._process.stdin.write(json.dumps(values).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            answer = self._waiting.pop(told["id"])
            # A client that was cancelled doesn't wait any more.
            if not answer.done():
                answer.set_result(told)
        for answer in self._waiting.values():
            if not answer.done():
                what = WorkerDied if self._up.is_set() else Unanswered
                answer.set_exception(what(f"worker {self.number} ended, see {self._log}"))
        self._waiting.clear()


def has_grown(measured: list[Measured]) -> bool:
    """Whether memory or descriptors at the end exceed what they were after the first third by too much."""
    if not measured:
        return False
    begin, end = measured[0].at, measured[-1].at
    warm = next(one for one in measured if one.at >= begin + (end - begin) / 3)
    last = measured[-1]
    return last.rss > warm.rss * 1.25 + SPARE_BYTES or last.fds > warm.fds + SPARE_DESCRIPTORS
