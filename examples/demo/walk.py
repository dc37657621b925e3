"""The walk: a client's honest flow, then the attempts of a thief with the stolen values."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jwt

from dpop_middleware.client import DPoPKey

# The sample proof of the page that inspired this demo, header and payload as printed there. Its key is not a
# point of P-256, so no signature could ever verify with it; the page cuts its own off, so any stands here.
SAMPLE_PROOF = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4QkZkYW1Rcm02VW11RVBZNnIxcXlKRGxi"
    "M1V0M2pYV2l1S240LUdSM0EiLCJ5IjoiX2VLUHNJX3VzZV8yZmt6akRqaHFxOHFWZV8yb1Z2SW81akxRM01oNDF1TSIsImNydiI6IlAtMjU2"
    "In19.eyJqdGkiOiItQndDMGVBTVplYTVHcFpEIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vYXV0aC5leGFtcGxlLmNvbS90b2tlbiIs"
    f"ImlhdCI6MTU2MjI2MjYxNn0.{'A' * 86}"
)
TEN_MINUTES = 600
NO_EVENT = {"worker": None, "check": "unknown", "reason": "no event", "expected": None, "actual": None}


@dataclass(frozen=True)
class Verdict:
    """What a server said: HTTP status, OAuth error code, and the check that caught the request."""

    status: int
    error: str | None = None
    check: str | None = None


ACCEPTED = Verdict(200)


def refused(check: str, error: str = "invalid_dpop_proof") -> Verdict:
    """Return the verdict on a request that is caught by `check`."""
    return Verdict(401, error, check)


@dataclass(frozen=True)
class Step:
    """One request: the verdict that it must get, the one that it got, and what the API's event says of it."""

    title: str
    request: str
    expected: Verdict
    actual: Verdict
    reason: str
    details: str = ""
    worker: int | None = None


class Walk:
    """Sends the requests, each on a new connection, and reads the API's events beside the answers."""

    def __init__(self, *, issuer: str, resource: str, events: Path, workers: int) -> None:
        self._issuer = issuer
        self._resource = resource
        self._events = events
        self._events_read = 0
        self._workers = workers
        self._key = DPoPKey.generate("ES256")

    def steps(self) -> Iterator[Step]:
        """Walk the flow, then the attacks, then the last step of the flow again."""
        step, token = self._ask_for_a_token("SPLIT_123")
        yield step
        used = self._proof(token)
        step = self._call("the client calls the API, with a new proof", token, used, ACCEPTED)
        yield step
        yield self._call("a thief sends the same proof again", token, used, refused("jti"))
        if self._workers > 1:
            yield self._call_another_worker("... and to the other worker", token, used, refused("jti"), step)
        yield from self._attacks(token)
        yield self._call("the client calls again, with a new proof", token, self._proof(token), ACCEPTED)

    def _attacks(self, token: str) -> Iterator[Step]:
        """Try a stolen token, with and without a proof that the client made but never sent."""
        unused = self._proof(token)
        thiefs = DPoPKey.generate("ES256").proof("GET", f"{self._resource}/accounts", access_token=token)
        old = self._proof(token, now=time.time() - TEN_MINUTES)
        _, other_token = self._ask_for_a_token("SPLIT_124")

        bearer, stranger = refused("binding", "invalid_token"), refused("jkt", "invalid_token")
        yield self._call("the stolen token as Bearer", token, None, bearer, scheme="Bearer")
        yield self._call("the stolen token with the thief's own key", token, thiefs, stranger)
        yield self._call("a stolen proof, another method", token, unused, refused("htm"), method="DELETE")
        yield self._call("a stolen proof, another path", token, unused, refused("htu"), path="/transfers")
        yield self._call("a stolen proof that is ten minutes old", token, old, refused("iat"))
        yield self._call("a stolen proof with another token", other_token, unused, refused("ath"))
        yield self._call("the sample proof: key not on the curve", token, SAMPLE_PROOF, refused("jwk"))

    def _proof(self, token: str, now: float | None = None) -> str:
        return self._key.proof("GET", f"{self._resource}/accounts", access_token=token, now=now)

    def _ask_for_a_token(self, code: str) -> tuple[Step, str]:
        """Exchange an authorization code for a token, and look whether it is bound to our key."""
        url = f"{self._issuer}/token"
        response = httpx2.post(
            url,
            data={"grant_type": "authorization_code", "code": code, "client_id": "my_client"},
            headers={"DPoP": self._key.proof("POST", url)},
        )
        answer = response.json()
        token: str = answer["access_token"]
        claims = jwt.decode(token, options={"verify_signature": False})
        bound = answer["token_type"] == "DPoP" and claims.get("cnf") == {"jkt": self._key.jkt}
        actual = Verdict(response.status_code, check=None if bound else "cnf")
        reason = f"token_type {answer['token_type']}, bound to {self._key.jkt} by cnf"
        step = Step(
            "the client asks for a token, with a proof",
            "POST /token",
            ACCEPTED,
            actual,
            reason,
            json.dumps(claims),
        )
        return step, token

    def _call(
        self,
        title: str,
        token: str,
        proof: str | None,
        expected: Verdict,
        *,
        method: str = "GET",
        path: str = "/accounts",
        scheme: str = "DPoP",
    ) -> Step:
        headers = {"Authorization": f"{scheme} {token}"}
        if proof is not None:
            headers["DPoP"] = proof
        response = httpx2.request(method, self._resource + path, headers=headers)
        error = re.search(r'error="([^"]*)"', response.headers.get("WWW-Authenticate", ""))
        event = self._next_event()
        actual = Verdict(response.status_code, error[1] if error else None, event["check"])
        return Step(
            title, f"{method} {path}", expected, actual, event["reason"], _details(event), event["worker"]
        )

    def _call_another_worker(
        self, title: str, token: str, proof: str, expected: Verdict, before: Step
    ) -> Step:
        """Send the request until a worker other than the one before has judged it."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            step = self._call(title, token, proof, expected)
            if step.worker != before.worker or step.actual != expected:
                return step
        raise TimeoutError("the other worker never answered")

    def _next_event(self) -> dict[str, Any]:
        """Return the event that the last request caused; there must be exactly one."""
        lines = self._events.read_text(encoding="utf-8").splitlines()[self._events_read :]
        self._events_read += len(lines)
        event: dict[str, Any] = json.loads(lines[0]) if len(lines) == 1 else NO_EVENT
        return event


def _details(event: dict[str, Any]) -> str:
    """Return what the check compared: it is for the operator's eyes, the client never learns it."""
    compared = (f"{name} {event[name]}" for name in ("expected", "actual") if event[name] is not None)
    return ", ".join(compared)
