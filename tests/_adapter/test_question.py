"""Who is believed to be the gateway, and which request a question is about."""

import json
import logging
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware._adapter.question import RESERVED, NotBelieved, Question, asked
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.forward_auth import ForwardAuth
from tests.support.adapters import ORIGIN, World, scope_of
from tests.support.asgi import call
from tests.support.questions import ASKS, SHARED_SECRET, ask, question

OTHER_SECRET = "the-next-one-that-will-replace-it!"


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PROPFIND", "get"])
async def test_the_original_method_counts_and_not_that_of_the_question(world: World, method: str) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    right, wrong = (world.fields("/notes", method=name) for name in (method, "GET"))
    assert (await ask(app, *question(method), *right)).status == 200
    assert (await ask(app, *question(method), *wrong)).status == 401
    assert (await ask(app, *question(method))).status == 401, "OPTIONS needs credentials too"


async def test_where_the_question_itself_came_decides_nothing(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    mounted = scope_of("/auth/x", [*question(), *world.fields("/notes")], root_path="/auth", method="POST")
    assert (await call(app, mounted, b"a body that nobody reads")).status == 200


NOT_BELIEVED: list[tuple[str, list[tuple[str, str]]]] = [
    ("x-forward-auth-secret is missing", question()[1:]),
    ("x-forward-auth-secret is there several times", [ASKS, *question()]),
    ("x-forward-auth-secret is there several times", [("X-FORWARD-AUTH-SECRET", "guess"), *question()]),
    ("x-forward-auth-secret is wrong", [(ASKS[0], SHARED_SECRET[:-1]), *question()[1:]]),
    ("x-forward-auth-secret is wrong", [(ASKS[0], f"{SHARED_SECRET}, {SHARED_SECRET}"), *question()[1:]]),
    ("x-forward-auth-secret is wrong", [(ASKS[0], ""), *question()[1:]]),
    ("x-forward-auth-secret is wrong", [(ASKS[0], "\xe9" * 34), *question()[1:]]),
    ("x-original-method is missing", question(method=None)),
    ("x-original-method is there several times", [*question(), ("X-Original-Method", "GET")]),
    ("x-original-method is not a method", question(method="")),
    ("x-original-method is not a method", question(method="POST, GET")),
    ("x-original-method is not a method", question(method="GET /notes")),
    ("x-original-uri is missing", question(uri=None)),
    ("x-original-uri is there several times", [("x-original-uri", "/notes"), *question()]),
    ("x-original-uri is not a request target", question(uri="")),
    ("x-original-uri is not a request target", question(uri="/evil, /notes")),
    (
        "x-original-uri is not a request target",
        question(uri="/notes\t")[:-1] + [("X-Original-URI", "/a\x7f")],
    ),
]


@pytest.mark.parametrize(("reason", "fields"), NOT_BELIEVED)
async def test_whoever_is_not_the_gateway_is_not_believed(
    world: World, reason: str, fields: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        answer = await ask(app, *fields, *world.fields("/notes"))
    assert (answer.status, answer.challenges) == (403, [])
    assert json.loads(answer.body) == {"error_description": "only the gateway may ask"}
    assert answer.values("content-length") == [str(len(answer.body))]
    assert [record.getMessage() for record in caplog.records] == [
        f"a question that is not the gateway's: {reason} suppressed=0"
    ]
    assert world.store.asked == 0


PADDING = [("x", "y")] * 256


@pytest.mark.parametrize("before", [0, 200, 510])
@pytest.mark.parametrize("fields", [[ASKS], question()])
async def test_a_gateways_question_with_too_many_fields_is_refused_as_the_request_that_it_is_about(
    world: World, fields: list[tuple[str, str]], before: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    sent = [*[("x", "y")] * before, *fields, *world.fields("/notes"), *PADDING]
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        answer = await ask(app, *sent)
    assert (answer.status, world.store.asked) == (401, 0)
    assert "not the gateway's" not in caplog.text


async def test_a_private_listener_refuses_too_many_fields_as_the_request_that_they_are_about(
    world: World,
) -> None:
    app = ForwardAuth(world.server(), private_listener=True)
    assert (await ask(app, *question()[1:], *world.fields("/notes"), *PADDING)).status == 401


TOO_MANY: list[tuple[str, list[tuple[str, str]]]] = [
    ("missing", [*question()[1:], *PADDING]),
    ("wrong", [(ASKS[0], "x" * 34), *PADDING]),
    ("there several times", [ASKS, *PADDING, ASKS]),
    # The 513th, since the test's request begins with Host.
    ("missing", [*[("x", "y")] * 511, ASKS]),
]


@pytest.mark.parametrize(("reason", "fields"), TOO_MANY)
async def test_whoever_is_not_the_gateway_is_not_believed_with_too_many_fields_either(
    world: World, reason: str, fields: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    events = list[Any]()
    app = ForwardAuth(world.server(on_event=events.append), secret=SHARED_SECRET)
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        answer = await ask(app, *fields)
    assert (answer.status, answer.challenges, events) == (403, [], [])
    assert f"a question that is not the gateway's: x-forward-auth-secret is {reason}" in caplog.text


async def test_a_secret_is_replaced_without_refusing_anybody(world: World) -> None:
    app = ForwardAuth(world.server(), secret=[OTHER_SECRET, SHARED_SECRET])
    for secret in (SHARED_SECRET, OTHER_SECRET):
        fields = [(ASKS[0], secret), *question()[1:], *world.fields("/notes")]
        assert (await ask(app, *fields)).status == 200
    neither = [(ASKS[0], "x" * 32), *question()[1:], *world.fields("/notes")]
    assert (await ask(app, *neither)).status == 403


async def test_a_private_listener_needs_no_secret(world: World) -> None:
    app = ForwardAuth(world.server(), private_listener=True)
    assert (await ask(app, *question()[1:], *world.fields("/notes"))).status == 200
    assert (await ask(app, *question()[1:2], *world.fields("/notes"))).status == 403


@pytest.mark.parametrize(
    ("host", "signed", "status"),
    [
        ("api.example.org", "https://api.example.org/notes", 200),
        ("api.example.test", f"{ORIGIN}/notes", 200),
        ("api.example.org", f"{ORIGIN}/notes", 401),
        ("evil.example", "https://evil.example/notes", 401),
    ],
)
async def test_the_host_selects_one_of_several_urls(
    world: World, host: str, signed: str, status: int
) -> None:
    api = world.server(public_url=[ORIGIN, "https://api.example.org"])
    by_host = ForwardAuth(api, secret=SHARED_SECRET)
    told = ForwardAuth(api, secret=SHARED_SECRET, host_header="X-Forwarded-Host")
    scope = scope_of("/_dpop", [*question(), *world.fields(signed)])
    scope["headers"][0] = (b"host", host.encode())
    assert (await call(by_host, scope)).status == status
    fields = [*question(), *world.fields(signed), ("X-Forwarded-Host", host)]
    assert (await ask(told, *fields)).status == status
    assert (await ask(told, *fields, ("X-Forwarded-Host", host))).status == 403


async def test_a_question_may_have_method_and_uri_itself(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET, method_header=None, uri_header=None)
    scope = scope_of("/notes%2F1", [ASKS, *world.fields("/notes%2F1", method="PUT")], method="PUT")
    assert (await call(app, scope)).status == 200
    forged = scope_of("/admin", [*question(), *world.fields("/notes")])
    assert (await call(app, forged)).status == 401, "fields that this gateway doesn't set decide nothing"


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "ForwardAuth takes secret=..., which the gateway sends too, or else private_listener=True"),
    ({"secret": SHARED_SECRET, "private_listener": True}, "ForwardAuth takes secret=..., which"),
    ({"private_listener": "yes"}, "private_listener takes True or False"),
    ({"secret": "x" * 31}, "secret takes at least 32 characters"),
    ({"secret": "x" * 31 + " "}, "secret takes at least 32 characters"),
    ({"secret": b"x" * 32}, "secret takes at least 32 characters"),
    ({"secret": []}, "secret takes at least 32 characters"),
    ({"secret": [SHARED_SECRET, "short"]}, "secret takes at least 32 characters"),
    ({"secret": SHARED_SECRET, "method_header": None}, "method_header and uri_header are both"),
    ({"secret": SHARED_SECRET, "uri_header": None}, "method_header and uri_header are both"),
    ({"secret": SHARED_SECRET, "uri_header": "X Y"}, "uri_header takes the name of a header field"),
    ({"secret": SHARED_SECRET, "secret_header": None}, "secret_header takes the name of a header field"),
    (
        {"secret": SHARED_SECRET, "uri_header": "x-original-method"},
        "uri_header takes a field that has no other use",
    ),
    ({"secret": SHARED_SECRET, "uri_header": "Host"}, "uri_header takes a field that has no other use"),
    (
        {"secret": SHARED_SECRET, "secret_header": "DPoP"},
        "secret_header takes a field that has no other use",
    ),
    (
        {"secret": SHARED_SECRET, "host_header": "Authorization"},
        "host_header takes a field that has no other use",
    ),
    ({"secret": SHARED_SECRET, "host_header": "a b"}, "host_header takes "),
    ({"secret": SHARED_SECRET, "secret_header": "a b"}, "secret_header takes "),
    ({"secret": SHARED_SECRET, "method_header": "a b"}, "method_header takes "),
    ({"secret": SHARED_SECRET, "uri_header": "a b"}, "uri_header takes "),
]


@pytest.mark.parametrize(("options", "says"), WRONG_OPTIONS)
def test_what_would_not_protect_is_refused_at_the_start(world: World, options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ForwardAuth(world.server(), **options)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "x" * 31 not in str(caught.value)


def asks(**changes: Any) -> Question:
    """How a gateway asks that has only what it must."""
    options: dict[str, Any] = {
        "method_header": "X-Original-Method",
        "uri_header": "X-Original-URI",
        "host_header": "Host",
        "secret_header": "X-Forward-Auth-Secret",
        "secret": SHARED_SECRET,
        "private_listener": False,
        **changes,
    }
    return asked(**options)


def test_the_request_is_the_one_that_the_gateway_tells_of() -> None:
    fields = [*question("PUT", "/a%2Fb?x=1?y"), ("DPoP", "proof"), ("Authorization", "DPoP token")]
    request = asks().request(scope_of("/_dpop/x", fields, root_path="/_dpop", method="POST"))
    assert (request.method, request.raw_path, request.root_path) == ("PUT", "/a%2Fb", "")
    assert (request.hosts, request.authorization, request.dpop) == (
        ("api.example.test",),
        ("DPoP token",),
        ("proof",),
    )


def test_without_these_fields_the_request_is_the_question_itself() -> None:
    itself = asks(method_header=None, uri_header=None)
    scope = scope_of("/v1/notes?x", [ASKS, ("X-Original-URI", "/admin")], root_path="/v1", method="PUT")
    request = itself.request(scope)
    assert (request.method, request.raw_path, request.root_path) == ("PUT", "/v1/notes", "/v1")


def test_the_host_is_the_one_that_the_gateway_tells_where_it_tells_one() -> None:
    told = asks(host_header="X-Forwarded-Host")
    request = told.request(scope_of("/", [*question(), ("x-FORWARDED-host", " api.example.org ")]))
    assert request.hosts == ("api.example.org",)
    with pytest.raises(NotBelieved, match="x-forwarded-host is missing"):
        told.request(scope_of("/", question()))


def test_octets_beyond_ascii_in_a_uri_are_kept_as_they_came() -> None:
    assert asks().request(scope_of("/", question(uri="/\x80\xff"))).raw_path == "/\x80\xff"


@pytest.mark.parametrize("presented", [f" {SHARED_SECRET}", f"{SHARED_SECRET}\t", f"\t {SHARED_SECRET} "])
def test_blanks_around_a_field_are_no_part_of_it(presented: str) -> None:
    assert asks().request(scope_of("/", [(ASKS[0], presented), *question()[1:]])).method == "GET"


@pytest.mark.parametrize("presented", [f"{SHARED_SECRET}\v", f"\f{SHARED_SECRET}", f"{SHARED_SECRET}\x85"])
def test_what_is_no_blank_in_a_field_is_a_part_of_it(presented: str) -> None:
    with pytest.raises(NotBelieved, match="x-forward-auth-secret is wrong"):
        asks().request(scope_of("/", [(ASKS[0], presented), *question()[1:]]))


def test_nothing_else_is_looked_at_where_the_secret_is_wrong() -> None:
    with pytest.raises(NotBelieved, match="x-forward-auth-secret is wrong"):
        asks().request(scope_of("/", [(ASKS[0], "guess")]))


def test_why_somebody_is_not_believed_quotes_nothing_of_what_they_sent() -> None:
    guess = "a guess that is nobody's secret"
    for fields in (
        [(ASKS[0], guess), *question()[1:]],
        question(method=guess),
        question(uri=f"/{guess}"),
    ):
        with pytest.raises(NotBelieved) as caught:
            asks().request(scope_of("/", fields))
        assert "guess" not in str(caught.value)


def told(name: bytes, good: bytes) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """Header lines of one name, mostly one that is good."""
    values = st.just([good]) | st.lists(st.just(good) | st.binary(max_size=20), max_size=2)
    return values.map(lambda several: [(name, value) for value in several])


@given(
    secret=told(b"x-forward-auth-secret", SHARED_SECRET.encode()),
    method=told(b"X-Original-Method", b"PUT"),
    uri=told(b"x-original-URI", b"/notes?x"),
)
def test_a_question_tells_of_a_request_or_is_not_believed(
    secret: list[tuple[bytes, bytes]], method: list[tuple[bytes, bytes]], uri: list[tuple[bytes, bytes]]
) -> None:
    try:
        request = asks().request(scope_of("/", headers=[*uri, *secret, *method]))
    except NotBelieved:
        return
    assert (len(secret), len(method), len(uri)) == (1, 1, 1)
    assert secret[0][1].strip(b" \t") == SHARED_SECRET.encode()
    assert request.method.isascii()
    assert set(request.method + request.raw_path).isdisjoint(" \t\r\n\0?")


def test_how_a_gateway_asks_shows_no_secret_and_does_not_change() -> None:
    question = asks(secret=[SHARED_SECRET, OTHER_SECRET])
    assert question.secrets == (SHARED_SECRET.encode(), OTHER_SECRET.encode())
    assert SHARED_SECRET not in repr(question)
    with pytest.raises(FrozenInstanceError):
        question.secrets = ()  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_names_of_fields_are_kept_in_lower_case() -> None:
    named = asks(method_header="X-Method", uri_header="X-URI", host_header="X-Host", secret_header="X-Key")
    assert (named.method_header, named.uri_header) == ("x-method", "x-uri")
    assert (named.host_header, named.secret_header) == ("x-host", "x-key")


@pytest.mark.parametrize("option", ["method_header", "uri_header", "host_header", "secret_header"])
@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_field_of_the_request_tells_anything_of_it(option: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} takes a field that has no other use, not "):
        asks(**{option: name.title()})


@pytest.mark.parametrize("option", ["method_header", "uri_header", "secret_header"])
@pytest.mark.parametrize("host_header", ["Host", "X-Host"])
def test_only_the_host_is_told_by_host(option: str, host_header: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} takes a field that has no other use, not 'host'"):
        asks(**{"host_header": host_header, option: "HOST"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("host_header", "secret_header"),
        ("host_header", "method_header"),
        ("host_header", "uri_header"),
        ("secret_header", "method_header"),
        ("secret_header", "uri_header"),
        ("method_header", "uri_header"),
    ],
)
def test_no_two_things_are_told_by_one_field(one: str, other: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{other} takes a field that has no other use, not 'x-told'"
    ):
        asks(**{one: "X-Told", other: "x-told"})


@pytest.mark.parametrize("secret", ["!" * 32, "~" * 32, ["!" * 32], ("~" * 32, "!" * 33)])
def test_a_secret_of_32_visible_characters_will_do(secret: Any) -> None:
    expected = (secret,) if isinstance(secret, str) else tuple(secret)
    assert asks(secret=secret).secrets == tuple(one.encode() for one in expected)


@pytest.mark.parametrize(
    "secret", ["", "x" * 31, "x" * 32 + "\n", "\x7f" * 32, "é" * 32, 7, (), {"x" * 32}, ["x" * 32, b"x" * 32]]
)
def test_what_anybody_could_guess_or_no_field_can_hold_is_no_secret(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="secret takes at least 32 characters of visible ASCII"):
        asks(secret=secret)


def test_without_a_secret_nothing_is_proved() -> None:
    private = asks(secret=None, private_listener=True)
    assert private.secrets == ()
    assert private.request(scope_of("/", question()[1:])).method == "GET"
