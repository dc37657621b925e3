"""Honest clients, thieves that send the clients' proofs again, and what they were told."""

import asyncio
import random
import ssl
from collections import deque

import httpx2

from dpop_middleware.client import ClientCredentials, DPoPAuth, DPoPKey, TokenRequestError, TokenSource
from examples.production.timeline import (
    ACCEPTED,
    LOST,
    REFUSED,
    REPLAY_ACCEPTED,
    SENT_AGAIN,
    UNAVAILABLE,
    Timeline,
)

CLIENTS = 8
THIEVES = 2
# Seconds between the requests of one client, on average.
PAUSE = 0.1
# A thief takes one of the last so many proofs that were accepted: those of the last seconds.
STOLEN_FROM = 300
TRIES = 5


class Load:
    """Asks the API from many tasks, while its `run` is awaited.

    With `resend`, a request whose connection broke is sent again, with a fresh proof: what nginx does for its
    clients, they must do themselves where there is none.
    """

    def __init__(self, timeline: Timeline, *, resource: str, issuer: str, secret: str, resend: bool) -> None:
        self._timeline = timeline
        self._url = f"{resource}/accounts"
        self._token_endpoint = f"{issuer}/token"
        self._secret = secret
        self._tries = TRIES if resend else 1
        self._dice = random.Random()  # noqa: S311 - dice, not secrets
        self._used: deque[dict[str, str]] = deque(maxlen=STOLEN_FROM)
        self._accepted = [0] * CLIENTS
        self._refused = 0
        self._ends = False

    async def run(self, trust: ssl.SSLContext) -> None:
        """Keep clients and thieves busy until `end`."""
        limits = httpx2.Limits(max_keepalive_connections=0) if self._tries > 1 else httpx2.Limits()
        async with (
            httpx2.AsyncClient(verify=trust, timeout=60, trust_env=False, limits=limits) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(CLIENTS):
                tasks.create_task(self._client(http, number))
            for _ in range(THIEVES):
                tasks.create_task(self._thief(http))

    def end(self) -> None:
        """Let the tasks finish what they do, and `run` return."""
        self._ends = True

    async def settled(self) -> None:
        """Wait until each client got in twice, and many replays were refused, since now."""
        accepted, refused = list(self._accepted), self._refused
        async with asyncio.timeout(120):
            while self._refused < refused + 20 or any(  # noqa: ASYNC110 - many events, counted
                now < before + 2 for now, before in zip(self._accepted, accepted, strict=True)
            ):
                await asyncio.sleep(0.05)

    async def _client(self, http: httpx2.AsyncClient, number: int) -> None:
        key = DPoPKey.generate("ES256")
        source = TokenSource(
            http,
            self._token_endpoint,
            ClientCredentials(),
            key=key,
            client_id=f"client_{number}",
            client_secret=self._secret,
            client_authentication="post",
        )
        auth = DPoPAuth(key, source.token_async, origin=self._url)
        while not self._ends:
            await self._ask(http, auth, number)
            await asyncio.sleep(self._dice.uniform(0, 2 * PAUSE))

    async def _ask(self, http: httpx2.AsyncClient, auth: DPoPAuth, number: int) -> None:
        """Send one request, and again for as long as the answer is 503; it must get in at last."""
        method = self._dice.choice(("GET", "POST"))
        broken = 0
        while True:
            try:
                response = await http.request(method, self._url, auth=auth)
            except (httpx2.TransportError, TokenRequestError) as error:
                broken += 1
                if broken < self._tries:
                    self._timeline.note(SENT_AGAIN, type(error).__name__)
                    continue
                self._timeline.note(LOST, f"{type(error).__name__} {error}")
                return
            if response.status_code != 503 or "Retry-After" not in response.headers:
                break
            self._timeline.note(UNAVAILABLE, response.json()["error_description"])
            # Sooner than Retry-After says, so that there is a load also while the store is away.
            await asyncio.sleep(self._dice.uniform(0.3, 0.7))
        if response.status_code != 200:
            self._timeline.note(LOST, f"{response.status_code} {response.text[:200]}")
            return
        self._timeline.note(ACCEPTED)
        self._accepted[number] += 1
        sent = response.request
        self._used.append(
            {"method": method, **{name: sent.headers[name] for name in ("Authorization", "DPoP")}}
        )

    async def _thief(self, http: httpx2.AsyncClient) -> None:
        """Send the very proofs that were accepted, in the hope that somebody forgot them."""
        while not self._ends:
            await asyncio.sleep(self._dice.uniform(0, PAUSE))
            if not self._used:
                continue
            stolen = dict(self._dice.choice(self._used))
            try:
                response = await http.request(stolen.pop("method"), self._url, headers=stolen)
            except httpx2.TransportError:
                continue
            accepted = response.status_code == 200
            self._refused += not accepted
            self._timeline.note(REPLAY_ACCEPTED if accepted else REFUSED)
