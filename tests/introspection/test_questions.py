"""Made-up tokens and outages can neither flood the endpoint nor delay known tokens."""

import asyncio
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import Response

from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.introspection._answer import MalformedAnswer
from dpop_middleware.introspection._questions import MAX_QUESTIONS, Outlook
from dpop_middleware.introspection._transport import EndpointError
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, Question, answers
from tests.support.loop_clock import LoopClock

JKT = DPoPKey.generate().jkt
Verifier = Callable[..., IntrospectionVerifier]


async def outcome(verifier: IntrospectionVerifier, token: str) -> str:
    try:
        await verifier.verify(token)
    except (InvalidToken, Unavailable) as error:
        return type(error).__name__
    return "active"


async def outcomes(verifier: IntrospectionVerifier, tokens: list[str]) -> list[str]:
    return await asyncio.gather(*(outcome(verifier, token) for token in tokens))


@contextmanager
def no_time_passes(monkeypatch: pytest.MonkeyPatch, *, later: float = 0) -> Generator[None]:
    """In the block it is `later` seconds later, and stays so however slow the machine is: no timer ends."""
    now = time.monotonic() + later
    with monkeypatch.context() as still:
        still.setattr(time, "monotonic", lambda: now)
        yield


class Gate:
    """Lets the issuer answer only questions about the `passing` tokens, until it is opened."""

    def __init__(self, issuer: IssuerOfOpaqueTokens, *passing: str) -> None:
        self.open = False
        self.under_way = self.most = 0
        self.passing = set(passing)
        issuer.behaves = self.behave

    async def behave(self, question: Question) -> Response | None:
        if question.form["token"] not in self.passing:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            while not self.open:
                await asyncio.sleep(0.005)
            self.under_way -= 1
        return None


