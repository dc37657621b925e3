"""Tickets for WebSockets and event sources: valid once, for one path, one page, one token, for 30 s."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Security
from fastapi import WebSocket as FastAPIWebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dpop_middleware import DPoPMiddleware, DPoPPolicy, ResourceServer, WebSocketTickets
from dpop_middleware._adapter.ticket import Carried
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, DPoPError, InvalidRequest, MissingCredentials
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, SECRET, CountingStore, Fields, World, scope_of
from tests.support.asgi import Answer, call

PAGE, OTHER_PAGE = "https://app.example", "https://other.example"
TICKET = "dpop.ticket"


class Handshake:
    """The result of one handshake: its answer, and what the application saw."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.seen: list[Scope] = []

    @property
    def accepted(self) -> bool:
        return bool(self.sent) and self.sent[0]["type"] == "websocket.accept"

    @property
    def subprotocol(self) -> str | None:
        assert self.accepted, self.sent
        return self.sent[0].get("subprotocol")

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if "status" in self.sent[0] else 0


class House:
    """An API with a protected ticket endpoint and a WebSocket, and its clients."""

    def __init__(self, *, namespace: str = "", store: CountingStore | None = None, **options: Any) -> None:
        self.world = World()
        if store is not None:
            self.world.store = store
        self.events: list[AuthenticationEvent] = []
        self.server_options: dict[str, Any] = {"replay_namespace": namespace, "on_event": self.events.append}
        self.options: dict[str, Any] = {"origins": [PAGE, OTHER_PAGE], **options}
        self.api = self.server()
        self.tickets = self.tickets_of(self.api)
        self.seen: list[Scope] = []
        self.app = self.tickets.middleware(DPoPMiddleware(self.routes(), self.api))

    def server(self, **options: Any) -> ResourceServer:
        return self.world.server(**{**self.server_options, **options})

    def tickets_of(self, api: ResourceServer, secret: Any = SECRET, **options: Any) -> WebSocketTickets:
        return WebSocketTickets(api, secret, **{**self.options, **options})

    def worker(self, **options: Any) -> ASGIApp:
        """Another worker of the same service: another server, the same store and secret."""
        api = self.server(**options)
        return self.tickets_of(api).middleware(DPoPMiddleware(self.routes(), api))

    def routes(self) -> Starlette:
        async def websocket(connection: WebSocket) -> None:
            self.seen.append(connection.scope)
            offered = connection.scope["subprotocols"]
            await connection.accept(subprotocol=offered[0] if offered else None)
            await connection.send_text(connection.user.display_name)
            async for _ in connection.iter_text():
                pass

        async def events(request: Request) -> Response:
            self.seen.append(request.scope)
            return Response(f"data: {request.user.display_name}\n\n", media_type="text/event-stream")

        return Starlette(
            routes=[
                Route("/ticket", self.ticket, methods=["POST"]),
                WebSocketRoute("/ws", websocket),
                WebSocketRoute("/other", websocket),
                WebSocketRoute("/größe/łódź", websocket),
                Route("/events", events, methods=["GET", "POST"]),
            ]
        )

    async def ticket(self, request: Request) -> Response:
        path = request.query_params.get("path", "/ws")
        return JSONResponse({"ticket": self.tickets.issue(request, path=path)})

    async def get_ticket(
        self, app: ASGIApp | None = None, *, path: str = "/ws", origin: str | None = PAGE, **claims: Any
    ) -> str:
        fields = self.world.fields("/ticket", method="POST", **claims)
        if origin is not None:
            fields.append(("Origin", origin))
        scope = scope_of("/ticket", fields, method="POST", query_string=f"path={path}".encode())
        answer = await call(app or self.app, scope)
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["ticket"])


def handshake_of(
    path: str = "/ws",
    *,
    offered: list[str],
    origin: str | None = PAGE,
    fields: Fields | None = None,
    **changes: Any,
) -> dict[str, Any]:
    sent: Fields = [*(fields or [])]
    if offered:
        sent.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    if origin is not None:
        sent.append(("Origin", origin))
    scope = scope_of(path, sent, extensions={"websocket.http.response": {}}, **changes)
    del scope["method"]
    return {**scope, "type": "websocket", "subprotocols": offered}


async def knock(app: ASGIApp, scope: Scope) -> Handshake:
    """Do the handshake, and disconnect as soon as the application has sent something."""
    handshake = Handshake()
    said = asyncio.Event()
    messages = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await said.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        handshake.sent.append(message)
        if message["type"] == "websocket.send":
            said.set()

    await app(scope, receive, send)
    return handshake


async def redeem(app: ASGIApp, ticket: str, path: str = "/ws", **changes: Any) -> Handshake:
    return await knock(app, handshake_of(path, offered=[TICKET, f"{TICKET}.{ticket}"], **changes))


