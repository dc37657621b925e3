"""A real HTTP or HTTPS server on loopback that plays an issuer, well-behaved or not."""

import json
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.threaded import ThreadedServer

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Asked:
    """One request as it arrived: the target, and the header fields in lower case."""

    target: str
    headers: Mapping[str, str]


# The actions on the connection: bytes to send, or seconds to pause.
Script = Iterable[bytes | float]
Handler = Callable[[Asked], Script]


def answer(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None, length: int | None = None
) -> Script:
    """A complete answer; `length` is the value of Content-Length, if it is to be wrong."""
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if length is None else length),
    }
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in (fields | dict(headers or {})).items())]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n", body]


def json_answer(document: object) -> Script:
    return answer(json.dumps(document).encode())


def not_found(_asked: Asked) -> Script:
    return answer(b"{}", status=404)


def drip(data: bytes, *, pause: float) -> Script:
    """One byte after another, so that every single read succeeds in time."""
    for position in range(len(data)):
        yield data[position : position + 1]
        yield pause


@dataclass
class IssuerServer(ThreadedServer):
    """Serves `handlers` by path (what isn't there is 404) until the `with` block ends.

    `tls` makes it an HTTPS server; `before` plays a script right after the connection is accepted, before
    any handshake.
    """

    handlers: dict[str, Handler] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    before: Callable[[], Script] | None = None
    host: str = "127.0.0.1"
    asked: list[Asked] = field(default_factory=list)

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [asked.target for asked in self.asked]

    def publish(self, jwks: Mapping[str, Any], *, issuer: str | None = None) -> None:
        """Answer as a well-behaved issuer: metadata (RFC 8414) and keys."""
        self.handlers[METADATA] = lambda _: json_answer(
            {"issuer": issuer or self.origin, "jwks_uri": f"{self.origin}/jwks"}
        )
        self.handlers["/jwks"] = lambda _: json_answer(jwks)

    def serve(self, connection: socket.socket) -> None:
        # The client may disconnect at any time: some tests are about that.
        with suppress(OSError), connection:
            connection.settimeout(5)
            if self.before is not None:
                self._play(connection, self.before())
            if self.tls is None:
                self._answer(connection)
            else:
                with self.tls.wrap_socket(connection, server_side=True) as secure:
                    self._answer(secure)

    def _answer(self, connection: socket.socket) -> None:
        asked = self._read(connection)
        self.asked.append(asked)
        handler = self.handlers.get(asked.target.partition("?")[0], not_found)
        self._play(connection, handler(asked))

    def _read(self, connection: socket.socket) -> Asked:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._piece(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("ascii").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(fields.get("content-length", 0)):
            body += self._piece(connection)
        return Asked(request_line.split(" ")[1], fields)

    def _piece(self, connection: socket.socket) -> bytes:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError
        return piece

    def _play(self, connection: socket.socket, script: Script) -> None:
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif self.stopped.wait(step):
                return
