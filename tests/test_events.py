"""One event for each decision, and a log that neither leaks nor floods."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from dpop_middleware import errors
from dpop_middleware.checks import Check
from dpop_middleware.events import AuthenticationEvent, Reporter, hint_for
from dpop_middleware.replay.redis.resp import ServerError
from tests.support.api import Api, edited, request


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dpop_middleware")


def report(reporter: Reporter, error: errors.DPoPError, **changes: Any) -> None:
    reporter.failed(error, request(**changes), duration=0.001)


async def refusal(api: Api, *args: Any, **kwargs: Any) -> errors.DPoPError:
    with pytest.raises(errors.DPoPError) as caught:
        await api.server.authenticate(*args, **kwargs)
    return caught.value


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record that a formatter for structured logs finds, other than the message."""
    return {
        name.removeprefix("dpop_"): value for name, value in vars(record).items() if name.startswith("dpop_")
    }


async def test_an_accepted_request_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    begun = time.perf_counter()
    await api.server.authenticate(api.request(raw_path="/notes"))
    (event,) = api.events
    assert 0 < event.duration <= time.perf_counter() - begun
    assert event == AuthenticationEvent(
        outcome="accepted",
        check=None,
        reason="every check passed",
        error=None,
        status=None,
        scheme="DPoP",
        method="GET",
        path="/notes",
        jkt=api.key.jkt,
        client_id="my_client",
        duration=event.duration,
        expected=None,
        actual=None,
        hint=None,
        issuer="https://auth.example.test",
        actor=None,
        subject="user123",
        proof_age=0.0,
        clock_offset=0.0,
    )
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dpop_middleware", "DEBUG")
    assert fields_of(record) == {"outcome": "accepted", "scheme": "DPoP", "duration": event.duration}


async def test_a_refused_request_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    await refusal(api, api.request(method="POST"))
    (event,) = api.events
    assert (event.outcome, event.check, event.error, event.status) == (
        "refused",
        Check.HTM,
        "invalid_dpop_proof",
        401,
    )
    assert (event.scheme, event.expected, event.actual) == ("DPoP", "POST", "GET")
    assert (event.jkt, event.client_id) == (api.key.jkt, "my_client")
    (record,) = caplog.records
    assert record.levelname == "INFO"
    message = record.getMessage()
    assert message.startswith(
        "refused: check=htm error=invalid_dpop_proof status=401 scheme=DPoP method='POST'"
    )
    assert "client_id='my_client'" in message
    assert "expected='POST' actual='GET'" in message