async def test_a_ticket_opens_the_websocket_as_its_user() -> None:
    house = House()
    handshake = await redeem(house.app, await house.get_ticket(sub="ann"))
    assert handshake.subprotocol == TICKET
    assert handshake.sent[1] == {"type": "websocket.send", "text": "ann"}
    (scope,) = house.seen
    assert scope["dpop"].access_token.subject == "ann"
    assert scope["dpop"].proof.jkt == house.world.key.jkt


async def test_a_ticket_is_good_once_whichever_worker_sees_it() -> None:
    house = House()
    ticket = await house.get_ticket()
    assert (await redeem(house.worker(), ticket)).accepted
    for app in (house.app, house.worker(), house.worker()):
        refused = await redeem(app, ticket)
        assert (refused.accepted, refused.status) == (False, 401)
    assert [event.check for event in house.events if event.outcome == "refused"] == [Check.JTI] * 3


async def test_of_two_handshakes_at_once_one_passes() -> None:
    house = House()
    ticket = await house.get_ticket()
    handshakes = await asyncio.gather(*(redeem(house.worker(), ticket) for _ in range(8)))
    assert [handshake.accepted for handshake in handshakes].count(True) == 1


async def test_a_refused_handshake_leaves_the_ticket_good() -> None:
    house = House()
    ticket = await house.get_ticket()
    asked = house.world.store.asked
    assert not (await redeem(house.app, ticket, "/other")).accepted
    assert not (await redeem(house.app, ticket, origin=OTHER_PAGE)).accepted
    assert house.world.store.asked == asked, "nothing that fails before writes to the store"
    assert (await redeem(house.app, ticket)).accepted


@pytest.mark.parametrize("path", ["/other", "/ws/", "/WS", "/ws%2F", "//ws", "/x/../ws"])
async def test_a_ticket_is_for_one_path(path: str) -> None:
    house = House()
    assert not (await redeem(house.app, await house.get_ticket(), path)).accepted


@pytest.mark.parametrize("path", ["/ws", "/%77s"])
async def test_the_path_is_compared_in_normal_form(path: str) -> None:
    house = House()
    assert (await redeem(house.app, await house.get_ticket(), path)).accepted


async def test_a_path_may_be_given_as_text() -> None:
    house = House()
    ticket = await issued_at(house, scope_of("/x", house.world.fields("/x")), "/größe/łódź")
    sent = "/gr%C3%B6%C3%9Fe/%C5%82%C3%B3d%C5%BA"
    assert not (await redeem(house.app, ticket, "/gr%F6%DFe")).accepted
    assert (await redeem(house.app, ticket, sent)).accepted


@pytest.mark.parametrize(
    "origin",
    [None, "null", "https://evil.example", OTHER_PAGE, f"{PAGE}.evil.example", f"{PAGE}/", PAGE.upper()],
)
async def test_only_the_page_that_asked_may_open_the_connection(origin: str | None) -> None:
    house = House()
    refused = await redeem(house.app, await house.get_ticket(), origin=origin)
    assert (refused.accepted, refused.status) == (False, 401)
    assert house.events[-1].check == Check.AUTHORIZATION


async def test_the_refusal_of_a_page_that_is_not_listed_names_the_pages_that_are() -> None:
    house = House(origins=[OTHER_PAGE])
    assert not (await redeem(house.app, await house.get_ticket())).accepted
    event = house.events[-1]
    assert (event.expected, event.actual) == ((OTHER_PAGE,), [PAGE])
    assert event.hint == "a page of another origin than the API's? name it in WebSocketTickets(origins=[…])"


async def test_the_refusal_of_another_listed_page_names_the_one_that_asked() -> None:
    house = House()
    assert not (await redeem(house.app, await house.get_ticket(), origin=OTHER_PAGE)).accepted
    event = house.events[-1]
    assert (event.expected, event.actual, event.hint) == (PAGE, [OTHER_PAGE], None)


async def test_the_refusal_of_a_ticket_under_another_secret_says_what_to_compare() -> None:
    house = House()
    house.tickets = house.tickets_of(house.api, b"another".ljust(32, b"!"))
    assert not (await redeem(house.app, await house.get_ticket())).accepted
    assert house.events[-1].hint == "does each worker have the same secret, also after a restart? or made up?"


async def test_two_origin_fields_are_none() -> None:
    house = House()
    fields = [("Origin", PAGE)]
    assert not (await redeem(house.app, await house.get_ticket(), fields=fields)).accepted


