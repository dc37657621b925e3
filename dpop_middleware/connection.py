"""One ASGI connection: its request as the resource server sees it, its verdicts, its answer.

What every face does alike is here, and nothing is decided: a connection scope becomes a `ResourceRequest`, an
error becomes messages.
"""

from dataclasses import replace

from starlette.authentication import AuthCredentials, BaseUser
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import Message, Scope, Send

from dpop_middleware.challenges import ErrorResponse, Headers, nonce_headers
from dpop_middleware.errors import DPoPError
from dpop_middleware.once import RequestMemory
from dpop_middleware.request import MAX_FIELDS, ResourceRequest
from dpop_middleware.requirements import Requirements
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.verdicts import VerifiedRequest

__all__ = [
    "Connection",
    "DPoPUser",
    "adding_headers",
    "authenticate",
    "can_deny",
    "has_credentials",
    "raw_headers",
    "send_refusal",
]

_CONNECTION = "dpop_middleware.connection"
_WITH_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class DPoPUser(BaseUser):
    """The user whom a verified access token speaks for: `request.user`."""

    def __init__(self, verified: VerifiedRequest) -> None:
        self.access_token = verified.access_token

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The token's subject."""
        return self.access_token.subject

    @property
    def identity(self) -> str:
        """The token's subject."""
        return self.access_token.subject


class Connection:
    """What the faces of one connection share: past verdicts, and header fields for its response."""

    __slots__ = ("_memories", "_root_path", "middleware", "response_headers")

    def __init__(self) -> None:
        self._memories: dict[str, RequestMemory] = {}
        self._root_path: str | None = None
        self.middleware: list[ResourceServer] = []
        self.response_headers: Headers = ()

    @classmethod
    def of(cls, scope: Scope) -> "Connection":
        """Return the connection of an ASGI scope; scopes that were copied from it share it."""
        connection = scope.get(_CONNECTION)
        if connection is None:
            connection = scope[_CONNECTION] = cls()
        return connection

    def request(self, scope: Scope) -> ResourceRequest:
        """Return the request of `scope`, at the root path that the first face saw.

        Frameworks change `root_path` on the way inside; for the client it stays one request.
        """
        request = ResourceRequest.from_scope(scope)
        if self._root_path is None:
            self._root_path = request.root_path
        return (
            request if request.root_path == self._root_path else replace(request, root_path=self._root_path)
        )

    def memory(self, scope: Scope) -> RequestMemory:
        """Return what was found out about the path on which `scope` is routed.

        What rewrites a path may leave `raw_path` as it was: the verdict on one path is none on another.
        """
        path = scope["path"]
        if path not in self._memories:
            self._memories[path] = RequestMemory()
        return self._memories[path]


async def authenticate(
    resource_server: ResourceServer, scope: Scope, requirements: Requirements
) -> VerifiedRequest:
    """Authenticate the connection of `scope` once, and show the application who it is.

    Sets `scope["user"]`, `scope["auth"]` and `scope["dpop"]`. Raises `errors.DPoPError`.
    """
    connection = Connection.of(scope)
    try:
        verified = await resource_server.authenticate(
            connection.request(scope), requirements=requirements, memory=connection.memory(scope)
        )
    except DPoPError as error:
        if error.nonce is not None:
            connection.response_headers = nonce_headers(error.nonce)
        raise
    scope["user"] = DPoPUser(verified)
    scope["auth"] = AuthCredentials(["authenticated", *sorted(verified.access_token.scopes)])
    scope["dpop"] = verified
    if verified.response_headers:
        connection.response_headers = verified.response_headers
    return verified


def has_credentials(scope: Scope) -> bool:
    """Whether the request of `scope` has an `Authorization` field, or too many fields to look for one."""
    fields = list(scope["headers"])
    return len(fields) > MAX_FIELDS or any(name.lower() == b"authorization" for name, _ in fields)


def raw_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return header fields as ASGI has them, in order, a repeated name as often as it comes."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def adding_headers(send: Send, connection: Connection) -> Send:
    """Return a `send` that puts the connection's response headers in place of any of their names."""

    async def send_with_headers(message: Message) -> None:
        if connection.response_headers and message["type"] in _WITH_HEADERS:
            added = raw_headers(connection.response_headers)
            names = {name for name, _ in added}
            kept = [field for field in message.get("headers", ()) if field[0].lower() not in names]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_with_headers


async def send_refusal(response: ErrorResponse, scope: Scope, send: Send) -> None:
    """Answer a request, or a WebSocket handshake that was not accepted yet, with `response`.

    A server without the denial extension answers a handshake by closing it, which clients see as a 403.
    """
    prefix = ""
    if scope["type"] == "websocket":
        if not can_deny(scope):
            await send({"type": "websocket.close", "code": WS_1008_POLICY_VIOLATION})
            return
        prefix = "websocket."
    await send(
        {
            "type": f"{prefix}http.response.start",
            "status": response.status,
            "headers": raw_headers(response.headers),
        }
    )
    await send({"type": f"{prefix}http.response.body", "body": response.body})


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer the WebSocket handshake of `scope` with an HTTP response."""
    return "websocket.http.response" in (scope.get("extensions") or {})