async def test_questions_about_unknown_tokens_are_bounded_in_flight(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, known = verifier(max_connections=6, active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    gate = Gate(issuer, known)
    flood = asyncio.create_task(outcomes(opaque, [f"made-up-{number}" for number in range(200)]))
    while gate.under_way < 3:
        await asyncio.sleep(0.005)
    assert await outcome(opaque, known) == "active", "known tokens have places of their own"
    assert gate.most == 3
    gate.open = True
    assert set(await flood) <= {"InvalidToken", "Unavailable"}
    assert gate.most == 3


async def test_the_questions_per_second_about_made_up_tokens_are_bounded(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(max_unknown_per_second=5)
    began = time.monotonic()
    for batch in range(3):
        await outcomes(opaque, [f"made-up-{batch}-{number}" for number in range(100)])
    seconds = time.monotonic() - began
    assert 5 <= len(issuer.asked) <= 5 + 5 * seconds + 1


async def test_many_honest_clients_may_come_at_once(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    opaque, tokens = verifier(max_unknown_per_second=5), [issuer.issue(JKT) for _ in range(100)]
    found = ["nobody came"]
    for _ in range(20):
        found = await outcomes(opaque, tokens)
        assert "InvalidToken" not in found, "no good token is refused"
        if set(found) == {"active"}:
            break
    assert set(found) == {"active"}
    assert len(issuer.asked) == 100


async def test_many_honest_clients_may_come_at_once_after_a_flood(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = verifier(max_unknown_per_second=20, max_connections=40)
    assert set(await outcomes(opaque, [f"made-up-{number}" for number in range(20)])) == {"InvalidToken"}
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 2)
    gate = Gate(issuer)
    senders = [asyncio.create_task(outcome(opaque, issuer.issue(JKT))) for _ in range(40)]
    while gate.under_way < 20:
        await asyncio.sleep(0.005)
    senders += [asyncio.create_task(outcome(opaque, issuer.issue(JKT))) for _ in range(20)]
    await asyncio.sleep(0)
    assert not any(sender.done() for sender in senders[-20:]), "they wait for their turn"
    gate.open = True
    assert "InvalidToken" not in await asyncio.gather(*senders), "no good token is refused"


async def test_a_flood_of_made_up_tokens_causes_few_503s(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, caplog: Any
) -> None:
    opaque = verifier(max_unknown_per_second=20)
    await outcomes(opaque, [f"early-{number}" for number in range(20)])
    found = await outcomes(opaque, [f"made-up-{number}" for number in range(1500)])
    assert 0 < found.count("Unavailable") <= MAX_UNAVAILABLE + 50
    assert found.count("InvalidToken") > 1000
    assert [record.message for record in caplog.records if "answered 401" in record.message] != []
    assert "made-up-" not in caplog.text


async def test_during_a_flood_of_made_up_tokens_an_unknown_one_is_refused_before_its_proof_is_judged(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque, known = verifier(max_unknown_per_second=20, active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    with no_time_passes(monkeypatch):
        await outcomes(opaque, [f"early-{number}" for number in range(20)])
        assert opaque.is_remote("made-up")
        flood = [asyncio.create_task(outcome(opaque, f"made-up-{number}")) for number in range(40)]
        while opaque.is_remote("made-up"):
            await asyncio.sleep(0)
        asked = len(issuer.asked)
        assert (await outcome(opaque, "made-up"), len(issuer.asked)) == ("Unavailable", asked)
        assert opaque.is_remote("made-up-0"), "it is being asked about"
        assert opaque.is_remote(known)
    await asyncio.gather(*flood)
    assert opaque.is_remote("made-up"), "nobody waits any more"


async def test_a_token_that_would_not_be_asked_about_is_not_even_if_there_is_room_a_moment_later(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = verifier(max_unknown_per_second=20)
    with no_time_passes(monkeypatch):
        await outcomes(opaque, [f"early-{number}" for number in range(20)])
        flood = [asyncio.create_task(outcome(opaque, f"made-up-{number}")) for number in range(40)]
        while opaque.is_remote("unread"):
            await asyncio.sleep(0)
        with no_time_passes(monkeypatch, later=1):
            assert await outcome(opaque, "unread") == "Unavailable"
        assert issuer.asked_about("unread") == 0
    await asyncio.gather(*flood)
    assert await outcome(opaque, "unread") == "InvalidToken", "it counts once"


async def test_while_the_endpoint_fails_no_proof_is_judged_and_the_next_good_one_is_the_probe(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque, known = verifier(active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    issuer.behaves = answers(502)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for token in (known, "unknown"):
        for _ in range(3):
            assert opaque.is_remote(token)
            assert await outcome(opaque, token) == "Unavailable"
        asked = len(issuer.asked)
        assert not opaque.is_remote(token)
        assert (await outcome(opaque, token), len(issuer.asked)) == ("Unavailable", asked)
    issuer.behaves = None
    monkeypatch.undo()
    while not opaque.is_remote(known):
        await asyncio.sleep(0.01)
    assert opaque.is_remote(known), "that it was looked at twice changes nothing"
    assert await outcome(opaque, known) == "active"


async def test_known_tokens_are_judged_while_the_endpoint_fails_on_made_up_ones(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, known = verifier(active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"

    async def behave(question: Question) -> Response | None:
        return None if question.form["token"] == known else Response(status_code=503)

    issuer.behaves = behave
    for number in range(20):
        assert await outcome(opaque, f"made-up-{number}") == "Unavailable"
        assert await outcome(opaque, known) == "active"
    assert len(issuer.asked) - issuer.asked_about(known) < 20, "the breaker of unknown tokens opened"


async def test_a_server_that_refuses_one_token_counts_as_up(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier()

    async def behave(question: Question) -> Response | None:
        return Response(status_code=400) if question.form["token"].startswith("odd") else None

    issuer.behaves = behave
    for number in range(20):
        assert await outcome(opaque, f"odd-{number}") == "Unavailable"
    assert await outcome(opaque, issuer.issue(JKT)) == "active"
    assert len(issuer.asked) == 21
    known = issuer.issue("k" * 42 + "A")
    assert await outcome(opaque, known) == "active"


async def test_a_known_token_that_the_server_refuses_is_503(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, known = verifier(active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"

    async def behave(question: Question) -> Response | None:
        return Response(status_code=400)

    issuer.behaves = behave
    assert await outcome(opaque, known) == "Unavailable"


@pytest.mark.parametrize(
    ("error", "seconds", "of_token"),
    [
        (EndpointError("403", blocked=True), 59, True),
        (MalformedAnswer("a page"), 59, True),
        (EndpointError("403", blocked=True), 61, False),
        (MalformedAnswer("a page"), 61, False),
        (EndpointError("503"), 59, False),
        (TimeoutError(), 59, False),
    ],
)
def test_for_a_minute_after_an_answer_a_filter_may_have_blocked_the_one_token(
    error: Exception, seconds: float, of_token: bool
) -> None:
    assert Outlook(answered=time.monotonic() - seconds).may_be_of_token(error) is of_token


async def test_a_flood_of_tokens_that_a_filter_blocks_is_refused_unread_and_never_with_401(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, known = verifier(max_unknown_per_second=20, active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"

    async def behave(question: Question) -> Response | None:
        return Response(status_code=403) if "/etc/" in question.form["token"] else None

    issuer.behaves = behave
    unread: list[str] = []
    for flood in range(10):
        blocked = [f"../etc/{flood}-{number}" for number in range(20 + MAX_UNAVAILABLE + 100)]
        senders = [asyncio.create_task(outcome(opaque, token)) for token in blocked]
        for _ in range(3):  # their questions begin, and take what is left of this second's
            await asyncio.sleep(0)
        unread = [token for token in ("../etc/one-more", known) if not opaque.is_remote(token)]
        assert set(await asyncio.gather(*senders)) == {"Unavailable"}
        if unread:
            break
    assert unread == ["../etc/one-more"]
    assert await outcome(opaque, known) == "active"


async def test_known_tokens_that_a_filter_blocks_are_no_flood_of_unknown_ones(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, known = verifier(max_unknown_per_second=1, active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    issuer.behaves = answers(403)
    for _ in range(20):
        assert await outcome(opaque, known) == "Unavailable"
    admission, now = vars(opaque)["_admission"], time.monotonic()
    while admission.pause(now) == 0:
        pass
    assert not admission.is_flooded(1, now)


async def test_a_server_that_never_judged_a_token_is_not_asked_about_each(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    issuer.behaves, opaque = answers(403), verifier()
    for number in range(20):
        assert await outcome(opaque, f"token-{number}") == "Unavailable"
    assert len(issuer.asked) < 20, "the breaker opened"


async def test_after_failures_no_request_waits_and_the_server_is_soon_tried_again(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(active_lifetime=0)
    known = issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    issuer.behaves = answers(502)
    for _ in range(3):
        assert await outcome(opaque, known) == "Unavailable"
    asked = len(issuer.asked)
    with pytest.raises(Unavailable) as caught:
        await opaque.verify(known)
    assert len(issuer.asked) == asked, "the breaker is open"
    assert caught.value.retry_after >= 1
    assert "the status is 502" in str(caught.value.actual)
    issuer.behaves = None
    while await outcome(opaque, known) != "active":
        await asyncio.sleep(0.05)


async def test_no_request_waits_longer_than_a_second_and_the_answer_is_kept(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque, token = verifier(timeout=30, patience=1), issuer.issue(JKT)
    gate, clock = Gate(issuer), LoopClock(monkeypatch)
    waiting = asyncio.create_task(outcome(opaque, token))
    await clock.until(lambda: gate.under_way == 1)
    await clock.until_after(1.0, waiting.done)
    assert waiting.result() == "Unavailable"
    monkeypatch.undo()
    gate.open = True
    while await outcome(opaque, token) != "active":
        await asyncio.sleep(0.01)
    assert issuer.asked_about(token) == 1


async def test_a_question_whose_endpoint_is_not_found_in_time_says_so(verifier: Verifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        opaque = verifier(issuer=f"http://127.0.0.1:{silent.getsockname()[1]}", endpoint=None, timeout=0.2)
        with pytest.raises(Unavailable) as caught:
            await opaque.verify("any")
    assert caught.value.actual == "no complete answer within 0.2 s"


async def test_a_request_that_waits_too_long_names_the_endpoint(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    gate = Gate(issuer)
    with pytest.raises(Unavailable) as caught:
        await verifier(timeout=30, patience=0.1).verify(issuer.issue(JKT))
    assert caught.value.actual == f"{issuer.endpoint}: no answer within 0.1 s"
    gate.open = True


async def test_a_question_has_a_deadline(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    opaque = verifier(timeout=0.2)
    gate = Gate(issuer)
    with pytest.raises(Unavailable) as caught:
        await opaque.verify(issuer.issue(JKT))
    assert caught.value.actual == f"{issuer.endpoint}: no complete answer within 0.2 s"
    gate.open = True


async def test_requests_that_wait_when_the_verifier_closes_are_answered(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(timeout=30), issuer.issue(JKT)
    gate = Gate(issuer)
    waiting = asyncio.create_task(outcome(opaque, token))
    while not gate.under_way:
        await asyncio.sleep(0.005)
    await opaque.aclose()
    assert await waiting == "Unavailable"
    gate.open = True
    assert await outcome(opaque, token) == "active", "it may be used again"


async def test_a_verifier_that_closes_before_its_probe_is_sent_asks_again_when_it_is_used_again(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    issuer.behaves, opaque = answers(503), verifier()
    for number in range(3):
        assert await outcome(opaque, f"token-{number}") == "Unavailable"
    issuer.behaves, token = None, issuer.issue(JKT)
    while not opaque.is_remote(token):
        await asyncio.sleep(0.01)
    closing = asyncio.gather(outcome(opaque, token), opaque.aclose())
    assert (await closing)[0] == "Unavailable"
    assert issuer.asked_about(token) == 0
    assert await outcome(opaque, token) == "active"


def test_a_probe_in_an_event_loop_that_was_left_does_not_keep_the_others_out_for_ever(
    issuer: IssuerOfOpaqueTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = IntrospectionVerifier(
        issuer=issuer.origin,
        audience=API,
        client_authentication=ClientSecretBasic(client_id="api", client_secret="s3cret"),
        endpoint=issuer.endpoint,
        ssl_context=NO_AUTHORITIES,
        patience=0.1,
    )

    async def until_it_is_asked_again() -> list[str]:
        found = [await outcome(opaque, f"token-{number}") for number in range(3)]
        issuer.behaves = gate.behave
        while not opaque.is_remote("probe"):
            await asyncio.sleep(0.01)
        return [*found, await outcome(opaque, "probe")]

    async def in_another_loop() -> str:
        found = await outcome(opaque, issuer.issue(JKT))
        await opaque.aclose()
        return found

    left, gate = asyncio.new_event_loop(), Gate(issuer)
    issuer.behaves = answers(503)
    assert left.run_until_complete(until_it_is_asked_again()) == ["Unavailable"] * 4
    issuer.behaves = None
    assert asyncio.run(in_another_loop()) == "Unavailable", "the probe is under way"
    # Not the clock of the event loops: the issuer's is one of them.
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 62)
    monkeypatch.setattr("dpop_middleware.introspection._questions.time", later)
    assert asyncio.run(in_another_loop()) == "active"
    gate.open = True
    left.run_until_complete(opaque.aclose())
    left.close()


async def test_too_many_questions_at_once_are_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque, known = verifier(active_lifetime=0), issuer.issue(JKT)
    assert await outcome(opaque, known) == "active"
    gate, clock = Gate(issuer, known), LoopClock(monkeypatch)
    made_up = (f"made-up-{number}" for number in range(MAX_QUESTIONS + 16))
    flood = [asyncio.create_task(outcome(opaque, token)) for token in made_up]
    await clock.until(lambda: sum(task.done() for task in flood) == 16)
    assert {task.result() for task in flood if task.done()} == {"Unavailable"}
    assert await outcome(opaque, known) == "active", "known tokens have twice as many places"
    gate.open = True
    # Requests that wait for their turn end.
    clock.now += 1.1
    await asyncio.gather(*flood)


async def test_a_connection_that_the_server_closed_does_not_count_as_a_failure(verifier: Verifier) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while b"\r\n\r\n" not in (data := await reader.read(65536)) and data:
            pass
        asked += 1
        if asked == 2:
            body = b'{"active":false}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        opaque = verifier(endpoint=f"http://127.0.0.1:{port}/introspect")
        assert await outcome(opaque, "made-up") == "InvalidToken"
        assert await outcome(opaque, "another") == "Unavailable", "once more, and that is all"
    assert asked == 4
    await opaque.aclose()
    assert await outcome(opaque, "a-third") == "Unavailable", "no server listens there now"