async def test_where_the_page_is_not_known_any_listed_one_may() -> None:
    house = House()
    assert (await redeem(house.app, await house.get_ticket(origin=None), origin=OTHER_PAGE)).accepted
    assert not (
        await redeem(house.app, await house.get_ticket(origin=None), origin="https://evil.example")
    ).accepted


async def test_without_a_list_the_pages_of_the_servers_own_origin_may() -> None:
    house = House(origins=None)
    assert (await redeem(house.app, await house.get_ticket(origin=ORIGIN), origin=ORIGIN)).accepted
    assert not (await redeem(house.app, await house.get_ticket(), origin=PAGE)).accepted


@pytest.mark.parametrize(
    ("seconds", "good"), [(-6, False), (-5, True), (0, True), (29.9, True), (30, False), (90, False)]
)
async def test_a_ticket_is_good_for_half_a_minute(seconds: float, good: bool) -> None:
    house = House()
    ticket = await house.get_ticket(exp=house.world.clock.now + 1000)
    house.world.clock.now += seconds
    assert (await redeem(house.app, ticket)).accepted is good
    if not good:
        assert house.events[-1].check == Check.TOKEN_TIME


async def test_the_store_remembers_a_ticket_for_longer_than_any_clock_takes_it() -> None:
    entries: list[Any] = []

    class Store(CountingStore):
        async def add(self, entry: Any) -> bool:
            entries.append(entry)
            return await super().add(entry)

    house = House(store=Store())
    ticket = await house.get_ticket()
    issued = house.world.clock.now
    house.world.clock.now += 10
    assert (await redeem(house.app, ticket)).accepted
    entry = entries[-1]
    assert (entry.not_before, entry.expires_at) == (issued - 5, issued + 35)
    assert (entry.retention, entry.namespace) == (0.0, "")
    # Each client has its share of a store's memory, by tickets as by proofs.
    assert entry.speaks_for == entries[0].speaks_for != ""
    assert entry.key != entries[0].key


async def test_secrets_are_replaced_while_tickets_are_on_their_way() -> None:
    house, new = House(), b"n" * 32
    ticket = await house.get_ticket()
    assert not (await redeem(house.tickets_of(house.api, new).middleware(house.app), ticket)).accepted
    both = house.tickets_of(house.api, [new, SECRET])
    assert (await redeem(both.middleware(DPoPMiddleware(house.routes(), house.api)), ticket)).accepted


async def test_another_namespace_accepts_none_of_these_nonces() -> None:
    house = House()
    ticket = await house.get_ticket()
    other = House(namespace="other")
    other.world = house.world
    assert not (await redeem(other.worker(), ticket)).accepted


@pytest.mark.parametrize(
    "forge",
    [
        lambda ticket: "",
        lambda ticket: "x",
        lambda ticket: ticket[:-1],
        lambda ticket: ticket[1:],
        lambda ticket: f"{ticket}A",
        lambda ticket: ticket[::-1],
        lambda ticket: f"{ticket}.{ticket}",
        lambda ticket: "A" * 100_000,
    ],
)
async def test_a_ticket_that_was_never_issued_is_refused(forge: Callable[[str], str]) -> None:
    house = House()
    ticket = await house.get_ticket()
    refused = await redeem(house.app, forge(ticket))
    assert (refused.accepted, refused.status) == (False, 401)
    assert house.events[-1].check == Check.AUTHORIZATION
    assert "the same secret" in str(house.events[-1].hint)
    assert (await redeem(house.app, ticket)).accepted


async def test_a_handshake_has_one_ticket_and_no_other_credentials() -> None:
    house = House()
    one, two = await house.get_ticket(), await house.get_ticket()
    both = handshake_of(offered=[TICKET, f"{TICKET}.{one}", f"{TICKET}.{two}"])
    assert (await knock(house.app, both)).status == 400
    for fields in (house.world.fields("/ws"), [("Authorization", "Bearer x")], [("DPoP", "x")]):
        assert (await redeem(house.app, one, fields=fields)).status == 400
    many = [(f"x-{number}", "1") for number in range(300)]
    assert (await redeem(house.app, one, fields=many)).status == 400
    assert (await redeem(house.app, one)).accepted


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (["notes.v2", TICKET], "notes.v2"),
        ([TICKET, "notes.v2"], "notes.v2"),
        (["notes.v2"], "notes.v2"),
        ([TICKET], TICKET),
        ([], None),
    ],
)
async def test_a_real_subprotocol_is_answered_and_the_ticket_never(
    offered: list[str], answered: str | None
) -> None:
    house = House()
    ticket = await house.get_ticket()
    handshake = await knock(house.app, handshake_of(offered=[*offered, f"{TICKET}.{ticket}"]))
    assert handshake.subprotocol == answered
    assert ticket not in str(handshake.sent)
    (scope,) = house.seen
    assert ticket not in str({name: value for name, value in scope.items() if name != "app"})
    assert scope["subprotocols"] == [one for one in offered if one != TICKET]


