"""A protected application that returns the request that reached it, and requests with exact octets."""

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import DPoPMiddleware
from tests.support.adapters import ORIGIN, World
from tests.support.servers import exchange

__all__ = ["HOST", "Seen", "Wire", "recorder", "wire_app"]

HOST = ORIGIN.removeprefix("https://")
_MARK = b'{"reached": true'

Lines = list[str]
H2Fields = list[tuple[str, str]]


def wire_app(jwks: str, *public_urls: str) -> ASGIApp:
    """Return `recorder` behind the middleware, for tokens of another process's world: its keys as JSON."""
    api = World().server(jwks=json.loads(jwks), public_url=public_urls or None)
    return DPoPMiddleware(recorder, api, public_paths=["/public"])


async def recorder(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request to its end, then answer with its scope and its evidence."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
    body = json.dumps(_told(scope)).encode()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": body})
        await send({"type": "websocket.close"})
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _told(scope: Scope) -> dict[str, Any]:
    verified = scope.get("dpop")
    proof = None if verified is None else verified.proof
    fields: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        fields.setdefault(name.lower().decode("latin-1"), []).append(value.decode("latin-1").strip(" \t"))
    return {
        "reached": True,
        "method": scope.get("method"),
        "path": scope["path"],
        "raw_path": None if scope.get("raw_path") is None else scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "user": scope["user"].identity if scope["user"].is_authenticated else None,
        "htu": None if proof is None else proof.htu,
        "htm": None if proof is None else proof.htm,
        "authorization": fields.get("authorization", []),
        "dpop": fields.get("dpop", []),
        "hosts": fields.get("host", []),
    }


@dataclass(frozen=True)
class Seen:
    """The response: the status, 0 if the connection was closed, and the application's report."""

    status: int
    told: dict[str, Any] | None
    answer: bytes


@dataclass(frozen=True)
class Wire:
    """A world, and the server at which `wire_app` listens for it."""

    world: World
    kind: str
    origin: str

    def lines(self, path: str, *, method: str = "GET", **arguments: Any) -> Lines:
        """Return the header lines of a good request."""
        return [f"{name}: {value}" for name, value in self.world.fields(path, method=method, **arguments)]

    def send(self, target: str, *lines: str, method: str = "GET", host: str | None = HOST) -> Seen:
        """Send a request line and header lines as they are, in HTTP/1.1."""
        hosts = [] if host is None else [f"Host: {host}"]
        head = [f"{method} {target} HTTP/1.1", *hosts, "Connection: close", *lines, "", ""]
        return self.octets("\r\n".join(head).encode("latin-1"))

    def octets(self, request: bytes) -> Seen:
        """Send these bytes; of several answers the last counts."""
        return self._seen(exchange(self.origin, request))

    def continued(self, head: bytes, body: bytes) -> Seen:
        """Send a head that expects 100 (Continue), and the body once the application waits for it."""
        host, _, port = self.origin.removeprefix("http://").rpartition(":")
        received = b""
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head)
            while b"\r\n\r\n" not in received and (chunk := connection.recv(65536)):
                received += chunk
            if received.startswith(b"HTTP/1.1 100"):
                received = b""
                connection.sendall(body)
            while chunk := connection.recv(65536):
                received += chunk
        return self._seen(received)

    @staticmethod
    def _seen(answer: bytes) -> Seen:
        start = answer.rfind(_MARK)
        told = None if start < 0 else json.JSONDecoder().raw_decode(answer[start:].decode())[0]
        return Seen(int(answer.split()[1]) if answer else 0, told, answer)

    def h2(self, fields: H2Fields) -> Seen:
        """Send one HTTP/2 request of these fields, in clear with prior knowledge."""
        host, _, port = self.origin.removeprefix("http://").rpartition(":")
        settings = H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            return _H2Exchange(connection, H2Connection(settings)).run(fields)


class _H2Exchange:
    def __init__(self, connection: socket.socket, state: H2Connection) -> None:
        self._socket = connection
        self._state = state
        self._status = 0
        self._body = b""
        self._ended = False

    def run(self, fields: H2Fields) -> Seen:
        self._state.initiate_connection()
        self._flush()
        websocket = any(name == ":protocol" for name, _ in fields)
        if websocket:
            # RFC 8441 section 3: only to a server that says that it can.
            self._read()
            if not self._state.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL, 0):
                return Seen(0, None, b"")
        stream = self._state.get_next_available_stream_id()
        self._state.send_headers(
            stream,
            [(name.encode(), value.encode("latin-1")) for name, value in fields],
            end_stream=not websocket,
        )
        self._flush()
        while not self._ended and not (websocket and _MARK in self._body and b"}" in self._body):
            self._read()
        start = self._body.rfind(_MARK)
        told = None if start < 0 else json.JSONDecoder().raw_decode(self._body[start:].decode("latin-1"))[0]
        return Seen(self._status, told, self._body)

    def _flush(self) -> None:
        self._socket.sendall(self._state.data_to_send())

    def _read(self) -> None:
        try:
            received = self._socket.recv(65536)
            events = self._state.receive_data(received) if received else []
        except (ConnectionError, TimeoutError, ProtocolError):
            received, events = b"", []
        self._ended = self._ended or not received
        for event in events:
            self._handle(event)
        with contextlib.suppress(ConnectionError):
            self._flush()

    def _handle(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            fields: Any = event.headers
            self._status = int(dict(fields)[b":status"])
        elif isinstance(event, DataReceived):
            self._body += event.data or b""
        elif isinstance(event, (StreamEnded, StreamReset, ConnectionTerminated)):
            self._ended = True
