"""Tickets for connections that a browser opens without header fields: WebSocket, by option EventSource.

    a protected request -> issue -> ticket -> the handshake, as a subprotocol -> redeem, once -> its evidence

The handshake then has the evidence of the request that asked for the ticket; middleware, decorator and
dependency inside find it there, and judge scopes and policies as usual.
"""

import re
import secrets as randomness
import time
from collections.abc import Collection, Sequence
from typing import Final, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import _options as options
from dpop_middleware._adapter.answers import error_response, holding, send_refusal
from dpop_middleware._adapter.connection import AUTHENTICATED, Connection, checked_resource_server
from dpop_middleware._adapter.expiry import ending_after
from dpop_middleware._adapter.ticket import (
    MAX_TICKET_SIZE,
    UNIQUE_SIZE,
    Carried,
    Seal,
    Ticket,
    field_values,
    take_tickets,
)
from dpop_middleware._judge.requirements import NOTHING_REQUIRED, bound_to_another, check_not_expired
from dpop_middleware._judge.verdicts import Authentication, refusal_of
from dpop_middleware._request.request import MAX_FIELDS, ResourceRequest, credentials
from dpop_middleware._runtime import check_event_loop
from dpop_middleware.checks import Check, Reason
from dpop_middleware.errors import (
    ConfigurationError,
    DPoPError,
    InvalidRequest,
    InvalidToken,
    Refusal,
    Scheme,
)
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.store import ReplayEntry
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["WebSocketTickets"]

_LONGEST_LIFETIME: Final = 120
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#,]+")
_PATH = re.compile(r"/[^?#\ud800-\udfff]*")
_PARAMETER = re.compile(r"[A-Za-z0-9_.~-]+")
# No thumbprint has this length: a ticket's name in the store never equals a proof's.
_OF_TICKETS: Final = "websocket ticket"
# No server has this policy, so every server judges the evidence again by its own policy.
_OF_NOBODY = DPoPPolicy()
_NONE = Carried((), marked=False)


