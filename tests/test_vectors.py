"""Every request in tests/vectors gets the verdict that is stated for it, through the real middleware."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from dpop_middleware import (
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceServer,
)
from tests.support.asgi import Answer, call

VECTORS = json.loads((Path(__file__).parent / "vectors" / "proof_vectors.json").read_text())
NOW = VECTORS["now"]


class _Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _middleware(case: dict[str, Any], first_request: dict[str, Any], clock: _Clock) -> DPoPMiddleware:
    config = VECTORS["defaults"] | case.get("config", {})
    public_url = config.get("base_url") or next(iter(config.get("allowed_origins", ())), None)
    if public_url is None and "trusted_proxies" not in config:
        public_url = _origin(first_request["url"])
    server = ResourceServer(
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
    return DPoPMiddleware(_application, server)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


def _scope(request: dict[str, Any]) -> dict[str, Any]:
    parts = urlsplit(request["url"])
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request["headers"]]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.insert(0, (b"host", parts.netloc.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request["method"],
        "scheme": parts.scheme,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": headers,
    }


def _steps(case: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any], Any]]:
    if "request" in case:
        yield 0, case["request"], case["expect"]
        return
    for step in case["steps"]:
        yield step["at"], step["request"], step["expect"]


def _error(answer: Answer) -> str | None:
    errors = {value.split('error="')[1].split('"')[0] for value in answer.challenges if 'error="' in value}
    assert len(errors) <= 1
    return next(iter(errors), None)


def _judge(answer: Answer, expect: Any) -> None:
    assert answer.status < 500
    if expect == "reject":
        expect = {"outcome": "reject", "status": 401, "error": "invalid_dpop_proof"}
    if expect == "accept":
        expect = {"outcome": "accept"}
    if expect["outcome"] == "any":
        return
    if expect["outcome"] == "accept":
        assert (answer.status, answer.body) == (200, b"reached"), answer.body
        return
    acceptable = {f"{expect['status']} {expect['error']}", *expect.get("also_acceptable", ())}
    assert f"{answer.status} {_error(answer)}" in acceptable, answer.body
    assert answer.challenges
    assert any(challenge.startswith("DPoP ") for challenge in answer.challenges)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
async def test_vector(case: dict[str, Any]) -> None:
    clock = _Clock()
    steps = list(_steps(case))
    middleware = _middleware(case, steps[0][1], clock)
    for at, request, expect in steps:
        clock.now = NOW + at
        answer = await call(middleware, _scope(request))
        _judge(answer, expect)
        assert len(answer.values("dpop-nonce")) == (_error(answer) == "use_dpop_nonce")