@pytest.mark.parametrize("place", [0, 63, 64, 300])
async def test_a_ticket_among_too_many_subprotocols_or_fields_reaches_no_application(place: int) -> None:
    house = House()
    offered = [f"p{number}" for number in range(place)]
    ticket = f"{TICKET}.{await house.get_ticket()}"
    handshake = await knock(house.app, handshake_of(offered=[*offered, ticket]))
    assert handshake.accepted is (place < 64)
    if not handshake.accepted:
        assert handshake.status == 400
        # The application might serve this path to everybody.
        with_public_path = DPoPMiddleware(house.routes(), house.api, public_paths=["/ws"])
        app = house.tickets.middleware(with_public_path)
        assert (await knock(app, handshake_of(offered=[*offered, ticket]))).status == 400
        assert b"too many header fields or subprotocols" in handshake.sent[1]["body"]
    for fields, status in ((253, 0), (254, 400)):
        # Beside these are Host, Origin and Sec-WebSocket-Protocol.
        offered = [f"{TICKET}.{await house.get_ticket()}"]
        again = await knock(house.app, handshake_of(offered=offered, fields=[("x", "y")] * fields))
        assert (again.accepted, again.status) == (status == 0, status)
    assert "dpop.ticket." not in str([(scope["subprotocols"], scope["headers"]) for scope in house.seen])


@pytest.mark.parametrize("offered", [["notes.v2"], []])
async def test_a_ticket_that_only_the_header_field_has_reaches_no_application(offered: list[str]) -> None:
    """Of two such fields some servers read one."""
    house = House()
    ticket = await house.get_ticket()
    scope = handshake_of(offered=offered, fields=house.world.fields("/ws"))
    scope["headers"] += [(b"Sec-WebSocket-Protocol", f"a, {TICKET}.{ticket}".encode())]
    assert (await knock(house.app, scope)).subprotocol == next(iter(offered), None)
    (seen,) = house.seen
    assert [value for name, value in seen["headers"] if name.lower() == b"sec-websocket-protocol"] == [
        one.encode() for one in offered
    ]


async def test_a_subprotocol_beside_the_ticket_may_hold_any_character() -> None:
    house = House()
    ticket = await house.get_ticket()
    scope = handshake_of(offered=[TICKET, f"{TICKET}.{ticket}"])
    # Daphne offers so what came as %E2%82%AC.
    scope["subprotocols"] = [*scope["subprotocols"], "\u20ac"]
    assert (await knock(house.app, scope)).accepted
    assert house.seen[0]["subprotocols"] == ["\u20ac"]


@pytest.mark.parametrize("odd", [b"notes.v2", None, 2, ["notes.v2"]])
async def test_a_subprotocol_that_is_no_text_is_no_error(odd: Any) -> None:
    """No server offers such, but a middleware may write one, and whoever opens the socket would get a 500."""
    house = House()
    ticket = f"{TICKET}.{await house.get_ticket()}"
    scope = handshake_of(offered=[ticket])
    scope["subprotocols"] = [odd, ticket]
    assert (await knock(house.app, scope)).accepted
    assert house.seen[0]["subprotocols"] == []
    scope = handshake_of(offered=[])
    scope["subprotocols"] = [odd, ticket.encode()]
    assert (await knock(house.app, scope)).status == 401


async def test_a_client_with_header_fields_needs_no_ticket() -> None:
    house = House()
    fields = house.world.fields("/ws")
    assert (
        await knock(house.app, handshake_of(offered=["notes.v2"], fields=fields))
    ).subprotocol == "notes.v2"
    assert (await knock(house.app, handshake_of(offered=[]))).status == 401
    assert (await knock(house.app, handshake_of(offered=[TICKET]))).status == 401


async def test_neither_log_nor_events_nor_answers_hold_a_ticket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house = House(query_parameter="ticket")
    ticket = await house.get_ticket()
    answers = [
        await redeem(house.app, ticket, "/other"),
        await redeem(house.app, ticket, origin="https://evil.example"),
        await redeem(house.app, ticket[:-2]),
        await redeem(house.app, ticket),
        await redeem(house.app, ticket),
        await knock(house.app, handshake_of(offered=[], query_string=f"ticket={ticket}".encode())),
    ]
    told = caplog.text + repr(house.events) + str([answer.sent for answer in answers])
    assert ticket[:-2] not in told
    assert house.world.token()[:40] not in told
    assert [event.outcome for event in house.events] == [
        "accepted",
        *["refused"] * 3,
        "accepted",
        *["refused"] * 2,
    ]


