"""What is done to the service while clients and thieves are at work; each step waits for its effect."""

import asyncio
import json
import secrets
import ssl
import time
import urllib.request

from examples.production.api import NONCE_LIFETIME
from examples.production.issuer import LIFETIME
from examples.production.load import Load
from examples.production.service import SERVERS, Service
from examples.production.store import Store
from examples.production.timeline import Timeline

# The leeway that the API gives tokens after their expiry, by default.
TOKEN_CLOCK_SKEW = 15
FALLBACK = {"nonce": "fallback"}
REQUIRED = {"nonce": "required", "iat_limit_with_nonce": 60, "proof_lifetime": 30}


class Steps:
    """The steps in their order."""

    def __init__(
        self, timeline: Timeline, load: Load, *, service: Service, store: Store, trust: ssl.SSLContext
    ) -> None:
        self._timeline = timeline
        self._load = load
        self._service = service
        self._store = store
        self._trust = trust
        self._rotated_at = 0.0

    async def run(self, secret: str) -> None:
        """Take all steps; `secret` is the one of the nonces that is in use."""
        await self._load.settled()
        await self.rolling_restart()
        await self.rotate_keys()
        await self.failover()
        await self.withdraw_keys()
        await self.rotate_nonce_secret(secret)

    async def rolling_restart(self) -> None:
        """Restart one server after the other with a stricter policy: for a while both policies judge."""
        self._timeline.begin("rolling restart: nonces are required, proofs live for 30 s")
        self._service.change(policy=REQUIRED)
        for number in SERVERS:
            await asyncio.to_thread(self._service.restart, number)
            self._timeline.tell(f"server {number} is back with the new policy")
            await self._load.settled()

    async def rotate_keys(self) -> None:
        """Let the issuer sign with a new key at once: no worker has seen it before."""
        self._timeline.begin("the issuer signs with a new key")
        self._service.rotate_keys()
        self._rotated_at = time.monotonic()
        await asyncio.to_thread(self._until_published, 2)
        # Each client renews its token before it expires.
        await asyncio.sleep(LIFETIME / 2)
        await self._load.settled()

    async def failover(self) -> None:
        """Kill the master of the replay store; what it alone knew is lost."""
        self._timeline.begin("the master of the replay store dies", outage=True)
        await asyncio.to_thread(self._store.kill_the_master)
        await asyncio.to_thread(self._store.wait_for_the_promotion)
        promoted = self._timeline.now
        self._timeline.tell("the Sentinels promoted its replica; proofs that may be used are answered 503")
        await self._load.settled()
        async with asyncio.timeout(60):
            while self._timeline.now - max(self._timeline.last_503, promoted) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        self._timeline.tell(f"the last 503 was {self._timeline.last_503 - promoted:.1f} s after that")
        await asyncio.to_thread(self._store.bring_back_the_replica)
        self._timeline.tell("the old master is back, as a replica")

    async def withdraw_keys(self) -> None:
        """Take the issuer's old key away when the last token that it signed has expired."""
        waits = LIFETIME + TOKEN_CLOCK_SKEW - (time.monotonic() - self._rotated_at)
        await asyncio.sleep(max(0.0, waits))
        self._timeline.begin("the issuer withdraws its old key")
        self._service.withdraw_old_keys()
        await asyncio.to_thread(self._until_published, 1)
        await self._load.settled()

    async def rotate_nonce_secret(self, old: str) -> None:
        """Replace the nonces' secret: all workers must know the new one before one of them uses it."""
        new = secrets.token_hex(32)
        for known, title in (((old, new), "[old, new]"), ((new, old), "[new, old]"), ((new,), "[new]")):
            self._timeline.begin(f"workers are replaced: nonce secrets {title}")
            self._service.change(nonce_secrets=known)
            await asyncio.to_thread(self._service.reload)
            self._timeline.tell("every worker has been replaced")
            await self._load.settled()
            if known == (new, old):
                self._timeline.tell(f"{NONCE_LIFETIME} s, until the last nonce of the old secret is stale")
                await asyncio.sleep(NONCE_LIFETIME)

    def _until_published(self, count: int) -> None:
        while True:
            with urllib.request.urlopen(f"{self._service.issuer}/jwks", context=self._trust) as answer:  # noqa: S310
                if len(json.load(answer)["keys"]) == count:
                    return
            time.sleep(0.1)