async def test_a_record_of_the_log_has_every_field_of_its_line(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    await refusal(api, api.request(method="POST"))
    (event,), (record,) = api.events, caplog.records
    fields = fields_of(record)
    assert fields == {
        "outcome": "refused",
        "check": "htm",
        "error": "invalid_dpop_proof",
        "status": 401,
        "scheme": "DPoP",
        "method": "POST",
        "path": "/notes",
        "client_id": "my_client",
        "reason": "the htm of the DPoP proof is not the method of the request",
        "expected": "POST",
        "actual": "GET",
        "hint": None,
        "duration": event.duration,
        "cause": None,
        "suppressed": 0,
    }
    in_the_line = {part.partition("=")[0] for part in record.getMessage().split() if "=" in part}
    assert in_the_line <= set(fields)


def test_fields_of_a_record_are_escaped_and_cut_as_its_line_is(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(None)
    error = errors.InvalidDPoPProof("no", check=Check.IAT, expected=(HOSTILE, 1), actual=HOSTILE * 100)
    report(reporter, error, method=HOSTILE, raw_path="'quoted'")
    for number in (10**400, float("nan"), float("inf"), 2**53):
        report(reporter, errors.InvalidDPoPProof("no", check=Check.IAT, actual=number))
    fields = [fields_of(record) for record in caplog.records]
    texts = [value for each in fields for value in each.values() if isinstance(value, str)]
    assert all(text.isascii() and text.isprintable() and len(text) < 220 for text in texts)
    assert fields[0]["path"] == "'quoted'"
    assert str(fields[0]["method"]).startswith("x\\n2026-01-01")
    assert str(fields[0]["actual"]).endswith("...(cut)")
    assert [str(each["actual"])[:4] for each in fields[1:4]] == ["1000", "nan", "inf"]
    assert fields[4]["actual"] == 2**53


async def test_an_unknown_verdict_names_its_cause_in_the_record(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(None)
    report(reporter, outage(ServerError("OOM command not allowed")))
    fields = fields_of(caplog.records[0])
    assert (fields["outcome"], fields["cause"], fields["status"]) == (
        "unavailable",
        "ServerError('OOM')",
        503,
    )


async def test_an_event_tells_how_old_the_proof_is_and_how_far_the_clock_is_off() -> None:
    api = Api(nonce="fallback")
    await api.server.authenticate(api.request(api.proof(at=-40)))
    await api.server.authenticate(api.request(api.proof(at=20)))
    nonce = api.server_nonces.issue(api.clock.now)
    api.clock.now += 7
    await api.server.authenticate(api.request(api.proof(at=3600, nonce=nonce)))
    told = [(event.proof_age, event.clock_offset) for event in api.events]
    issued = api.server_nonces.check(nonce, api.clock.now)
    assert issued is not None
    assert told == [(40, -40), (0, 20), (api.clock.now - issued.issued_at, 3600)]
    assert 7 <= api.clock.now - issued.issued_at < 3600


async def test_a_nonce_that_nobody_asks_for_makes_a_proof_no_younger() -> None:
    api = Api()
    nonce = api.server_nonces.issue(api.clock.now)
    await api.server.authenticate(api.request(api.proof(at=-30, nonce=nonce)))
    assert [event.proof_age for event in api.events] == [30]


async def test_a_bearer_token_has_no_proof_whose_age_could_be_told() -> None:
    api = Api(accept_bearer=True)
    await api.server.authenticate(request(api.tokens.issue(), scheme="Bearer"))
    told = [(event.scheme, event.proof_age, event.clock_offset) for event in api.events]
    assert told == [("Bearer", None, None)]


async def test_a_refusal_after_the_token_names_the_client() -> None:
    api = Api()
    await refusal(api, api.request(), scopes=["notes:write"])
    (event,) = api.events
    assert (event.check, event.status, event.jkt, event.client_id) == (
        Check.SCOPE,
        403,
        api.key.jkt,
        "my_client",
    )
    assert event.subject == "user123"
    assert event.expected == ("notes:write",)
    assert event.actual == ("notes:read",)


async def test_an_unknown_verdict_is_a_warning_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.store.answer = ConnectionError("nobody there")
    await refusal(api, api.request())
    (event,) = api.events
    assert (event.outcome, event.check, event.status, event.actual) == (
        "unavailable",
        Check.JTI,
        503,
        "ConnectionError",
    )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is not None
    assert "nobody there" in caplog.text


async def test_a_request_without_credentials_is_an_event() -> None:
    api = Api()
    await refusal(api, request())
    (event,) = api.events
    assert (event.check, event.error, event.status, event.scheme) == (Check.AUTHORIZATION, None, 401, None)


async def test_an_exception_of_the_listener_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def faulty(event: AuthenticationEvent) -> None:
        raise RuntimeError("the metrics are down")

    api = Api(on_event=faulty)
    await api.server.authenticate(api.request())
    assert isinstance(await refusal(api, request()), errors.MissingCredentials)
    assert caplog.text.count("on_event raised RuntimeError: suppressed=0") == 2
    assert caplog.text.count("RuntimeError: the metrics are down") == 1


def test_a_faulty_listener_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def faulty(event: AuthenticationEvent) -> None:
        raise RuntimeError

    reporter = Reporter(faulty)
    for _ in range(200):
        report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    raised = [record for record in caplog.records if record.getMessage().startswith("on_event raised")]
    assert 10 <= len(raised) <= 20


def test_an_asynchronous_listener_would_never_run() -> None:
    async def sink(event: AuthenticationEvent) -> None: ...

    class Sink:
        async def __call__(self, event: AuthenticationEvent) -> None: ...

    for wrong in (sink, Sink(), "print", 1):
        with pytest.raises(errors.ConfigurationError, match="on_event takes a synchronous function"):
            Reporter(wrong)  # type: ignore[arg-type]


def test_without_a_listener_nothing_is_called(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(None)
    assert reporter.wants_acceptance
    caplog.set_level(logging.ERROR, "dpop_middleware")
    assert not reporter.wants_acceptance
    report(reporter, errors.Unavailable("no"))
    assert not caplog.records
    caplog.set_level(logging.WARNING, "dpop_middleware")
    report(reporter, errors.InvalidToken("no"))
    report(reporter, errors.Unavailable("no"))
    report(reporter, errors.InvalidToken("no"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


HOW = "give the logger 'dpop_middleware' a handler and the level INFO"


def test_the_first_refusal_of_each_kind_is_seen_where_servers_show_no_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "dpop_middleware")
    reporter = Reporter(None)
    for _ in range(10):
        report(reporter, errors.MissingCredentials("an access token is required", check=Check.AUTHORIZATION))
        report(reporter, errors.UseDPoPNonce("the DPoP proof needs a nonce", nonce="n"))
        report(reporter, errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
        report(reporter, errors.InvalidToken("the access token has expired", check=Check.TOKEN_TIME))
    lines = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "check=jti" in lines[0]
    assert "each request needs a new proof" in lines[0]
    assert "check=token_time" in lines[1]
    assert all(HOW in line for line in lines)


def test_where_info_is_shown_nothing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dpop_middleware")
    report(Reporter(None), errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert HOW not in record.getMessage()


def test_info_without_a_handler_is_seen_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only Python's handler of last resort, as under uvicorn and gunicorn, which shows warnings only.
    logger = logging.getLogger("dpop_middleware")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [])
    shown: list[str] = []
    monkeypatch.setattr(logging.lastResort, "emit", lambda record: shown.append(record.getMessage()))
    reporter = Reporter(None)
    for _ in range(10):
        report(reporter, errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
    assert len(shown) == 1
    assert HOW in shown[0]


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_only_a_handler_that_shows_info_counts(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(record.levelname)

    shown: list[str] = []
    logger = logging.getLogger("dpop_middleware")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler(), Handler(level)])
    reporter = Reporter(None)
    for _ in range(3):
        report(reporter, errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
    assert shown == (["WARNING"] if level == logging.WARNING else ["INFO"] * 3)


def test_the_listener_gets_events_that_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "dpop_middleware")
    events: list[AuthenticationEvent] = []
    reporter = Reporter(events.append)
    assert reporter.wants_acceptance
    report(reporter, errors.InvalidToken("no"))
    assert [event.reason for event in events] == ["no"]
    assert not caplog.records


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("dpop_middleware.events.time.monotonic", lambda: now[0])

    def move(by: float) -> None:
        now[0] += by

    return move


def test_each_check_may_log_ten_lines_a_second(
    caplog: pytest.LogCaptureFixture, seconds: Callable[[float], None]
) -> None:
    events: list[AuthenticationEvent] = []
    reporter = Reporter(events.append)
    for _ in range(25):
        report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    report(reporter, errors.InvalidDPoPProof("no", check=Check.HTU))
    assert len(caplog.records) == 11
    seconds(1)
    report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    assert [record.getMessage().rpartition("=")[2] for record in caplog.records[-3:]] == ["0", "15", "0"]
    assert len(events) == 28, "on_event is told of every decision"


def test_the_cause_of_at_most_ten_refusals_a_second_by_each_check_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: Callable[[float], None]
) -> None:
    """A hint may take longer than the refusal, which strangers can cause."""
    asked: list[Check | None] = []

    def hint_of(error: errors.DPoPError, _request: object) -> str:
        asked.append(error.check)
        return "a likely cause"

    monkeypatch.setattr("dpop_middleware.events.hint_of", hint_of)
    events: list[AuthenticationEvent] = []
    for level, reporter in (
        (logging.ERROR, Reporter(events.append)),
        (logging.INFO, Reporter(events.append)),
        (logging.INFO, Reporter(None)),
    ):
        caplog.set_level(level, "dpop_middleware")
        asked.clear()
        for _ in range(25):
            report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
        report(reporter, errors.InvalidDPoPProof("no", check=Check.HTU))
        assert asked == [Check.HTM] * 10 + [Check.HTU]
        seconds(1)
        report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
        assert asked[-1] is Check.HTM
    hints = ["a likely cause"] * 10 + [None] * 15 + ["a likely cause"] * 2
    assert [event.hint for event in events] == hints * 2


def test_no_line_counts_as_left_out_while_none_are_shown(
    caplog: pytest.LogCaptureFixture, seconds: Callable[[float], None]
) -> None:
    """A listener is told of all, and only ten a second have a hint; the log starts later."""
    reporter = Reporter(lambda _: None)
    caplog.set_level(logging.ERROR, "dpop_middleware")
    for _ in range(25):
        report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    caplog.set_level(logging.INFO, "dpop_middleware")
    seconds(1)
    report(reporter, errors.InvalidDPoPProof("no", check=Check.HTM))
    (record,) = caplog.records
    assert fields_of(record)["suppressed"] == 0


def test_a_flood_of_refusals_hides_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(None)
    for _ in range(50):
        report(reporter, errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
    report(reporter, errors.Unavailable("the replay store can't be asked now", check=Check.JTI))
    assert caplog.records[-1].levelname == "WARNING"


def test_an_outage_hides_no_first_refusal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dpop_middleware")
    reporter = Reporter(None)
    for _ in range(50):
        report(reporter, errors.Unavailable("the replay store can't be asked now", check=Check.JTI))
    report(reporter, errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI))
    assert HOW in caplog.records[-1].getMessage()


def outage(cause: Exception) -> errors.Unavailable:
    error = errors.Unavailable("the replay store can't be asked now", check=Check.JTI)
    error.__cause__ = cause
    return error


def test_a_long_outage_has_one_traceback_a_minute_for_each_cause(
    caplog: pytest.LogCaptureFixture, seconds: Callable[[float], None]
) -> None:
    reporter = Reporter(None)
    for _ in range(20):
        report(reporter, outage(ConnectionError("nobody there")))
    report(reporter, outage(TimeoutError()))
    seconds(1)
    report(reporter, outage(ConnectionError("nobody there")))
    report(reporter, outage(TimeoutError()))
    assert [record.exc_info is not None for record in caplog.records] == [True, *[False] * 10, True]
    caplog.clear()
    seconds(58.9)
    report(reporter, outage(ConnectionError("nobody there")))
    seconds(0.2)
    report(reporter, outage(ConnectionError("nobody there")))
    assert [record.exc_info is not None for record in caplog.records] == [False, True]


def test_causes_of_other_classes_and_other_checks_have_tracebacks_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reporter = Reporter(None)
    keys = errors.Unavailable("the issuer's keys can't be had now", check=Check.TOKEN_KEY)
    keys.__cause__ = ConnectionError()
    for error in (outage(ConnectionError()), outage(TimeoutError()), keys, outage(TimeoutError())):
        report(reporter, error)
    assert [record.exc_info is not None for record in caplog.records] == [True, True, True, False]


def test_each_line_names_the_class_of_the_cause_and_the_code_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reporter = Reporter(None)
    for _ in range(2):
        report(reporter, outage(ConnectionError("nobody there")))
        report(reporter, outage(ServerError("OOM command not allowed")))
        report(reporter, outage(ServerError("\x1b[2J\n forged")))
        report(reporter, errors.Unavailable("no", check=Check.JTI))
    told = [record.getMessage().partition(" hint=")[2] for record in caplog.records]
    assert told[4:] == [
        "None cause=ConnectionError suppressed=0",
        "None cause=ServerError('OOM') suppressed=0",
        "None cause=ServerError('\\x1b[2J\\n') suppressed=0",
        "None suppressed=0",
    ]


HOSTILE = 'x\n2026-01-01 ERROR forged\r\n\x1b[31m\x00"\u202e\U0001f600'


def test_the_log_is_escaped_and_cut(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(None)
    error = errors.InvalidDPoPProof("no", check=Check.HTM, expected=HOSTILE, actual=HOSTILE * 100)
    report(reporter, error, method=HOSTILE, raw_path=HOSTILE)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 1500
    assert "...(cut)" in line


async def test_neither_token_nor_proof_is_ever_told(caplog: pytest.LogCaptureFixture) -> None:
    api = Api(
        accept_bearer=True, nonce="fallback", public_url=("https://a.example.test", "https://b.example.test")
    )
    secret = "s3cr3t-access-token-68"
    api.tokens.issue(api.key.jkt, name=secret)
    unbound = api.tokens.issue(name="s3cr3t-unbound")
    failing = api.tokens.issue(api.key.jkt, name="s3cr3t-failing")
    api.tokens.known[failing] = ValueError(f"can't read {failing}")
    url = "https://a.example.test/notes"
    host = ("a.example.test",)
    good = api.key.proof("GET", url, access_token=secret, now=api.clock.now)
    attempts = [
        request(secret, good, hosts=host),
        request(secret, good, hosts=host),
        request(secret, good, hosts=("evil.example.test",)),
        request(secret, good, good),
        request(secret, good + "x", hosts=host),
        request(secret, f"{good}.{good}", hosts=host),
        request(secret, "x" + good, hosts=host),
        request(secret, good[::-1], hosts=host),
        request(secret, good[:-1], hosts=host),
        request(secret, good, method="PUT", hosts=host),
        request(secret, good, raw_path="/other", hosts=host),
        request(secret, good, raw_path="/../notes", hosts=host),
        request(secret, f"{secret}.{secret}.{secret}", hosts=host),
        request(secret, scheme="Bearer"),
        request(unbound, good, hosts=host),
        request(secret + "\n", good),
        request(secret + " " + secret, good),
        request("s3cr3t-unknown", good),
        request("s3cr3t" * 4000, good),
        request(secret, "s3cr3t" * 4000),
        request(secret, edited(api.key, good, iat=1), hosts=host),
        request(secret, edited(api.key, good, ath=secret), hosts=host),
        request(secret, edited(api.key, good, jti=["a"]), hosts=host),
        request(failing, good, hosts=host),
        request(failing, scheme="Bearer"),
    ]  # fmt: skip
    for attempt in attempts:
        try:
            await api.server.authenticate(attempt)
        except errors.DPoPError as error:
            assert secret not in str(api.server.error_response(error))
    assert len(api.events) == len(attempts)
    assert [event.outcome for event in api.events].count("accepted") == 1
    told = caplog.text + repr(api.events) + repr([record.getMessage() for record in caplog.records])
    assert "s3cr3t" not in told
    for part in good.split("."):
        assert part not in told


def test_a_hint_can_be_asked_for_where_there_is_no_event() -> None:
    error = errors.InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI)
    assert "each request needs a new proof" in str(hint_for(error))
    assert hint_for(errors.MissingCredentials("an access token is required")) is None


async def test_an_event_names_the_issuer_and_who_acts() -> None:
    api = Api()
    act = {"sub": "service16", "iss": "https://b.example.com", "act": {"sub": "service77"}}
    api.token = api.tokens.issue(api.key.jkt, scopes=["notes:read"], act=act)
    verified = await api.server.authenticate(api.request())
    assert verified.issuer == "https://auth.example.test"
    await refusal(api, api.request(method="POST"))
    await refusal(api, api.request(), scopes=("notes:write",))
    await refusal(api, request("unknown", api.proof()))
    told = [(event.outcome, event.issuer, event.actor) for event in api.events]
    known = ("https://auth.example.test", "https://b.example.com service16")
    assert told == [
        ("accepted", *known), ("refused", *known), ("refused", *known), ("refused", None, None)
    ]  # fmt: skip
