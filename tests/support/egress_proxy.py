"""An egress proxy on loopback: it opens tunnels to names that only it can resolve."""

import contextlib
import socket
from dataclasses import dataclass, field

from tests.support.threaded import ThreadedServer

__all__ = ["EgressProxy"]


@dataclass
class EgressProxy(ThreadedServer):
    """Tunnels every CONNECT to the loopback port `to`; `asked` holds the heads of the requests.

    `answer` is its response before the tunnel, or instead of it if the status isn't 2xx.
    """

    to: int
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    asked: list[str] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            self.asked.append(head.decode("ascii"))
            connection.sendall(self.answer)
            if self.answer.split(b" ")[1][:1] == b"2":
                with socket.create_connection(("127.0.0.1", self.to), timeout=5) as server:
                    self.start(self._pass_on, server, connection)
                    self._pass_on(connection, server)

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