class WebSocketTickets:
    """Lets a browser open a WebSocket with a ticket from a protected request.

        tickets = WebSocketTickets(api, secret, origins=["https://app.example.com"])
        app = tickets.middleware(DPoPMiddleware(app, api))

    - `resource_server`: the judge of both the request for a ticket and the handshake.
    - `secret`: at least 32 random bytes that all workers share, or several such, newest first.
    - `origins`: the origins of the pages that may open a connection; by default the server's own.
    - `lifetime`: seconds for which a ticket is valid, 1 to 120; 30 by default.
    - `query_parameter`: None, the default, or the name of a parameter of the URL that may hold the ticket:
      for an EventSource, or where an intermediary removes subprotocols. The drawback: proxies write URLs to
      their logs.

    For its lifetime a ticket is a bearer credential: anyone who has it can open the connection, since a
    program that isn't a browser can send any `Origin`. It is valid for one path, once at all workers that
    share the replay store. Raises ConfigurationError.
    """

    def __init__(
        self,
        resource_server: ResourceServer,
        secret: bytes | Sequence[bytes],
        *,
        origins: Collection[str] | None = None,
        lifetime: float = 30,
        query_parameter: str | None = None,
    ) -> None:
        self._api = checked_resource_server(
            resource_server, option="WebSocketTickets", takes="a ResourceServer first"
        )
        self._proofs = resource_server.verification.proofs
        self._public_urls = resource_server.verification.public_urls
        given = options.secrets("WebSocketTickets", secret)
        self._seal = Seal(given, namespace=self._proofs.keyspace.name)
        self._origins = None if origins is None else _checked_origins(origins)
        self._lifetime = options.seconds("lifetime", lifetime, minimum=1, maximum=_LONGEST_LIFETIME)
        self._parameter = _checked_parameter(query_parameter)

    def issue(self, request: HTTPConnection | Scope, *, path: str) -> str:
        """Return a ticket for one handshake at `path`, for the client of a request that was authenticated.

        - `request`: a Starlette or FastAPI request, or an ASGI scope.
        - `path`: as the server sees it in the handshake's request line, without a query. Characters other
          than ASCII needn't be encoded. The application decides for which paths a client may have a ticket.

        Send it in a response that no cache keeps (`Cache-Control: no-store`). Raises InvalidRequest for a
        text that can't be a path, and for a token that is too large for a header field; MissingCredentials in
        a connection that a ticket opened; ConfigurationError for a request that this server hasn't
        authenticated.
        """
        scope = _scope_of(request)
        evidence, connection = None, Connection.of(scope)
        if "dpop" in scope:
            evidence = connection.evidence(self._api, scope["dpop"])
        if evidence is None:
            raise ConfigurationError(
                "a ticket is issued in a request that the same ResourceServer has authenticated"
            )
        now = self._api.verification.clock()
        _, access_token = credentials(evidence.request.authorization)
        ticket = Ticket(
            access_token=access_token,
            target=self._target_at(path, evidence.request),
            origin=_only_one(field_values(scope, "origin")),
            issued_at=now,
            expires_at=now + self._lifetime,
            authenticated_at=evidence.now,
            proof=evidence.proof,
            nonce=evidence.nonce,
        )
        text = self._seal.seal(ticket, unique=randomness.token_bytes(UNIQUE_SIZE))
        if len(text) > MAX_TICKET_SIZE:
            raise InvalidRequest("the access token is too large for a ticket", check=Check.AUTHORIZATION)
        return text

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with tickets redeemed before it; put it outside the part that protects.

        A connection that a ticket opened ends with the access token, as with `close_at_expiry`. A request
        without a ticket is passed on unchanged. A refused ticket is answered like any refused request, and so
        is a handshake with over 64 subprotocols or 256 header fields: none of them is searched for a ticket.
        Raises ConfigurationError.
        """
        options.part("app", app, "an ASGI application", fits=callable(app))

        async def redeeming(scope: Scope, receive: Receive, send: Send) -> None:
            carried = _NONE if scope["type"] not in AUTHENTICATED else take_tickets(scope, self._parameter)
            if not carried.tickets and not carried.too_many:
                await app(scope, receive, send)
                return
            with holding(Connection.of(scope)) as reporting:
                try:
                    token = await self._redeem(carried, scope)
                except DPoPError as error:
                    await send_refusal(error_response(self._api, error, scope), scope, send)
                    return
                seconds = self._api.seconds_left(token)
                ending = ending_after(seconds, scope, receive, reporting(send))
                async with ending as (until_then_receive, until_then_send):
                    await app(scope, until_then_receive, carried.answering(until_then_send))

        return redeeming

    async def _redeem(self, carried: Carried, scope: Scope) -> AccessToken:
        """Give the connection of `scope` the evidence from its ticket; raises DPoPError."""
        check_event_loop()
        started, connection = time.perf_counter(), Connection.of(scope)
        request = connection.request(scope)
        verification, token = self._api.verification, None
        scheme: Scheme = "DPoP"
        try:
            ticket = self._opened(carried, scope, request, verification.clock())
            scheme = "DPoP" if ticket.proof is not None else "Bearer"
            token = await verification.access_token(ticket.access_token)
            now = verification.clock()
            _check_binding(token, ticket, now)
            evidence = Authentication(
                token, ticket.proof, ticket.nonce, _OF_NOBODY, ticket.authenticated_at, request, started
            )
            verification.authorize(evidence, NOTHING_REQUIRED, self._api.policy)
            await self._mark_as_used(ticket, token, now)
        except DPoPError as error:
            refusal = refusal_of(token, error, scheme=scheme, nonce=error.nonce)
            known = error.restated(refusal=refusal)
            self._api.report(known, request, started=started)
            try:
                raise known from error.__cause__
            finally:
                # Its traceback holds this frame, and so the ticket.
                del known
        judged = evidence._replace(policy=self._api.policy)
        connection.hold(self._api.reporter, judged)
        connection.remember(self._api, scope, judged)
        return token

    def _opened(self, carried: Carried, scope: Scope, request: ResourceRequest, now: float) -> Ticket:
        """Return the ticket of a handshake if it may be redeemed `now`; a second use isn't checked here."""
        if carried.too_many or request.fields > MAX_FIELDS:
            raise InvalidRequest(
                "the handshake has too many header fields or subprotocols", check=Check.AUTHORIZATION
            )
        if len(carried.tickets) != 1 or request.authorization or request.dpop:
            raise InvalidRequest(
                "a handshake has one ticket, or other credentials", check=Check.AUTHORIZATION
            )
        ticket = self._seal.open(carried.tickets[0])
        if ticket is None:
            raise InvalidToken(
                "the ticket is not valid here",
                check=Check.AUTHORIZATION,
                refusal=Refusal(reason=Reason.UNKNOWN_TICKET),
            )
        if not ticket.issued_at - WORKER_CLOCK_MARGIN <= now < ticket.expires_at:
            raise InvalidToken(
                "the ticket has expired", check=Check.TOKEN_TIME, expected=now, actual=ticket.expires_at
            )
        target = self._public_urls.target_uri(self._public_urls.origin_form(request))
        if target != ticket.target:
            raise InvalidToken(
                "the ticket is for another path", check=Check.TARGET, expected=ticket.target, actual=target
            )
        self._check_origin(ticket, scope, "/".join(target.split("/", 3)[:3]))
        return ticket

    def _check_origin(self, ticket: Ticket, scope: Scope, own: str) -> None:
        """Raise InvalidToken unless an allowed page opens the connection: the one that asked, if known."""
        named = field_values(scope, "origin")
        if not named and scope["type"] == "http" and field_values(scope, "sec-fetch-site") == ["same-origin"]:
            # Browsers send no Origin with a page's GET to its own origin.
            named = [own]
        allowed = (own,) if self._origins is None else self._origins
        origin = _only_one(named)
        is_unlisted = origin not in allowed
        if is_unlisted or ticket.origin not in (None, origin):
            raise InvalidToken(
                "a page of this origin may not use the ticket",
                check=Check.AUTHORIZATION,
                expected=allowed if is_unlisted else ticket.origin,
                actual=named,
                refusal=Refusal(reason=Reason.UNLISTED_PAGE if is_unlisted else None),
            )

    async def _mark_as_used(self, ticket: Ticket, token: AccessToken, now: float) -> None:
        """Let the store remember the ticket; raises DPoPError unless this is its first use."""
        entry = ReplayEntry(
            key=self._proofs.keyspace.key(jkt=_OF_TICKETS, jti=ticket.name),
            jkt=token.jkt or "",
            now=now,
            not_before=ticket.issued_at - WORKER_CLOCK_MARGIN,
            expires_at=ticket.expires_at + WORKER_CLOCK_MARGIN,
            speaks_for=f"{token.issuer} {token.identity}",
        )
        if not await self._proofs.is_first(entry):
            raise InvalidToken("the ticket was used before", check=Check.JTI)

    def _target_at(self, path: str, request: ResourceRequest) -> str:
        """Return the URI of a handshake at `path`, at the host of `request`."""
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise InvalidRequest("a ticket is for a path, without a query", check=Check.TARGET)
        urls = self._public_urls
        raw_path = path.encode().decode("latin-1")
        return urls.target_uri(urls.origin_form(request._replace(raw_path=raw_path)))


