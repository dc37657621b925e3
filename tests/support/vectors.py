"""The cases of tests/vectors/proof_vectors.json: the server of each, its requests, and their verdicts."""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpop_middleware import DPoPPolicy, HMACNonceProvider, MemoryReplayStore, ResourceServer

__all__ = ["CASES", "VectorClock", "error_in", "expected", "server_of", "steps_of"]

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "proof_vectors.json").read_text())
CASES: list[dict[str, Any]] = _VECTORS["cases"]


class VectorClock:
    """The time at which the cases are judged; a step may come `at` seconds later."""

    def __init__(self) -> None:
        self.now = float(_VECTORS["now"])

    def __call__(self) -> float:
        return self.now

    def set(self, at: float) -> None:
        self.now = _VECTORS["now"] + at


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def server_of(case: dict[str, Any], clock: Callable[[], float]) -> ResourceServer:
    """The resource server that judges the requests of one case."""
    config = _VECTORS["defaults"] | case.get("config", {})
    public_url = config.get("base_url") or next(iter(config.get("allowed_origins", ())), None)
    if public_url is None and "trusted_proxies" not in config:
        public_url = _origin(next(request for _, request, _ in steps_of(case))["url"])
    return ResourceServer(
        issuer=config["issuer"],
        resource=config["audience"],
        jwks=config["as_jwks"],
        public_url=public_url,
        replay_store=MemoryReplayStore(),
        nonces=HMACNonceProvider(bytes(range(32))),
        policy=DPoPPolicy(
            algorithms=tuple(config["algs"]),
            proof_lifetime=config["iat_past"] - config["iat_future"],
            clock_skew=config["iat_future"],
            accept_bearer=not config["require_dpop"],
            nonce="required" if config["require_nonce"] else "off",
        ),
        clock=clock,
    )


def steps_of(case: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any], Any]]:
    """The time of each request, the request, and its expected result."""
    if "request" in case:
        yield 0, case["request"], case["expect"]
        return
    for step in case["steps"]:
        yield step["at"], step["request"], step["expect"]


def expected(expect: Any) -> dict[str, Any]:
    """The expected result of a request, in full."""
    if expect == "reject":
        return {"outcome": "reject", "status": 401, "error": "invalid_dpop_proof"}
    return {"outcome": "accept"} if expect == "accept" else dict(expect)


def error_in(challenges: Collection[str]) -> str | None:
    """The one error code that the challenges name, None for none."""
    errors = {value.split('error="')[1].split('"')[0] for value in challenges if 'error="' in value}
    assert len(errors) <= 1
    return next(iter(errors), None)
