"""Every request of tests/vectors, sent through the real gateways that ask ForwardAuth: the same verdicts."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from dpop_middleware.forward_auth import ForwardAuth
from tests.support.gateway import GATEWAY_SECRET, OPTIONS, Answered, Door, Gateway, echo, running_gateway
from tests.support.vectors import CASES, VectorClock, error_in, expected, server_of, steps_of

# Requests that a gateway itself answers with 400, without asking.
NOT_PASSED_ON: dict[str, dict[str, str]] = {
    "nginx": {"U049": "a Host field with a path", "U051": "two Host fields"},
    "caddy": {"U049": "a Host field with a path", "U051": "two Host fields"},
    "envoy": {"U049": "a Host field with a path"},
}
# Requests that can't be sent.
NO_REQUEST = {"H018": "a newline ends a field: on the wire, the rest is a good request"}


@dataclass(frozen=True)
class House:
    """A gateway, and the server that it asks: each test sets its own."""

    name: str
    asked: Door
    gateway: Gateway


@pytest.fixture(scope="module", params=OPTIONS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    name, asked = str(request.param), Door(echo())
    with running_gateway(name, tmp_path_factory.mktemp(name), asked, echo()) as gateway:
        yield House(name, asked, gateway)


def _ask(gateway: Gateway, request: dict[str, Any]) -> Answered:
    parts = urlsplit(request["url"])
    hosts = [value for name, value in request["headers"] if name.lower() == "host"] or [parts.netloc]
    lines = [f"{name}: {value}" for name, value in request["headers"] if name.lower() != "host"]
    lines += [f"Host: {host}" for host in hosts[1:]]
    target = parts._replace(scheme="", netloc="").geturl()
    return gateway.ask(request["method"], target, *lines, host=hosts[0])


def _judge(answer: Answered, expect: dict[str, Any]) -> None:
    assert answer.status < 500
    if expect["outcome"] == "any":
        return
    if expect["outcome"] == "accept":
        assert answer.reached
        return
    acceptable = {f"{expect['status']} {expect['error']}", *expect.get("also_acceptable", ())}
    challenges = answer.values("WWW-Authenticate")
    assert len(challenges) == 1, "all challenges are in one field"
    verdict = f"{answer.status} {error_in(challenges)}"
    assert verdict in {each.replace("400 ", "401 ") for each in acceptable}
    assert "DPoP " in challenges[0]


def test_a_field_that_is_not_sent_is_no_field() -> None:
    values = [value for case in CASES if case["id"] in NO_REQUEST for _, value in case["request"]["headers"]]
    assert [value[-1] for value in values if "\n" in value] == ["\n"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["id"] not in NO_REQUEST], ids=lambda case: case["id"]
)
def test_a_vector_gets_its_verdict_at_the_gateway(case: dict[str, Any], house: House) -> None:
    clock = VectorClock()
    house.asked.app = ForwardAuth(server_of(case, clock), secret=GATEWAY_SECRET, **OPTIONS[house.name])
    for at, request, expect in steps_of(case):
        clock.set(at)
        answer = _ask(house.gateway, request)
        if case["id"] in NOT_PASSED_ON[house.name]:
            assert (answer.status, answer.values("WWW-Authenticate")) == (400, []), "it is passed on now"
            continue
        _judge(answer, expected(expect))
        asked_for_nonce = "use_dpop_nonce" in "".join(answer.values("WWW-Authenticate"))
        assert len(answer.values("DPoP-Nonce")) == asked_for_nonce
