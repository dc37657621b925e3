"""Sockets with one deadline for everything and one limit for all bytes that are read.

A peer that drips bytes gains nothing. Blocking, for a thread of its own. Name resolution is the operating
system's and is bounded only by its resolver's own time-outs.
"""

import contextlib
import io
import socket
from typing import Any

from dpop_middleware.tokens.deadline import Deadline, FetchError

__all__ = ["TOO_LARGE", "BoundedSocket", "connected"]

TOO_LARGE = "the answer is larger than the limit"


class _Reader(io.RawIOBase):
    """Reads from a socket, with one deadline and one byte limit for everything."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.remaining())
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise FetchError(TOO_LARGE)
        return count


class BoundedSocket:
    """The part of a socket that http.client uses; `limit` is in bytes."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._limit = limit

    def sendall(self, data: bytes) -> None:
        """Send all of it before the deadline."""
        self._sock.settimeout(self._deadline.remaining())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader that keeps to both bounds."""
        return io.BufferedReader(_Reader(self._sock, deadline=self._deadline, limit=self._limit))

    def close(self) -> None:
        """Leave the socket open: http.client closes it while the answer is still to be read."""


def connected(host: str, port: int, *, deadline: Deadline) -> socket.socket:
    """Return a connection to the first address of `host` that answers; raises OSError for none."""
    failure = OSError("the host name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        with contextlib.ExitStack() as cleanup:
            sock = cleanup.enter_context(socket.socket(family, kind, protocol))
            # A share for each address, so that one that swallows packets leaves time for the next.
            sock.settimeout(deadline.remaining() / (len(addresses) - position))
            try:
                sock.connect(address)
            except OSError as error:
                failure = error
                continue
            cleanup.pop_all()
            return sock
    raise failure