def _check_binding(token: AccessToken, ticket: Ticket, now: float) -> None:
    """Raise InvalidToken unless the token is bound as before, and has not expired."""
    check_not_expired(token, now)
    jkt = None if ticket.proof is None else ticket.proof.jkt
    if token.jkt != jkt or (jkt is None and "cnf" in token.claims):
        raise bound_to_another(token.jkt, jkt or "")


def _scope_of(request: object) -> Scope:
    scope = request.scope if isinstance(request, HTTPConnection) else request
    fits = isinstance(scope, dict) and scope.get("type") in AUTHENTICATED
    options.part("request", request, "a Starlette or FastAPI request, or an ASGI scope", fits=fits)
    return cast("Scope", scope)


def _only_one(values: Sequence[str]) -> str | None:
    return values[0] if len(values) == 1 else None


def _checked_origins(origins: object) -> tuple[str, ...]:
    takes = "origins of pages, such as ['https://app.example.com']"
    several = options.listed(origins)
    if not several or not all(isinstance(one, str) and _ORIGIN.fullmatch(one) for one in several):
        raise options.refused("origins", takes, origins)
    return several


def _checked_parameter(name: str | None) -> str | None:
    if name is None or (isinstance(name, str) and _PARAMETER.fullmatch(name)):
        return name
    raise options.refused("query_parameter", "the name of a parameter, such as 'ticket', or None", name)
