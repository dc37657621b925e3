"""A gateway's questions: what is judged, and the answers."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from dpop_middleware import (
    DPoPMiddleware,
    DPoPPolicy,
    MemoryReplayStore,
    MultiIssuerVerifier,
    ResourceMetadata,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.forward_auth import IDENTITY_HEADERS, ForwardAuth
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import ORIGIN, World, reached, scope_of
from tests.support.api import Api
from tests.support.asgi import Answer, call
from tests.support.questions import SHARED_SECRET, ask, question


@pytest.fixture
def world() -> World:
    return World()


async def verdict(world: World, *, uri: str = "/notes", signed: str | None = None, **options: Any) -> Answer:
    """The answer about a request for `uri`, with a proof for `signed`."""
    app = ForwardAuth(world.server(), secret=SHARED_SECRET, **options)
    return await ask(app, *question(uri=uri), *world.fields(uri if signed is None else signed))


async def test_an_acceptance_tells_who_asks(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    answer = await ask(app, *question(), *world.fields("/notes", scopes=["notes:write", "notes:read"]))
    assert (answer.status, answer.body) == (200, b"")
    told = {name.lower(): answer.values(name.lower()) for name in IDENTITY_HEADERS}
    assert told == {
        "x-auth-identity": ["user123"],
        "x-auth-client-id": ["my_client"],
        "x-auth-issuer": [world.issuer.issuer],
        "x-auth-scope": ["notes:read notes:write"],
    }
    assert answer.values("cache-control") == ["no-store"]


async def test_a_field_without_a_value_is_there_and_empty(world: World) -> None:
    api, names = Api(scopes=()), {"X-Subject": "subject", "X-Scope": "scope", "X-JKT": "jkt"}
    api.tokens.known[api.token] = replace(api.tokens.known[api.token], subject=None)
    app = ForwardAuth(api.server, secret=SHARED_SECRET, identity_headers=names)  # type: ignore[arg-type]
    fields = [("Authorization", f"DPoP {api.token}"), ("DPoP", api.proof())]
    answer = await ask(app, *question(), *fields)
    assert [answer.values(name) for name in ("x-subject", "x-scope", "x-jkt")] == [[""], [""], [api.key.jkt]]
    policy = DPoPPolicy(accept_bearer=True)
    bearer = ForwardAuth(
        world.server(policy=policy),
        secret=SHARED_SECRET,
        identity_headers=names,  # type: ignore[arg-type]
    )
    answer = await ask(bearer, *question(), ("Authorization", f"Bearer {world.issuer.token()}"))
    assert (answer.status, answer.values("x-jkt")) == (200, [""])


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("ann smith", "ann%20smith"),
        ("ann\r\nX-Auth-Scope: admin", "ann%0D%0AX-Auth-Scope:%20admin"),
        ("50%", "50%25"),
        ("jürgen", "j%C3%BCrgen"),
        ("\ud800", "%ED%A0%80"),
        ('a,b;c="d"', 'a,b;c="d"'),
    ],
)
async def test_a_name_that_no_field_can_hold_is_percent_encoded(subject: str, told: str) -> None:
    api = Api()
    api.tokens.known[api.token] = replace(api.tokens.known[api.token], subject=subject)
    app = ForwardAuth(api.server, secret=SHARED_SECRET)
    answer = await ask(app, *question(), ("Authorization", f"DPoP {api.token}"), ("DPoP", api.proof()))
    assert (answer.status, answer.values("x-auth-identity")) == (200, [told])


async def test_of_several_issuers_the_identity_names_one() -> None:
    world, other = World(), TestIssuer("https://partner.example.test")
    other.clock = world.clock
    both = [
        one.profile.verifier(issuer=one.issuer, audience=(ORIGIN,), jwks=one.jwks(), clock=world.clock)
        for one in (world.issuer, other)
    ]
    api = world.server(verifier=MultiIssuerVerifier(both), issuer=None, jwks=None)
    app = ForwardAuth(api, secret=SHARED_SECRET)
    token = other.token(sub="ann", audience=ORIGIN, jkt=world.key.jkt)
    answer = await ask(app, *question(), *world.fields("/notes", token=token))
    assert answer.values("x-auth-identity") == ["https://partner.example.test%20ann"]


async def test_a_request_passes_once(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    fields = world.fields("/notes")
    assert [(await ask(app, *question(), *fields)).status for _ in range(2)] == [200, 401]


@pytest.mark.parametrize(
    "uri", ["/notes?a=1", "/notes%2F1", "/", "/a//b", "/a;b", "/%C3%A9", "/a@b?/../x", "/a,b"]
)
async def test_the_original_uri_is_judged_as_it_was_sent(world: World, uri: str) -> None:
    assert (await verdict(world, uri=uri)).status == 200


@pytest.mark.parametrize(
    ("uri", "signed"),
    [
        ("/admin", "/notes"),
        ("/notes/../admin", "/admin"),
        ("/notes/%2e%2e/admin", "/admin"),
        ("/notes/..%2fadmin", "/admin"),
        ("/notes%2F1", "/notes/1"),
        ("/admin#/notes", "/notes"),
        ("/notes#x", "/notes"),
        ("/notes\\..\\admin", "/admin"),
        ("https://evil.example/notes", "/notes"),
        ("http://api.example.test/notes", "/notes"),
        ("//evil.example/notes", "/notes"),
        ("notes", "/notes"),
        ("*", "/"),
        ("?x=/notes", "/"),
        ("/notes/%", "/notes/%25"),
        ("/_dpop", "/notes"),
    ],
)
async def test_a_proof_for_another_reading_of_the_uri_does_not_pass(
    world: World, uri: str, signed: str
) -> None:
    answer = await verdict(world, uri=uri, signed=signed)
    assert answer.status == 401
    assert len(answer.challenges) == 1
    assert world.store.asked == 0


async def test_a_uri_in_absolute_form_is_that_of_an_own_host(world: World) -> None:
    assert (await verdict(world, uri=f"{ORIGIN}/notes?x=1", signed="/notes")).status == 200


async def test_a_flood_of_wrong_questions_is_none_of_log_lines(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        for _ in range(100):
            assert (await ask(app)).status == 403
    assert len(caplog.records) < 50
    assert SHARED_SECRET not in caplog.text


def test_the_secret_shows_nowhere(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    assert SHARED_SECRET not in repr(app) + repr(vars(app))


async def test_without_credentials_the_challenge_is_passed_on(world: World) -> None:
    app = ForwardAuth(
        world.server(policy=DPoPPolicy(accept_bearer=True), metadata=ResourceMetadata()), secret=SHARED_SECRET
    )
    answer = await ask(app, *question())
    assert answer.status == 401
    (challenge,) = answer.challenges
    schemes = [part.split()[0] for part in challenge.split(", ") if part.split("=")[0].count(" ")]
    assert schemes == ["Bearer", "DPoP"]
    assert challenge.count("resource_metadata=") == 2


async def test_of_several_hosts_the_one_that_was_asked_serves_its_metadata(world: World) -> None:
    other = "https://api.example.org"
    api = world.server(
        public_url=[ORIGIN, other], audience=[ORIGIN, other], metadata=ResourceMetadata(), resource=ORIGIN
    )
    app = ForwardAuth(api, secret=SHARED_SECRET, host_header="X-Forwarded-Host")
    answer = await ask(app, *question(), ("X-Forwarded-Host", "api.example.org"))
    assert f'resource_metadata="{other}/.well-known/oauth-protected-resource"' in answer.challenges[0]


@pytest.mark.parametrize(
    ("status", "error", "fields"),
    [
        (401, "invalid_request", [("Authorization", "DPoP ")]),
        (401, "invalid_request", [("Authorization", "DPoP a"), ("Authorization", "DPoP b")]),
        (401, "invalid_token", [("Authorization", "DPoP a.b.c"), ("DPoP", "a.b.c")]),
        (401, "invalid_request", [(f"X-{number}", "") for number in range(300)]),
    ],
)
async def test_no_status_but_401_and_403_refuses(
    world: World, status: int, error: str, fields: list[tuple[str, str]]
) -> None:
    answer = await ask(ForwardAuth(world.server(), secret=SHARED_SECRET), *question(), *fields)
    assert answer.status == status
    assert f'error="{error}"' in answer.challenges[0]
    assert json.loads(answer.body)["error"] == error


async def test_a_second_dpop_field_is_refused(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    answer = await ask(app, *question(), *world.fields("/notes"), world.fields("/notes")[1])
    assert (answer.status, world.store.asked) == (401, 0)


async def test_a_missing_scope_is_403_with_its_challenge(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET, scopes=["notes:write"])
    refused = await ask(app, *question(), *world.fields("/notes"))
    assert refused.status == 403
    assert 'error="insufficient_scope"' in refused.challenges[0]
    assert (await ask(app, *question(), *world.fields("/notes", scopes=["notes:write"]))).status == 200


async def test_each_mount_of_an_application_asks_for_scopes_of_its_own(world: World) -> None:
    api = world.server()
    mounts = [
        Mount(f"/{scope}", ForwardAuth(api, secret=SHARED_SECRET, scopes=[scope]))
        for scope in ("read", "write")
    ]
    app = Starlette(routes=mounts)
    for scope, status in (("read", 403), ("write", 200)):
        fields = [*question(), *world.fields("/notes", scopes=[scope])]
        assert (await call(app, scope_of("/write/", fields))).status == status
    assert (await call(app, scope_of("/write", question()))).status == 307, "hence the slash in the chapter"


async def test_claims_and_one_of_several_scopes_can_be_asked_for(world: World) -> None:
    app = ForwardAuth(
        world.server(),
        secret=SHARED_SECRET,
        any_of=["a", "b"],
        claims={"role": lambda role: role == "editor"},
    )
    for scopes, role, status in ((["b"], "editor", 200), (["c"], "editor", 403), (["a"], "reader", 403)):
        answer = await ask(app, *question(), *world.fields("/notes", scopes=scopes, role=role))
        assert answer.status == status


class Broken(MemoryReplayStore):
    async def add(self, entry: Any) -> bool:
        raise Unavailable("the store is down", retry_after=7)


@pytest.mark.parametrize("status", [403, 503])
async def test_an_unknown_verdict_is_no_500_at_any_gateway(world: World, status: Any) -> None:
    api = world.server(replay_store=Broken())
    options = {} if status == 403 else {"unavailable_status": status}
    answer = await ask(
        ForwardAuth(api, secret=SHARED_SECRET, **options), *question(), *world.fields("/notes")
    )
    assert (answer.status, answer.values("retry-after"), answer.challenges) == (status, ["7"], [])


async def test_nonces_reach_the_client_with_either_answer(world: World) -> None:
    api = world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="required"))
    app = ForwardAuth(api, secret=SHARED_SECRET)
    refused = await ask(app, *question(), *world.fields("/notes"))
    (nonce,) = refused.values("dpop-nonce")
    assert 'error="use_dpop_nonce"' in refused.challenges[0]
    world.clock.now += 61
    accepted = await ask(app, *question(), *world.fields("/notes", nonce=nonce))
    assert accepted.status == 200
    (newer,) = accepted.values("dpop-nonce")
    assert newer != nonce
    current = await ask(app, *question(), *world.fields("/notes", nonce=newer))
    assert (current.status, current.values("dpop-nonce")) == (200, [])


async def test_an_application_behind_the_gateway_verifies_the_same_request_again(world: World) -> None:
    api = world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="required"))
    gateway, behind = ForwardAuth(api, secret=SHARED_SECRET), DPoPMiddleware(reached, api)
    nonce = dict(api.nonce_headers())["dpop-nonce"]
    fields = world.fields("/notes", nonce=nonce)
    assert (await ask(gateway, *question(), *fields)).status == 200
    assert (await call(behind, scope_of("/notes", fields))).status == 200
    assert (await ask(gateway, *question(), *fields)).status == 401
    assert (await call(behind, scope_of("/notes", fields))).status == 401


async def test_two_doors_of_one_gateway_share_what_was_used(world: World) -> None:
    api = world.server()
    doors = [
        ForwardAuth(api, secret=SHARED_SECRET),
        ForwardAuth(api.with_policy(proof_lifetime=600), secret=SHARED_SECRET),
        ForwardAuth(world.server(), secret=SHARED_SECRET),
    ]
    fields = world.fields("/notes")
    assert [(await ask(door, *question(), *fields)).status for door in doors] == [200, 401, 401]


async def test_a_sibling_made_later_lengthens_the_memory_of_the_gateway(world: World) -> None:
    api = world.server()
    door = ForwardAuth(api, secret=SHARED_SECRET)
    patient = ForwardAuth(api.with_policy(proof_lifetime=600), secret=SHARED_SECRET)
    fields = world.fields("/notes", expires_in=900)
    assert (await ask(door, *question(), *fields)).status == 200
    world.clock.now += 300
    assert (await ask(patient, *question(), *fields)).status == 401
    assert api.policy.proof_lifetime == 60


@pytest.mark.parametrize(
    ("public_url", "uri", "status"),
    [
        (f"{ORIGIN}/v1", "/v1/notes", 200),
        (f"{ORIGIN}/v1", "/notes", 200),
        ([f"{ORIGIN}/v1", f"{ORIGIN}/v2"], "/v2/notes", 200),
        ([f"{ORIGIN}/v1", "https://api.example.org"], "/v1/notes", 200),
    ],
)
async def test_the_gateway_sees_the_prefix_that_it_takes_off(
    world: World, public_url: Any, uri: str, status: int
) -> None:
    app = ForwardAuth(world.server(public_url=public_url), secret=SHARED_SECRET)
    assert (await ask(app, *question(uri=uri), *world.fields(uri))).status == status
    longer = world.fields(f"/v1{uri}")
    assert (await ask(app, *question(uri=uri), *longer)).status == 401, "no path stands for another"


async def test_a_handshake_is_no_question(world: World) -> None:
    app = ForwardAuth(world.server(), secret=SHARED_SECRET)
    scope = scope_of("/", [*question(), *world.fields("/notes")], type="websocket")
    scope["extensions"] = {"websocket.http.response": {}}
    assert (await call(app, scope)).status == 403
    with pytest.raises(ConfigurationError, match="the ASGI scope type 'webtransport'"):
        await call(app, scope_of("/", [], type="webtransport"))


def test_it_opens_and_closes_the_server_with_its_own_lifespan(world: World) -> None:
    with TestClient(ForwardAuth(world.server(), secret=SHARED_SECRET)) as client:
        assert world.store.opened == 1
        assert client.get("/").status_code == 403
    assert world.store.closed == 1


async def test_a_server_that_fails_to_close_has_shut_down_all_the_same(world: World) -> None:
    class Stuck(MemoryReplayStore):
        async def aclose(self) -> None:
            raise OSError("stuck")

    app = ForwardAuth(world.server(replay_store=Stuck()), secret=SHARED_SECRET)
    events = asyncio.Queue[Any]()
    sent: list[str] = []
    for kind in ("lifespan.startup", "lifespan.shutdown"):
        events.put_nowait({"type": kind})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with pytest.raises(OSError, match="stuck"):
        await app({"type": "lifespan"}, events.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_under_another_event_loop_the_start_fails_and_says_why(world: World) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    # Driven by hand, as by a library that isn't asyncio.
    starting = ForwardAuth(world.server(), secret=SHARED_SECRET)({"type": "lifespan"}, receive, send)
    with pytest.raises(StopIteration):
        starting.send(None)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "asyncio only" in message["message"]


async def test_each_decision_is_an_event_of_the_original_request() -> None:
    world, events = World(), list[Any]()
    app = ForwardAuth(world.server(on_event=events.append), secret=SHARED_SECRET)
    await ask(app, *question("PUT", "/notes?x=1"), *world.fields("/notes", method="PUT"))
    await ask(app, *question("PUT", "/notes?x=1"))
    assert [(event.outcome, event.method, event.path) for event in events] == [
        ("accepted", "PUT", "/notes"),
        ("refused", "PUT", "/notes"),
    ]


GUARDED = ForwardAuth(World().server(), secret=SHARED_SECRET)


@settings(max_examples=200)
@given(
    method=st.text(max_size=20),
    uri=st.text(st.characters(max_codepoint=255), max_size=40),
    proof=st.text(max_size=9),
)
def test_no_question_makes_a_500_or_an_acceptance(method: str, uri: str, proof: str) -> None:
    fields = [
        (b"x-forward-auth-secret", SHARED_SECRET.encode()),
        (b"x-original-method", method.encode()),
        (b"x-original-uri", uri.encode("latin-1")),
        (b"authorization", b"DPoP a.b.c"),
        (b"dpop", proof.encode()),
    ]
    answer = asyncio.run(call(GUARDED, scope_of("/", [], headers=fields)))
    assert answer.status in (401, 403)


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"secret": SHARED_SECRET, "identity_headers": ["X"]}, "identity_headers takes a mapping"),
    (
        {"secret": SHARED_SECRET, "identity_headers": {"X": "name"}},
        "identity_headers takes one of 'identity'",
    ),
    ({"secret": SHARED_SECRET, "identity_headers": {"DPoP": "scope"}}, "identity_headers takes fields that"),
    ({"secret": SHARED_SECRET, "identity_headers": {"Host": "scope"}}, "identity_headers takes fields that"),
    ({"secret": SHARED_SECRET, "identity_headers": {"DPoP-Nonce": "scope"}}, "identity_headers takes fields"),
    (
        {"secret": SHARED_SECRET, "identity_headers": {"X": "scope", "x": "jkt"}},
        "identity_headers takes fields",
    ),
    ({"secret": SHARED_SECRET, "unavailable_status": 500}, "unavailable_status takes 403 or 503, not 500"),
    ({"secret": SHARED_SECRET, "scopes": "notes"}, "scopes takes a sequence of strings"),
]


@pytest.mark.parametrize(("options", "says"), WRONG_OPTIONS)
def test_a_setup_that_would_not_protect_is_refused_at_the_start(
    world: World, options: Any, says: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ForwardAuth(world.server(), **options)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_judge_is_a_resource_server() -> None:
    wrong: Any = DPoPKey.generate
    with pytest.raises(ConfigurationError, match="resource_server takes a ResourceServer"):
        ForwardAuth(wrong, secret=SHARED_SECRET)
