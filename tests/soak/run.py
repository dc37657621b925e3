"""One run: servers, workers, clients and faults, for some minutes."""

import asyncio
import base64
import random
import secrets
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.testing import TestIssuer
from tests.soak.clients import Clients
from tests.soak.cluster import Cluster
from tests.soak.faults import Fault
from tests.soak.journal import Happening, Journal
from tests.soak.oracle import Kind, Oracle
from tests.soak.report import Report, unexplained
from tests.soak.sentinel import Sentinel
from tests.soak.standalone import Standalone
from tests.soak.workers import Unanswered, Worker

__all__ = ["TOPOLOGIES", "Plan", "Soak", "UnknownFault"]

TOPOLOGIES: dict[str, Callable[[random.Random, str], Standalone | Sentinel | Cluster]] = {
    "standalone": Standalone,
    "sentinel": Sentinel,
    "cluster": Cluster,
}
# Seconds between two progress lines, and between two measurements of the workers.
PROGRESS = 15.0
MEASURED_EVERY = 1.0
# Seconds of load without faults after the last fault.
QUIET = 3.0
_WARM_WITHIN = 60.0
# One worker keeps proofs for longer than the others do.
LIFETIME, LONGER_LIFETIME = 60.0, 90.0
# Clocks differ by no more than they may, with room for the time of a request.
_APART = WORKER_CLOCK_MARGIN - 0.1
# Seconds until the next fault, after a loss and after anything else, with weights. Long ones show recovery,
# and let entries gather for the next loss.
_AFTER_LOSS = ((1.0, 4.0, 2), (10.0, 16.0, 4), (42.0, 48.0, 1))
_AFTER_OTHERS = ((0.5, 4.0, 5), (4.0, 10.0, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run: `faults` names those to choose from, all if it is empty, `without` those to omit.

    `rate` is in requests a second.
    The first fault comes when `warm_up` proofs were accepted. With `once` each fault comes once, however long
    that takes.
    """

    topology: str
    implementation: str
    seed: int
    minutes: float
    directory: Path
    rate: float = 200.0
    faults: Collection[str] = ()
    without: Collection[str] = ()
    warm_up: int = 300
    once: bool = False


class UnknownFault(Exception):
    """There is no fault of that name here."""


class Soak:
    """One topology under faults; `run` returns whether all was well."""

    def __init__(self, plan: Plan, say: Callable[[str], None] = print) -> None:
        self._plan = plan
        self._say = say
        self._chance = random.Random(f"{plan.seed} {plan.topology}")
        self.oracle = Oracle()
        self.journal = Journal(plan.directory / f"{plan.topology}-{plan.implementation}-{plan.seed}.log")
        self._topology = TOPOLOGIES[plan.topology](self._chance, plan.implementation)
        self._report = Report(
            f"{plan.topology} on {plan.implementation}, seed {plan.seed}, {plan.minutes:g} minutes",
            self.journal,
            self.oracle,
            self._topology.left_out,
        )
        self._workers: Sequence[Worker] = ()
        self._failed = False

    def faults(self) -> dict[str, Fault]:
        """The possible faults, by name, once the servers run; raises `UnknownFault`."""
        known: dict[str, Fault] = {
            **self._topology.faults(),
            "worker frozen": self._worker_frozen,
            "worker restarted": self._worker_restarted,
            "flush and every worker restarted": self._flush_and_restart,
        }
        chosen, without = self._plan.faults, self._plan.without
        for name in (*chosen, *without):
            if name not in known:
                names = ", ".join(known)
                raise UnknownFault(f"no fault {name!r} for {self._plan.topology}: there are {names}")
        return {
            name: fault
            for name, fault in known.items()
            if (not chosen or name in chosen) and name not in without
        }

    async def run(self, interrupted: asyncio.Event | None = None) -> bool:
        """Do it, show progress, and print the table; the log has every fault with its times.

        It ends early, with its table, when `interrupted` is set.
        """
        interrupted = interrupted or asyncio.Event()
        with self.journal:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._topology)
                faults = self.faults()
                issuer = TestIssuer()
                self._workers = [
                    await stack.enter_async_context(worker) for worker in self._new_workers(issuer)
                ]
                clients = Clients(
                    self._workers,
                    self.oracle,
                    issuer,
                    rate=self._plan.rate,
                    lifetime=self._plan.minutes * 60 + 600,
                    chance=random.Random(self._plan.seed),
                )
                async with clients:
                    await self._go_on(faults, clients, interrupted)
                end = time.monotonic()
                for worker in () if self._failed else self._workers:
                    await worker.measure()
                for line in self._topology.state() if self._failed else ():
                    self.journal.note(line)
            for line in (*self._report.explain(), *unexplained(clients.probes, self.journal)):
                self.journal.note(line)
            table = self._report.table(self._workers, clients.probes, end)
            self.journal.note(table)
        self._say(table)
        return not self._failed and self._report.is_good(self._workers)

    async def _go_on(self, faults: dict[str, Fault], clients: Clients, interrupted: asyncio.Event) -> None:
        works = (self._harm(faults, clients), self._watch(), self._measure(), interrupted.wait())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    self._ended_early(outcome)

    def _ended_early(self, error: Exception) -> None:
        """The results so far are still shown."""
        self._failed = True
        self.journal.note("".join(traceback.format_exception(error)))
        self._say(f"the run ended early: {type(error).__name__}: {error}")

    async def _harm(self, faults: dict[str, Fault], clients: Clients) -> None:
        """One fault after the other: all of them before any comes again."""
        begin = time.monotonic()
        end = begin + self._plan.minutes * 60
        async with asyncio.timeout(_WARM_WITHIN):
            while self.oracle.kinds[Kind.ACCEPTED] < self._plan.warm_up:
                await asyncio.sleep(0.05)
        deck = self._shuffled(faults)
        while deck if self._plan.once else time.monotonic() < end - QUIET:
            deck = deck or self._shuffled(faults)
            name = deck.pop()
            with self.journal.happening(name) as happening:
                await faults[name](happening)
            await self._aftermath(happening, clients)
            clients.check()
            await asyncio.sleep(min(self._gap(happening), max(0.0, end - time.monotonic() - QUIET)))
        await asyncio.sleep(max(0.0, end - time.monotonic()))

    def _shuffled(self, faults: Iterable[str]) -> list[str]:
        deck = list(faults)
        self._chance.shuffle(deck)
        return deck

    async def _aftermath(self, happening: Happening, clients: Clients) -> None:
        """Thieves replay at once, and once more when every worker has checked its servers."""
        before = time.monotonic() - happening.began + 5.0
        await clients.steal(before)
        await asyncio.sleep(1.5)
        await clients.steal(before + 1.5)
        await self._topology.settled()
        if happening.loses and self._topology.has_pretenders:
            # A master that was replaced may have continued for some time.
            happening.lost_until = time.monotonic()

    def _gap(self, happening: Happening) -> float:
        spans = _AFTER_LOSS if happening.loses else _AFTER_OTHERS
        (shortest, longest, _) = self._chance.choices(spans, [weight for *_, weight in spans])[0]
        return self._chance.uniform(shortest, longest)

    async def _worker_frozen(self, happening: Happening) -> None:
        """SIGSTOP and SIGCONT of a worker: it then reads old replies."""
        worker = self._chance.choice(self._workers)
        happening.detail = f"worker {worker.number}"
        worker.freeze()
        try:
            await asyncio.sleep(self._chance.uniform(0.3, 3))
        finally:
            worker.thaw()

    async def _worker_restarted(self, happening: Happening) -> None:
        """A worker ends and another begins, which knows nothing."""
        worker = self._chance.choice(self._workers)
        kill = self._chance.random() < 0.5
        happening.detail = f"worker {worker.number}, {'killed' if kill else 'in good order'}"
        await worker.restart(kill=kill)

    async def _flush_and_restart(self, happening: Happening) -> None:
        """As a deployment script might do it: all workers are replaced."""
        await self._topology.flush_all(happening)
        await asyncio.gather(*(worker.restart(kill=False) for worker in self._workers))

    async def _watch(self) -> None:
        begin = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS)
            self._say(self._report.progress(time.monotonic() - begin, self._plan.minutes))

    async def _measure(self) -> None:
        """Measure the workers, and record when this event loop, which runs the proxies, is blocked."""
        before = time.monotonic()
        measured = before
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            if now - before > 0.1:
                self.journal.stalled(now, now - before)
                self.journal.note(f"our event loop held up for {now - before:.2f} s")
            if now - measured > MEASURED_EVERY:
                measured = now
                measuring = (worker.measure() for worker in self._workers)
                for outcome in await asyncio.gather(*measuring, return_exceptions=True):
                    if isinstance(outcome, BaseException) and not isinstance(outcome, Unanswered):
                        raise outcome
            before = time.monotonic()

    def _new_workers(self, issuer: TestIssuer) -> list[Worker]:
        """Three, two of them with the largest allowed difference of clocks, and one with a wider policy."""
        offsets = [-_APART / 2, _APART / 2, self._chance.uniform(-_APART / 2, _APART / 2)]
        self._chance.shuffle(offsets)
        wider = self._chance.randrange(len(offsets))
        shared = {
            **self._topology.config,
            "issuer": issuer.issuer,
            "jwks": issuer.jwks(),
            "secret": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        workers = []
        for number, offset in enumerate(offsets):
            lifetime = LONGER_LIFETIME if number == wider else LIFETIME
            self.journal.note(f"worker {number}: clock {offset:+.2f} s, proof_lifetime {lifetime:g} s")
            config = {**shared, "offset": offset, "proof_lifetime": lifetime}
            log = self.journal.path.with_suffix(f".worker-{number}.log")
            workers.append(Worker(number, config, log, self.journal))
        return workers
