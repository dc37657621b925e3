"""Random clients, honest and confused, and thieves that replay everything they saw."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.soak.oracle import Kind, Oracle, Proof, Verdict
from tests.soak.workers import Unanswered, Worker
from tests.support.adapters import ORIGIN

__all__ = ["Clients", "Probe"]

# A proof is accepted for at most this long after it was made: the lifetime of its nonce.
USEFUL_FOR = 330.0
MOST_KEPT = 40_000
# Proofs of a wave, and how many of its requests are on their way at once.
WAVE = 240
AT_ONCE = 60
NO_VERDICT = Verdict(0)


class Probe(NamedTuple):
    """The answer to a new proof of an honest client with a right clock."""

    worker: int
    sent: float
    answered: float
    kind: Kind
    by_nonce: bool


class Seen(NamedTuple):
    """A proof that a thief saw, and when."""

    at: float
    proof: Proof


class Client:
    """One key with a token for each API, and the nonce that it was given last."""

    def __init__(self, issuer: TestIssuer, number: int, lifetime: float) -> None:
        self._key = DPoPKey.generate()
        self._token = issuer.token(sub=f"user {number}", jkt=self._key.jkt, expires_in=lifetime)
        self.nonce: str | None = None
        self._made = 0

    def proof(self, api: str, *, offset: float = 0.0, nonce: str | None = None) -> Proof:
        """A new proof by a clock that is `offset` seconds ahead."""
        self._made += 1
        jti = f"{self._made}-{time.monotonic_ns()}"
        now = time.time() + offset
        text = self._key.proof(
            "GET", f"{ORIGIN}/notes", access_token=self._token, nonce=nonce, now=now, jti=jti
        )
        return Proof(self._key.jkt, jti, api, self._token, text, offset, nonce is not None)


class Clients:
    """Asks the workers at a steady rate while it is entered; the oracle keeps the verdicts."""

    def __init__(
        self,
        workers: Sequence[Worker],
        oracle: Oracle,
        issuer: TestIssuer,
        *,
        rate: float,
        lifetime: float,
        chance: random.Random,
        count: int = 40,
    ) -> None:
        self._workers = workers
        self._oracle = oracle
        self._chance = chance
        self._pause = count / rate
        self._clients = [Client(issuer, number, lifetime) for number in range(count)]
        self._seen: list[Seen] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.probes: list[Probe] = []

    async def __aenter__(self) -> Self:
        for client in self._clients:
            self._spawn(self._live(client))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what ended a client, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def steal(self, seconds: float) -> None:
        """Replay the proofs of the last `seconds`, and those that may still be fresh, to any worker."""
        newest = self._since(seconds)
        older = self._since(USEFUL_FOR)
        chosen = [
            *self._chance.sample(newest, min(len(newest), WAVE // 2)),
            *self._chance.sample(older, min(len(older), WAVE // 2)),
        ]
        gate = asyncio.Semaphore(AT_ONCE)

        async def send(proof: Proof) -> None:
            async with gate:
                await self._present(proof, self._anybody())

        await asyncio.gather(*(send(seen.proof) for seen in chosen))

    def _spawn(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _live(self, client: Client) -> None:
        chance = self._chance
        await asyncio.sleep(chance.uniform(0, self._pause))
        while True:
            what = chance.random()
            if what < 0.45 and self._seen:
                await self._present(self._something_seen(), self._anybody())
            elif what < 0.5:
                await self._race(self._fresh(client))
            elif what < 0.75:
                await self._probe(client, "plain")
            elif what < 0.9:
                await self._probe(client, "nonces")
            else:
                await self._present(self._fresh(client), self._anybody())
            await asyncio.sleep(chance.uniform(0, 2 * self._pause))

    def _fresh(self, client: Client) -> Proof:
        """A proof by a clock that is wrong by a usual amount, with a nonce or without."""
        chance = self._chance
        if chance.random() < 0.6:
            offset = chance.choice(
                [chance.uniform(-95, 0), chance.uniform(0, 35), chance.uniform(10, 30), chance.gauss(0, 2)]
            )
            return client.proof("plain", offset=offset)
        offset = chance.choice([chance.uniform(-95, 35), chance.uniform(-3600, 3600)])
        return client.proof("nonces", offset=offset, nonce=client.nonce if chance.random() < 0.7 else None)

    async def _probe(self, client: Client, api: str) -> None:
        """An honest client: a new proof, and another if it gets a nonce to use."""
        nonce = client.nonce if api == "nonces" else None
        worker = self._anybody()
        verdict = await self._present(client.proof(api, nonce=nonce), worker, probe=True)
        client.nonce = verdict.nonce or client.nonce
        if verdict.error == "use_dpop_nonce" and verdict.nonce is not None:
            await self._present(client.proof(api, nonce=verdict.nonce), self._anybody(), probe=True)

    async def _race(self, proof: Proof) -> None:
        count = self._chance.randint(2, len(self._workers))
        racing = self._chance.sample(self._workers, count)
        await asyncio.gather(*(self._present(proof, worker) for worker in racing))

    async def _present(self, proof: Proof, worker: Worker, *, probe: bool = False) -> Verdict:
        sent = time.monotonic()
        presentation = self._oracle.presents(proof, worker.number, sent)
        try:
            verdict = await worker.ask(proof)
        except Unanswered:
            # Its result is unknown: there was no answer.
            return NO_VERDICT
        answered = time.monotonic()
        self._oracle.answered(proof, presentation, verdict, answered)
        if probe:
            self.probes.append(Probe(worker.number, sent, answered, verdict.kind, proof.by_nonce))
        # What was answered 503 is worth another try, too.
        if verdict.kind is Kind.ACCEPTED or verdict.status == 503:
            self._see(Seen(answered, proof))
        return verdict

    def _see(self, seen: Seen) -> None:
        self._seen.append(seen)
        if len(self._seen) > MOST_KEPT or seen.at - self._seen[0].at > USEFUL_FOR * 1.2:
            first = max(len(self._seen) - MOST_KEPT, self._first_since(USEFUL_FOR))
            for old in self._seen[:first]:
                if not any(one.kind is None for one in old.proof.presentations):
                    old.proof.text = ""
            del self._seen[:first]

    def _something_seen(self) -> Proof:
        """Anything that may still be fresh, the newest more often."""
        seconds = self._chance.choice([0.5, 3.0, 20.0, 70.0, USEFUL_FOR])
        first = self._first_since(seconds)
        first = min(first, len(self._seen) - 1)
        return self._seen[self._chance.randrange(first, len(self._seen))].proof

    def _since(self, seconds: float) -> list[Seen]:
        return self._seen[self._first_since(seconds) :]

    def _first_since(self, seconds: float) -> int:
        """Where in what was seen the last `seconds` begin."""
        earliest = time.monotonic() - seconds
        low, high = 0, len(self._seen)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._seen[middle].at < earliest else (low, middle)
        return low

    def _anybody(self) -> Worker:
        return self._chance.choice(self._workers)
