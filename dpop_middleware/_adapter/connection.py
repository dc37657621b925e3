"""One ASGI connection: its request as the resource server sees it, its verdicts, its answer.

The common part of all framework adapters is here, and nothing is decided: a connection scope becomes a
`ResourceRequest`, an error becomes messages.
"""

import asyncio

from starlette.authentication import AuthCredentials, BaseUser, UnauthenticatedUser
from starlette.types import Scope

from dpop_middleware._judge.request import RequestVerification
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._judge.verdicts import (
    Authentication,
    Headers,
    VerifiedRequest,
    nonce_headers,
)
from dpop_middleware._options import part
from dpop_middleware._request.request import MAX_FIELDS, ResourceRequest
from dpop_middleware._runtime import check_event_loop
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.events import HeldAcceptances, Reporter
from dpop_middleware.resource_server import ResourceServer

__all__ = [
    "AUTHENTICATED",
    "Connection",
    "DPoPUser",
    "anonymize",
    "check_scope_type",
    "checked_resource_server",
    "has_credentials",
]

AUTHENTICATED = ("http", "websocket")
_CONNECTION = "dpop_middleware.connection"
_TICKET = "dpop_middleware.ticket"
_Judged = tuple[RequestVerification, str]
_Remembered = tuple[ResourceRequest, ResourceServer, Authentication | DPoPError]


class DPoPUser(BaseUser):
    """The user or client of a verified access token: `request.user`."""

    def __init__(self, verified: VerifiedRequest) -> None:
        self.access_token = verified.access_token

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The user or client of the token: the same as `identity`."""
        return self.access_token.identity

    @property
    def identity(self) -> str:
        """The token's subject, or `client:` and its client if it has no subject: `AccessToken.identity`."""
        return self.access_token.identity