async def test_where_the_server_can_only_close_it_closes_without_a_reason() -> None:
    house = House()
    scope = handshake_of(offered=[f"{TICKET}.x"]) | {"extensions": {}}
    assert (await knock(house.app, scope)).sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_connection_ends_with_the_token() -> None:
    house = House()
    ticket = await house.get_ticket(exp=house.world.clock.now + 0.2)
    scope = handshake_of(offered=[f"{TICKET}.{ticket}"])
    handshake = Handshake()
    messages = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        handshake.sent.append(message)

    await asyncio.wait_for(house.app(scope, receive, send), 20)
    assert handshake.accepted
    assert handshake.sent[-1] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "the access token has expired",
    }


async def test_an_expired_or_withdrawn_token_opens_nothing() -> None:
    house = House()
    ticket = await house.get_ticket(exp=house.world.clock.now + 5)
    house.world.clock.now += 25
    assert not (await redeem(house.app, ticket)).accepted
    assert house.events[-1].check == Check.TOKEN_TIME


async def test_a_route_judges_scopes_of_the_token() -> None:
    house = House()

    @requires_dpop(house.api, "notes:read")
    async def protected(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)

    app = house.tickets.middleware(Starlette(routes=[WebSocketRoute("/ws", protected)]))
    allowed = await redeem(app, await house.get_ticket(scopes=["notes:read"], sub="ann"))
    assert allowed.sent[1] == {"type": "websocket.send", "text": "ann"}
    assert (await redeem(app, await house.get_ticket())).status == 403


@pytest.mark.parametrize("sibling", [False, True])
async def test_a_login_grows_old_while_the_ticket_waits(sibling: bool) -> None:
    house = House(lifetime=60)
    strict = house.api.with_policy(proof_lifetime=30) if sibling else house.api

    @requires_dpop(strict, max_age=60)
    async def protected(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)

    app = house.tickets.middleware(Starlette(routes=[WebSocketRoute("/ws", protected)]))
    early, late = [await house.get_ticket(auth_time=int(house.world.clock()) - 30) for _ in range(2)]
    house.world.clock.now += 30
    assert (await redeem(app, early)).accepted
    house.world.clock.now += 1
    assert (await redeem(app, late)).status == 401
    assert house.events[-1].check == Check.AUTHENTICATION


