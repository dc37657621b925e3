"""Clients that call the API with fresh proofs, thieves that send proofs again, and what they were told."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2

from dpop_middleware.client import DPoPKey

CLIENTS = 16
PAUSE = 0.02
# A thief takes one of the last so many proofs that were accepted.
STOLEN_FROM = 200
STEP = 0.5
# Seconds that a busy machine gets to recover after the end of the load.
PATIENCE = 20.0

ACCEPTED = "accepted"
REFUSED = "replays refused"
UNAVAILABLE = "503"
REPLAY_ACCEPTED = "REPLAYS ACCEPTED"
FRESH_REFUSED = "FRESH PROOFS REFUSED"
OUTCOMES = (ACCEPTED, REFUSED, UNAVAILABLE, REPLAY_ACCEPTED, FRESH_REFUSED)


@dataclass
class Timeline:
    """What happened when, in steps of half a second."""

    begin: float = field(default_factory=time.monotonic)
    steps: dict[int, Counter[str]] = field(default_factory=dict)
    last_503: float = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begin

    def note(self, outcome: str) -> None:
        """Count `outcome` as of now."""
        self.steps.setdefault(int(self.now / STEP), Counter())[outcome] += 1
        if outcome == UNAVAILABLE:
            self.last_503 = self.now

    @property
    def has_recovered(self) -> bool:
        """Whether nobody was answered 503 for a whole step."""
        return self.now - self.last_503 > STEP

    def total(self, outcome: str) -> int:
        """How often `outcome` came."""
        return sum(step[outcome] for step in self.steps.values())


class Load:
    """Asks for `url` with `token`, from many tasks, until it is stopped."""

    def __init__(self, *, url: str, token: str, key: DPoPKey, timeline: Timeline) -> None:
        self._url = url
        self._token = token
        self._key = key
        self._timeline = timeline
        self._used: list[str] = []
        self._dice = random.Random()  # noqa: S311 - dice, not secrets

    async def run(self, seconds: float) -> None:
        """Keep the clients busy for so long, and then until the API has recovered, within limits."""
        end = time.monotonic() + seconds
        async with httpx2.AsyncClient(timeout=30) as http, asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(http, end))

    async def _client(self, http: httpx2.AsyncClient, end: float) -> None:
        while time.monotonic() < (end if self._timeline.has_recovered else end + PATIENCE):
            stolen = bool(self._used) and self._dice.random() < 0.25
            proof = self._dice.choice(self._used) if stolen else self._proof()
            headers = {"Authorization": f"DPoP {self._token}", "DPoP": proof}
            response = await http.get(self._url, headers=headers)
            self._note(response.status_code, proof, stolen=stolen)
            await asyncio.sleep(self._dice.uniform(0, 2 * PAUSE))

    def _note(self, status: int, proof: str, *, stolen: bool) -> None:
        if status == 503:
            self._timeline.note(UNAVAILABLE)
        elif stolen:
            self._timeline.note(REPLAY_ACCEPTED if status == 200 else REFUSED)
        elif status != 200:
            self._timeline.note(FRESH_REFUSED)
        else:
            self._timeline.note(ACCEPTED)
            self._used.append(proof)
            del self._used[:-STOLEN_FROM]

    def _proof(self) -> str:
        return self._key.proof("GET", self._url, access_token=self._token)
