"""Ports of loopback for programs that must be told theirs before they start."""

import contextlib
import secrets
import socket
from collections import deque

__all__ = ["HOST", "free_port"]

HOST = "127.0.0.1"
# Below those that the system lends to outgoing connections: none of them can take the port of a program that
# is about to start, or to start again.
PORTS = range(11_000, 15_000)
# A cluster node's second port is its first plus 10,000.
SECOND_PORT = 10_000
# Who gets a port marks it for all processes of the tests, by the datagram socket of its number. The newest
# marks are kept.
MARKS = 100
_marks = deque[socket.socket]()


def free_port() -> int:
    """Return an unused port, whose second one is unused too.

    No other process of the tests gets it while it is marked.
    """
    start = secrets.randbelow(len(PORTS))
    ports: list[int] = [*PORTS[start:], *PORTS[:start]]
    for port in ports:
        with contextlib.suppress(OSError):
            _marks.append(_marked(port))
            if len(_marks) > MARKS:
                _marks.popleft().close()
            return port
    raise OSError("no free port")


def _marked(port: int) -> socket.socket:
    mark = socket.socket(type=socket.SOCK_DGRAM)
    try:
        mark.bind((HOST, port))
        for number in (port, port + SECOND_PORT):
            with socket.socket() as probe:
                probe.bind((HOST, number))
    except OSError:
        mark.close()
        raise
    return mark