@pytest.mark.parametrize(("scopes", "outcome"), [("notes:read", "accepted"), ("", "refused")])
async def test_one_handshake_is_one_event(scopes: str, outcome: str) -> None:
    house = House()

    @requires_dpop(house.api, "notes:read")
    async def protected(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    routes = Starlette(routes=[WebSocketRoute("/ws", protected)])
    app = house.tickets.middleware(DPoPMiddleware(routes, house.api))
    ticket = await house.get_ticket(scope=scopes)
    house.events.clear()
    await redeem(app, ticket)
    assert [event.outcome for event in house.events] == [outcome]


async def test_the_event_has_the_age_of_the_nonce_that_counted() -> None:
    house = House()
    world, policy = house.world, DPoPPolicy(nonce="required")
    api = house.server(policy=policy, nonces=world.nonces())
    tickets = house.tickets_of(api)
    nonce = dict(api.nonce_headers())["dpop-nonce"]
    token, year = world.token(), 31_536_000
    proof = world.key.proof(
        "POST", f"{ORIGIN}/ticket", access_token=token, nonce=nonce, now=world.clock() - year
    )
    house.tickets = tickets
    app = tickets.middleware(DPoPMiddleware(house.routes(), api))
    fields = [("Authorization", f"DPoP {token}"), ("DPoP", proof), ("Origin", PAGE)]
    answer = await call(app, scope_of("/ticket", fields, method="POST"))
    assert (await redeem(app, json.loads(answer.body)["ticket"])).accepted
    assert [(event.path, event.proof_age) for event in house.events] == [("/ticket", 0.0), ("/ws", 0.0)]


async def test_without_a_listener_a_ticket_still_opens_the_websocket() -> None:
    house = House()
    silent = house.worker(on_event=None)
    assert (await redeem(silent, await house.get_ticket())).accepted


async def test_a_dependency_of_fastapi_takes_it_too() -> None:
    house = House()
    dpop = DPoPSecurity(house.api, required=False)
    app = FastAPI()

    @app.websocket("/ws")
    async def websocket(connection: FastAPIWebSocket, token: Annotated[Any, Security(dpop)]) -> None:
        await connection.accept()
        await connection.send_text(token.subject)

    handshake = await redeem(house.tickets.middleware(app), await house.get_ticket(sub="ann"))
    assert handshake.sent[1]["text"] == "ann"


async def test_where_credentials_are_optional_a_ticket_counts() -> None:
    house = House()
    optional = house.tickets.middleware(DPoPMiddleware(house.routes(), house.api, required=False))
    handshake = await redeem(optional, await house.get_ticket(sub="ann"))
    assert handshake.sent[1]["text"] == "ann"
    assert not (await redeem(optional, "forged")).accepted


async def test_another_server_does_not_take_the_evidence() -> None:
    house = House()
    other = house.server(replay_namespace="other")
    app = house.tickets.middleware(DPoPMiddleware(house.routes(), other))
    assert (await redeem(app, await house.get_ticket())).status == 401


async def test_a_ticket_for_a_looser_policy_opens_nothing_stricter() -> None:
    house = House()
    loose = house.api.with_policy(accept_bearer=True)
    issuing = DPoPMiddleware(house.routes(), loose)
    bearer = [("Authorization", f"Bearer {house.world.token(jkt=None)}"), ("Origin", PAGE)]
    answer = await call(issuing, scope_of("/ticket", bearer, method="POST"))
    ticket = json.loads(answer.body)["ticket"]
    assert not (await redeem(house.app, ticket)).accepted
    assert house.events[-1].check == Check.BINDING
    tickets = house.tickets_of(loose)
    assert not (await redeem(tickets.middleware(DPoPMiddleware(house.routes(), house.api)), ticket)).accepted
    answer = await call(issuing, scope_of("/ticket", bearer, method="POST"))
    ticket = json.loads(answer.body)["ticket"]
    assert (await redeem(tickets.middleware(DPoPMiddleware(house.routes(), loose)), ticket)).accepted


async def test_with_nonces_required_the_handshake_needs_none() -> None:
    house = House()
    house.server_options |= {"nonces": house.world.nonces(), "policy": DPoPPolicy(nonce="required")}
    house.api = house.server()
    house.tickets = house.tickets_of(house.api)
    house.app = house.tickets.middleware(DPoPMiddleware(house.routes(), house.api))
    first = await call(
        house.app, scope_of("/ticket", house.world.fields("/ticket", method="POST"), method="POST")
    )
    (nonce,) = first.values("dpop-nonce")
    assert (await redeem(house.app, await house.get_ticket(nonce=nonce))).accepted


async def test_the_binding_of_the_token_must_be_what_it_was() -> None:
    house = House()
    ticket = await house.get_ticket()
    verifier = house.api.verification.verifier
    verify = verifier.verify

    async def bound_to_another(token: str) -> Any:
        return replace(await verify(token), jkt="another")

    verifier.verify = bound_to_another  # type: ignore[method-assign]
    assert not (await redeem(house.app, ticket)).accepted
    assert house.events[-1].check == Check.JKT
    assert house.events[-1].scheme == "DPoP"


@pytest.mark.parametrize(
    "failure", [ConnectionError("nobody there"), asyncio.CancelledError(), MissingCredentials("odd")]
)
async def test_a_store_that_fails_lets_no_request_through(failure: BaseException) -> None:
    house = House()
    ticket = await house.get_ticket()

    async def failing(entry: Any) -> bool:
        raise failure

    house.world.store.add = failing  # type: ignore[method-assign]
    refused = await redeem(house.app, ticket)
    status = 401 if isinstance(failure, MissingCredentials) else 503
    assert (refused.accepted, refused.status) == (False, status)
    assert house.events[-1].check == Check.JTI


async def test_a_handshake_that_is_cancelled_ends() -> None:
    house = House()
    ticket = await house.get_ticket()
    asked = asyncio.Event()

    async def hangs(entry: Any) -> bool:
        asked.set()
        return await asyncio.Event().wait()

    house.world.store.add = hangs  # type: ignore[method-assign]
    task = asyncio.create_task(redeem(house.app, ticket))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_store_that_returns_neither_lets_no_request_through() -> None:
    house = House()
    ticket = await house.get_ticket()

    async def odd(entry: Any) -> Any:
        return "yes"

    house.world.store.add = odd  # type: ignore[method-assign]
    assert not (await redeem(house.app, ticket)).accepted


async def issued_at(house: House, scope: dict[str, Any], path: Any) -> str:
    """Issue a ticket in a request that was authenticated."""
    issued: list[Any] = []

    async def endpoint(inner: Scope, receive: Receive, send: Send) -> None:
        try:
            issued.append(house.tickets.issue(inner, path=path))
        except (DPoPError, ConfigurationError) as error:
            issued.append(error)
        await Response("done")(inner, receive, send)

    await call(DPoPMiddleware(endpoint, house.api, public_paths=["/public"]), scope)
    if isinstance(issued[0], Exception):
        raise issued[0]
    return str(issued[0])


@pytest.mark.parametrize(
    "path",
    ["", "ws", "/ws?room=1", "/ws#a", "/a/../b", "/%2e%2e/b", "/%zz", "/\ud800", "/" + "a" * 9000, 1, None],
)
async def test_a_ticket_is_issued_for_a_path_and_nothing_else(path: Any) -> None:
    house = House()
    with pytest.raises(InvalidRequest):
        await issued_at(house, scope_of("/x", house.world.fields("/x")), path)


async def test_a_ticket_is_issued_to_who_was_authenticated_here() -> None:
    house = House()
    with pytest.raises(ConfigurationError, match="the same ResourceServer has authenticated"):
        await issued_at(house, scope_of("/public"), "/ws")
    other = house.tickets_of(house.server(replay_namespace="other"))
    house.tickets = other
    with pytest.raises(ConfigurationError, match="the same ResourceServer has authenticated"):
        await issued_at(house, scope_of("/x", house.world.fields("/x")), "/ws")


@pytest.mark.parametrize("request_", [None, "ticket", 1, {}, {"type": "lifespan"}, House])
def test_a_ticket_is_issued_in_a_request_only(request_: Any) -> None:
    with pytest.raises(ConfigurationError, match="request takes a Starlette or FastAPI request, or an ASGI"):
        House().tickets.issue(request_, path="/ws")


async def test_a_ticket_can_not_be_used_to_get_another() -> None:
    house = House()
    raised: list[DPoPError] = []

    async def greedy(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            house.tickets.issue(scope, path="/ws")
        except DPoPError as error:
            raised.append(error)
        await send({"type": "websocket.close", "code": 1000})

    await redeem(house.tickets.middleware(DPoPMiddleware(greedy, house.api)), await house.get_ticket())
    assert [type(error) for error in raised] == [MissingCredentials]


async def test_a_token_that_fits_no_header_field_gets_no_ticket() -> None:
    house = House()
    fields = house.world.fields("/x", extra="x" * 5000)
    with pytest.raises(InvalidRequest, match="too large for a ticket"):
        await issued_at(house, scope_of("/x", fields), "/ws")


async def test_behind_a_root_path_the_path_is_the_servers() -> None:
    house = House()
    app = house.tickets.middleware(
        Starlette(routes=[Mount("/v1", DPoPMiddleware(house.routes(), house.api))])
    )
    fields = [*house.world.fields("/v1/ticket", method="POST"), ("Origin", PAGE)]
    scope = scope_of("/v1/ticket", fields, method="POST", query_string=b"path=/v1/ws")
    ticket = json.loads((await call(app, scope)).body)["ticket"]
    assert not (await redeem(app, ticket, "/ws")).accepted
    assert (await redeem(app, ticket, "/v1/ws")).accepted


class TestInTheURL:
    """By option: an event source, and a WebSocket whose subprotocol an intermediary removes."""

    def event_source(
        self, ticket: str, *, origin: str | None = PAGE, rest: str = "", **changes: Any
    ) -> dict[str, Any]:
        fields: Fields = [("Accept", "text/event-stream")]
        if origin is not None:
            fields.append(("Origin", origin))
        query = f"a=1&ticket={ticket}{rest}".encode()
        return scope_of("/events", [*fields, *changes.pop("fields", [])], query_string=query, **changes)

    async def answer(self, house: House, scope: dict[str, Any]) -> Answer:
        return await call(house.app, dict(scope))

    async def test_an_event_source_gets_its_events_once(self) -> None:
        house = House(query_parameter="ticket")
        scope = self.event_source(await house.get_ticket(path="/events", sub="ann"))
        answer = await self.answer(house, scope)
        assert (answer.status, answer.body) == (200, b"data: ann\n\n")
        assert [seen["query_string"] for seen in house.seen] == [b"a=1"]
        assert (await self.answer(house, scope)).status == 401

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_ticket_of_an_event_source_with_too_many_fields_is_refused(self, method: str) -> None:
        """Whether it is one isn't looked at then. A POST is none, and keeps its query."""
        house = House(query_parameter="ticket")
        ticket = await house.get_ticket(path="/events")
        scope = self.event_source(ticket, fields=[("x", "y")] * 256, method=method)
        answer = await self.answer(house, scope)
        assert (answer.status, house.seen) == (400, [])
        assert b"too many header fields" in answer.body

    async def test_an_event_source_with_as_many_fields_as_may_be_gets_its_events(self) -> None:
        house = House(query_parameter="ticket")
        ticket = await house.get_ticket(path="/events")
        others = len(self.event_source(ticket)["headers"])
        scope = self.event_source(ticket, fields=[("x", "y")] * (256 - others))
        assert (await self.answer(house, scope)).status == 200

    async def test_the_servers_own_scope_has_no_ticket_for_its_access_log(self) -> None:
        house = House(query_parameter="ticket")
        scope = self.event_source(await house.get_ticket(path="/events"), rest="&b=2")
        scope["raw_path"] += b"?" + scope["query_string"]
        await call(house.app, scope)
        assert (scope["query_string"], scope["raw_path"]) == (b"a=1&b=2", b"/events")

    async def test_without_the_option_nothing_in_a_url_is_a_ticket(self) -> None:
        house = House()
        scope = self.event_source(await house.get_ticket(path="/events"))
        assert (await self.answer(house, scope)).status == 401
        query = f"ticket={await house.get_ticket()}".encode()
        assert (await knock(house.app, handshake_of(offered=[], query_string=query))).status == 401

    async def test_a_websocket_may_have_it_there_too_but_not_twice(self) -> None:
        house = House(query_parameter="ticket")
        ticket = await house.get_ticket(sub="ann")
        query = f"ticket={ticket}".encode()
        twice = handshake_of(offered=[f"{TICKET}.{ticket}"], query_string=query)
        assert (await knock(house.app, twice)).status == 400
        doubled = handshake_of(offered=[], query_string=query + b"&" + query)
        assert (await knock(house.app, doubled)).status == 400
        scope = handshake_of(offered=["notes.v2"], query_string=query)
        scope["raw_path"] = None
        assert (await knock(house.app, scope)).subprotocol == "notes.v2"

    @pytest.mark.parametrize(
        ("method", "accept"),
        [("POST", "text/event-stream"), ("GET", "text/html"), ("GET", "*/*"), ("HEAD", "text/event-stream")],
    )
    async def test_no_other_request_is_opened_by_it(self, method: str, accept: str) -> None:
        house = House(query_parameter="ticket")
        query = f"ticket={await house.get_ticket(path='/events')}".encode()
        fields = [("Accept", accept), ("Origin", PAGE)]
        answer = await call(house.app, scope_of("/events", fields, method=method, query_string=query))
        assert answer.status == 401

    async def test_a_page_of_the_same_origin_is_known_by_fetch_metadata(self) -> None:
        house = House(query_parameter="ticket", origins=None)
        for site, status in (("same-origin", 200), ("same-site", 401), ("cross-site", 401), ("none", 401)):
            ticket = await house.get_ticket(path="/events", origin=ORIGIN)
            scope = self.event_source(ticket, origin=None, fields=[("Sec-Fetch-Site", site)])
            assert (await self.answer(house, scope)).status == status
        scope = self.event_source(await house.get_ticket(path="/events", origin=ORIGIN), origin=None)
        assert (await self.answer(house, scope)).status == 401

    async def test_a_page_of_our_own_origin_needs_to_be_listed(self) -> None:
        house = House(query_parameter="ticket")
        ticket = await house.get_ticket(path="/events", origin=None)
        scope = self.event_source(ticket, origin=None, fields=[("Sec-Fetch-Site", "same-origin")])
        assert (await self.answer(house, scope)).status == 401, "our own origin isn't on the list"


async def test_lifespan_and_unknown_scopes_pass_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any: ...

    for kind in ("lifespan", "webtransport"):
        await House().tickets.middleware(app)({"type": kind}, nothing, nothing)
    assert seen == ["lifespan", "webtransport"]


def test_wrong_options_are_refused() -> None:
    house = House()
    for origins in (
        [],
        "https://app.example",
        ["*"],
        ["null"],
        ["https://app.example/"],
        [1],
        1,
        {PAGE: True},
    ):
        with pytest.raises(ConfigurationError, match="origins takes origins of pages"):
            house.tickets_of(house.api, origins=origins)
    for lifetime in (0, 121, "30", True):
        with pytest.raises(ConfigurationError, match="lifetime takes"):
            house.tickets_of(house.api, lifetime=lifetime)
    for name in ("", "a b", "a=b", "ä", 1):
        with pytest.raises(ConfigurationError, match="query_parameter takes"):
            house.tickets_of(house.api, query_parameter=name)
    for secret in (b"short", "x" * 32, [], [b"n" * 32, b"short"], 1, None):
        with pytest.raises(
            ConfigurationError, match="WebSocketTickets takes a secret of at least 32"
        ) as raised:
            house.tickets_of(house.api, secret)
        assert "short" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="WebSocketTickets takes a ResourceServer first"):
        WebSocketTickets(object(), SECRET)  # type: ignore[arg-type]
    for app in (None, "app", house.api):
        with pytest.raises(ConfigurationError, match="app takes an ASGI application, not"):
            house.tickets.middleware(app)  # type: ignore[arg-type]


def test_a_carried_ticket_is_not_shown() -> None:
    assert repr(Carried(("s3cr3t",), marked=True)) == "Carried(1 tickets)"
