"""The processes of `tests.benchmarks.serving`: the four applications under uvicorn, and the clients."""

import selectors
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection as pipes
from typing import Any, NamedTuple

from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import DPoPMiddleware, RedisReplayStore, ResourceServer
from tests.benchmarks.flood_processes import PATIENCE, Connection, application, serve_application
from tests.benchmarks.recipe import DPoPBaseHTTPMiddleware, PureASGIMiddleware, Recipe
from tests.benchmarks.rounds import Yardstick

__all__ = [
    "APPLICATIONS",
    "BARE",
    "BASE_HTTP",
    "CONNECTIONS",
    "OURS",
    "PURE_ASGI",
    "Loaded",
    "Setting",
    "load",
    "serve",
]

BARE = "one bare ES256 verification"
OURS = "DPoPMiddleware"
PURE_ASGI = "the PyJWT recipe, pure ASGI"
BASE_HTTP = "the PyJWT recipe, BaseHTTPMiddleware"
CONNECTIONS = 64
# Other work on the machine must not turn a slow answer of the store into a refusal.
_STORE_TIMEOUT = 5.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The configuration of all applications: the issuer, its keys, the API's name, and the Valkey server."""

    issuer: str
    resource: str
    jwks: dict[str, Any]
    valkey: str


class _Bare:
    """Verifies one signature a request, always the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._yardstick = Yardstick()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._yardstick.seconds(1)
        await self._app(scope, receive, send)


def _ours(setting: Setting) -> ASGIApp:
    store = RedisReplayStore.from_url(setting.valkey, timeout=_STORE_TIMEOUT, new_server="accept")
    api = ResourceServer(
        issuer=setting.issuer, resource=setting.resource, jwks=setting.jwks, replay_store=store
    )
    return DPoPMiddleware(application, api)


def _recipe(setting: Setting) -> Recipe:
    redis = Redis.from_url(setting.valkey)
    return Recipe(issuer=setting.issuer, audience=setting.resource, jwks=setting.jwks, redis=redis)


APPLICATIONS: Mapping[str, Callable[[Setting], ASGIApp]] = {
    BARE: lambda _: _Bare(application),
    OURS: _ours,
    PURE_ASGI: lambda setting: PureASGIMiddleware(application, _recipe(setting)),
    BASE_HTTP: lambda setting: DPoPBaseHTTPMiddleware(application, _recipe(setting)),
}


def serve(told: pipes.Connection, name: str, setting: Setting, lifetime: float) -> None:
    """Serve one of APPLICATIONS with one worker; uvicorn takes uvloop and httptools where they are."""
    serve_application(APPLICATIONS[name](setting), told, lifetime)


class Loaded(NamedTuple):
    """The results: the statuses, the seconds for all, and those for each request."""

    statuses: Counter[int]
    seconds: float
    latencies: list[float]


def load(port: int, requests: Sequence[bytes], *, connections: int = CONNECTIONS) -> Loaded:
    """Send each request once over so many connections, always one under way on each."""
    selector = selectors.DefaultSelector()
    opened = [Connection(port) for _ in range(min(connections, len(requests)))]
    waiting = iter(requests)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    sent: dict[Connection, float] = {}
    try:
        begin = time.perf_counter()
        for connection in opened:
            selector.register(connection, selectors.EVENT_READ, connection)
            sent[connection] = time.perf_counter()
            connection.send(next(waiting))
        while statuses.total() < len(requests):
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"no answer within {PATIENCE:.0f} s")
            for key, _ in ready:
                status = key.data.status()
                if status is None:
                    continue
                now = time.perf_counter()
                latencies.append(now - sent[key.data])
                statuses[status] += 1
                following = next(waiting, None)
                if following is not None:
                    sent[key.data] = now
                    key.data.send(following)
        return Loaded(statuses, time.perf_counter() - begin, latencies)
    finally:
        selector.close()
        for connection in opened:
            connection.close()
