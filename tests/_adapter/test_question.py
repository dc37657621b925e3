"""Who is believed to be the gateway, and which request a question is about."""

import json
import logging
from typing import Any

import pytest

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
    ("x-original-method is no method", question(method="")),
    ("x-original-method is no method", question(method="POST, GET")),
    ("x-original-method is no method", question(method="GET /notes")),
    ("x-original-uri is missing", question(uri=None)),
    ("x-original-uri is there several times", [("x-original-uri", "/notes"), *question()]),
    ("x-original-uri is no request target", question(uri="")),
    ("x-original-uri is no request target", question(uri="/evil, /notes")),
    ("x-original-uri is no request target", question(uri="/notes\t")[:-1] + [("X-Original-URI", "/a\x7f")]),
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
        "uri_header takes a field that tells nothing",
    ),
    ({"secret": SHARED_SECRET, "uri_header": "Host"}, "uri_header takes a field that tells nothing else"),
    (
        {"secret": SHARED_SECRET, "secret_header": "DPoP"},
        "secret_header takes a field that tells nothing else",
    ),
    (
        {"secret": SHARED_SECRET, "host_header": "Authorization"},
        "host_header takes a field that tells nothing",
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
