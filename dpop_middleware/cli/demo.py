"""`dpop-middleware demo`: a client, a thief, and the real middleware, in this process."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dpop_middleware.asgi import DPoPMiddleware
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import Command, Console, FindingState
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.testing.defects import broken_proof
from dpop_middleware.testing.issuer import TestIssuer

__all__ = ["COMMAND"]

_RESOURCE: Final = "https://api.example.test"
_PATH: Final = "/notes"
_URL: Final = f"{_RESOURCE}{_PATH}"

_Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Step:
    """One request, and the check that must refuse it; None where it must be accepted."""

    title: str
    headers: _Headers
    caught_by: Check | None = None
    method: str = "GET"


def _steps(issuer: TestIssuer) -> Iterator[_Step]:
    key, thief = DPoPKey.generate(), DPoPKey.generate()
    token = issuer.token(jkt=key.jkt)

    def request(*proofs: str, scheme: str = "DPoP") -> _Headers:
        return [("authorization", f"{scheme} {token}"), *(("dpop", proof) for proof in proofs)]

    def proof(signer: DPoPKey = key, *, url: str = _URL, access_token: str = token, age: float = 0) -> str:
        return signer.proof("GET", url, access_token=access_token, now=time.time() - age)

    def broken(name: str) -> _Headers:
        return [
            *request(),
            *broken_proof(name, key=key, method="GET", url=_URL, access_token=token),
        ]

    used = request(proof())
    yield _Step("the client calls with its token and a new proof", used)
    yield _Step("a thief sends the same request again", used, Check.JTI)
    yield _Step("the thief uses the token as Bearer", request(scheme="Bearer"), Check.BINDING)
    yield _Step("the thief sends the token without a proof", request(), Check.ONE_HEADER)
    yield _Step("the thief signs a proof with another key", request(proof(thief)), Check.JKT)
    yield _Step("... and names the client's key in it", broken("signed_by_another_key"), Check.SIGNATURE)
    yield _Step("... or signs nothing at all (alg none)", broken("alg_none"), Check.ALG)
    yield _Step("an unused proof, for another method", request(proof()), Check.HTM, method="POST")
    yield _Step("a proof for another URL", request(proof(url=f"{_RESOURCE}/profile")), Check.HTU)
    yield _Step("a proof for another token", request(proof(access_token="another")), Check.ATH)
    yield _Step("a proof of ten minutes ago", request(proof(age=600)), Check.IAT)
    yield _Step("the client calls again, with a new proof", request(proof()))


async def _notes(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"notes"})


async def _status(app: DPoPMiddleware, step: _Step) -> int:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "https",
        "method": step.method,
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in step.headers],
    }
    nothing_to_receive: asyncio.Queue[Any] = asyncio.Queue()
    await app(scope, nothing_to_receive.get, send)
    return statuses[0]


async def _walk(console: Console) -> bool:
    """Send every request and print each verdict; return whether all were right."""
    issuer = TestIssuer(audience=_RESOURCE)
    events: list[AuthenticationEvent] = []
    server = ResourceServer(
        issuer=issuer.issuer,
        resource=_RESOURCE,
        jwks=issuer.jwks(),
        replay_store=MemoryReplayStore(),
        on_event=events.append,
    )
    app = DPoPMiddleware(_notes, server)
    all_right = True
    for step in _steps(issuer):
        status = await _status(app, step)
        event = events[-1]
        right = event.check == step.caught_by and (status == 200) == (step.caught_by is None)
        all_right = all_right and right
        verdict = f"{status} {event.error or ''}"
        mark = console.mark(FindingState.PASSED if right else FindingState.FAILED)
        console.line(f"{mark} {step.title:<48} {verdict:<24} {event.check or 'accepted'}")
    return all_right


def _add_arguments(_parser: ArgumentParser) -> None:
    """Add nothing: the demo has no arguments."""


def _run(_args: Namespace, console: Console) -> int:
    console.line(f"GET {_URL}, behind DPoPMiddleware; a thief has copied the client's requests", style="bold")
    console.line()
    all_right = asyncio.run(_walk(console))
    console.line()
    if not all_right:
        console.line("a verdict is not the one that RFC 9449 requires", style="red")
        return 1
    console.line("every answer is the one that RFC 9449 requires", style="green")
    console.line("In a checkout, tox -e demo shows it with a real Valkey and two workers.")
    return 0


COMMAND = Command(
    name="demo",
    summary="let a thief try, and see which check catches each attempt",
    examples="""\
  dpop-middleware demo
""",
    add_arguments=_add_arguments,
    run=_run,
)