class Connection:
    """State that the framework adapters of one connection share: past verdicts, response header fields.

    A request is verified once: a second time would be a replay. The verdict is remembered for a resource
    server and its siblings, and for the path on which the request is routed: a layer that rewrites a path may
    leave `raw_path` unchanged, and the verdict on one path doesn't hold for another.
    """

    __slots__ = ("_outcomes", "_root_path", "_turns", "held", "latest", "middleware", "response_headers")

    def __init__(self) -> None:
        self._outcomes: dict[_Judged, _Remembered] = {}
        self._turns: dict[_Judged, asyncio.Event | None] = {}
        self._root_path: str | None = None
        self.held: HeldAcceptances | None = None
        self.latest: ResourceRequest | None = None
        self.middleware: list[ResourceServer] = []
        self.response_headers: Headers = ()

    @classmethod
    def of(cls, scope: Scope) -> "Connection":
        """Return the connection of an ASGI scope; scopes that were copied from it share it."""
        connection = scope.get(_CONNECTION)
        if connection is None:
            connection = scope[_CONNECTION] = cls()
            # uvicorn with httptools adds chunked trailers to the list of a request that is being served: the
            # fields that are judged and those that the application reads must be the same (RFC 9110 section
            # 6.5.1).
            scope["headers"] = list(scope["headers"])
        return connection

    def evidence(self, resource_server: ResourceServer, verified: VerifiedRequest) -> Authentication | None:
        """Return the evidence for `verified` at `resource_server` or a sibling, None if there is none."""
        for (verification, _), (_, _, outcome) in self._outcomes.items():
            if verification is not resource_server.verification or isinstance(outcome, DPoPError):
                continue
            if outcome.access_token is verified.access_token:
                return outcome
        return None

    def remember(self, resource_server: ResourceServer, scope: Scope, evidence: Authentication) -> None:
        """Use `evidence`, which is of an earlier request, for the connection of `scope` too."""
        request = self.request(scope)
        self._outcomes[resource_server.verification, scope["path"]] = request, resource_server, evidence
        scope[_TICKET] = True

    def request(self, scope: Scope) -> ResourceRequest:
        """Return the request of `scope`, at the root path that the first adapter saw.

        Frameworks change `root_path` on the way inside; for the client it is still one request.
        """
        request = ResourceRequest.from_scope(scope)
        if self._root_path is None:
            self._root_path = request.root_path
        if request.root_path != self._root_path:
            request = request._replace(root_path=self._root_path)
        self.latest = request
        return request

    def hold(self, reporter: Reporter, evidence: Authentication) -> None:
        """Hold the acceptance back, if an adapter holds acceptances."""
        if self.held is not None:
            self.held.keep(reporter, evidence)

    async def authenticate(
        self, resource_server: ResourceServer, scope: Scope, requirements: Requirements
    ) -> VerifiedRequest:
        """Authenticate the connection of `scope` as `judge` does.

        Raises `errors.DPoPError` for a refusal, and ConfigurationError for a scope that is neither a
        request's nor a WebSocket's.
        """
        check_event_loop()
        check_scope_type(scope)
        verdict = await self.judge(resource_server, scope, requirements)
        if isinstance(verdict, DPoPError):
            # A copy: a traceback holds this frame, and so the connection.
            raise verdict.restated()
        return verdict

    async def judge(
        self, resource_server: ResourceServer, scope: Scope, requirements: Requirements
    ) -> VerifiedRequest | DPoPError:
        """Authenticate the connection of `scope` once, and show the application the caller.

        Sets `scope["user"]`, `scope["auth"]` and `scope["dpop"]`. Adapters that run at the same time wait for
        one another. A refusal is returned, also for a request that was refused before. The caller must check
        the event loop and the type of the scope.
        """
        request = self.request(scope)
        key = (resource_server.verification, scope["path"])
        while key in self._turns:
            await self._turn(key)
        outcome = self._recall(key, request, resource_server) if key in self._outcomes else None
        recalled = outcome is not None
        if outcome is None:
            self._turns[key] = None
            try:
                # By the public method: a user's subclass may check more there.
                outcome = await resource_server.verify(request)
            except DPoPError as error:
                # Its traceback holds this frame, and so the connection.
                outcome = error.with_traceback(None)
            finally:
                turn = self._turns.pop(key)
                if turn is not None:
                    turn.set()
            self._outcomes[key] = request, resource_server, outcome
        if isinstance(outcome, DPoPError):
            return self._refused(outcome, resource_server)
        try:
            verified = resource_server.authorize(
                outcome, requirements, recalled=recalled, reports=self.held is None
            )
        except DPoPError as error:
            return self._refused(error, resource_server)
        if not recalled:
            self.hold(resource_server.reporter, outcome)
        scope["user"] = DPoPUser(verified)
        scope["auth"] = AuthCredentials(["authenticated", *sorted(verified.access_token.scopes)])
        scope["dpop"] = verified
        if verified.response_headers:
            self.response_headers = verified.response_headers
        return verified

    def _refused(self, error: DPoPError, resource_server: ResourceServer) -> DPoPError:
        if self.held is not None:
            self.held.drop(resource_server.reporter)
        nonce = error.refusal.nonce
        if nonce is not None:
            self.response_headers = nonce_headers(nonce)
        return error

    async def _turn(self, key: _Judged) -> None:
        """Wait until a running verification for `key` is done."""
        turn = self._turns[key]
        if turn is None:
            turn = self._turns[key] = asyncio.Event()
        await turn.wait()

    def _recall(
        self, key: _Judged, request: ResourceRequest, resource_server: ResourceServer
    ) -> Authentication | DPoPError | None:
        """Return the verdict on an equal request, None when it must be verified.

        Layers between two adapters of a connection may add header fields; it is still one request. A request
        that one policy refused is verified under another, unless the replay store was asked: until then
        nothing was written, after that a second question would be a replay.
        """
        earlier, judge, outcome = self._outcomes[key]
        if earlier._replace(fields=request.fields) != request:
            return None
        if (
            isinstance(outcome, Authentication)
            or outcome.check is Check.JTI
            or judge.policy == resource_server.policy
        ):
            return outcome
        return None


def checked_resource_server(
    server: ResourceServer, *, option: str = "resource_server", takes: str = "a ResourceServer"
) -> ResourceServer:
    """Return `server`; raises ConfigurationError, by `option` and what it `takes`, for anything else."""
    return part(option, server, takes, fits=isinstance(server, ResourceServer))


def check_scope_type(scope: Scope) -> None:
    """Raise ConfigurationError for a scope that is neither a request nor a WebSocket handshake.

    DPoP (RFC 9449) defines authentication for these two only.
    """
    kind = scope.get("type")
    if kind not in AUTHENTICATED:
        raise ConfigurationError(
            f"the ASGI scope type {ascii(kind)[:80]} can't be authenticated by DPoP: only http and websocket "
            "can; serve it by an application outside the protection"
        )


def anonymize(scope: Scope) -> None:
    """Remove every result of DPoP from `scope`; a user that another middleware has set stays."""
    scope.pop("dpop", None)
    if "user" not in scope or isinstance(scope["user"], DPoPUser):
        scope["user"] = UnauthenticatedUser()
        scope["auth"] = AuthCredentials()


def has_credentials(scope: Scope) -> bool:
    """Whether the request of `scope` has an `Authorization` field, or too many fields to look for one.

    It is also true for a request whose ticket was redeemed.
    """
    if _TICKET in scope:
        return True
    fields = list(scope["headers"])
    return len(fields) > MAX_FIELDS or any(name.lower() == b"authorization" for name, _ in fields)
