"""Every request in tests/vectors gets the verdict that is stated for it, through the real middleware."""

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from dpop_middleware import DPoPMiddleware
from tests.support.asgi import Answer, call
from tests.support.vectors import CASES, VectorClock, error_in, expected, server_of, steps_of


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


def _judge(answer: Answer, expect: dict[str, Any]) -> None:
    assert answer.status < 500
    if expect["outcome"] == "any":
        return
    if expect["outcome"] == "accept":
        assert (answer.status, answer.body) == (200, b"reached"), answer.body
        return
    acceptable = {f"{expect['status']} {expect['error']}", *expect.get("also_acceptable", ())}
    assert f"{answer.status} {error_in(answer.challenges)}" in acceptable, answer.body
    assert answer.challenges
    assert any(challenge.startswith("DPoP ") for challenge in answer.challenges)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
async def test_each_vector_has_its_verdict(case: dict[str, Any]) -> None:
    clock = VectorClock()
    middleware = DPoPMiddleware(_application, server_of(case, clock))
    for at, request, expect in steps_of(case):
        clock.set(at)
        answer = await call(middleware, _scope(request))
        _judge(answer, expected(expect))
        asked_for_nonce = error_in(answer.challenges) == "use_dpop_nonce"
        assert len(answer.values("dpop-nonce")) == asked_for_nonce
