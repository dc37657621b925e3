"""The processes of `tests.benchmarks.flood`: servers, honest clients and the flood. All end on their own.

The parent makes the requests beforehand: these processes only use sockets.
"""

import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection as pipes
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer

HOST = "127.0.0.1"
# For this many seconds the flood runs before the honest clients start.
LEAD = 0.3
# The longest wait for an answer, in seconds.
PATIENCE = 10.0
_CONNECTIONS = 64
_BODY = b'{"note":"four thousand seven hundred and eleven"}'
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Sent:
    """The results of a sender: statuses, seconds for each answer, bytes of the requests, seconds for all."""

    statuses: Mapping[int, int]
    latencies: Sequence[float]
    sent: int
    answered: int
    seconds: float


def pin(core: int | None) -> None:
    """Bind this process to a core; None leaves it to the operating system."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with a short document."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": _BODY})


def serve(
    told: pipes.Connection, core: int | None, protection: Mapping[str, Any] | None, lifetime: float
) -> None:
    """Tell the port, then serve until the parent says so or is gone, at most `lifetime` seconds.

    `protection` are the arguments of the ResourceServer around the application; None leaves it bare.
    """
    pin(core)
    app: ASGIApp = application
    if protection is not None:
        app = DPoPMiddleware(app, ResourceServer(**protection, replay_store=MemoryReplayStore()))
    serve_application(app, told, lifetime)


def serve_application(app: ASGIApp, told: pipes.Connection, lifetime: float) -> None:
    """Tell the port, then serve until the parent says so or is gone, at most `lifetime` seconds."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    )

    def stop() -> None:
        told.poll(lifetime)
        server.should_exit = True

    with socket.create_server((HOST, 0), backlog=256) as listener:
        told.send(listener.getsockname()[1])
        threading.Thread(target=stop, daemon=True).start()
        server.run([listener])


class Connection:
    """One keep-alive connection with one request under way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.size = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes) -> None:
        self._received = b""
        self.size = len(request)
        self._socket.sendall(request)

    def status(self) -> int | None:
        """Receive once; the status when the answer is whole. Raises ConnectionError when it never will be."""
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._received += chunk
        head, end, body = self._received.partition(_END_OF_HEAD)
        if not end:
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        return int(head[9:12]) if len(body) >= int(fields[b"content-length"]) else None


def honest(port: int, requests: Sequence[bytes], rate: float) -> Sent:
    """Send each request once, `rate` a second; one that an answer made late counts from when it was due."""
    time.sleep(LEAD)
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    connection = Connection(port)
    begin = time.perf_counter()
    for number, request in enumerate(requests):
        due = begin + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
            due = time.perf_counter()
        connection.send(request)
        while (status := connection.status()) is None:
            pass
        latencies.append(time.perf_counter() - due)
        statuses[status] = statuses.get(status, 0) + 1
    connection.close()
    size = sum(map(len, requests))
    return Sent(statuses, latencies, size, size, time.perf_counter() - begin)


def flood(port: int, requests: Sequence[bytes], bytes_per_second: float, seconds: float) -> Sent:
    """Send the requests in turn for `seconds`, as fast as the bucket fills, each when it is due."""
    selector = selectors.DefaultSelector()
    connections = {one.fileno(): one for one in (Connection(port) for _ in range(_CONNECTIONS))}
    for connection in connections.values():
        selector.register(connection, selectors.EVENT_READ)
    free = deque(connections.values())
    statuses: dict[int, int] = {}
    sent = answered = number = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        while free and sent <= elapsed * bytes_per_second:
            request = requests[number % len(requests)]
            free[0].send(request)
            free.popleft()
            sent += len(request)
            number += 1
        until_due = sent / bytes_per_second - elapsed if free else PATIENCE
        for key, _ in selector.select(min(max(until_due, 0.0), seconds - elapsed)):
            connection = connections[key.fd]
            status = connection.status()
            if status is not None:
                answered += connection.size
                statuses[status] = statuses.get(status, 0) + 1
                free.append(connection)
    duration = time.perf_counter() - begin
    selector.close()
    for connection in connections.values():
        connection.close()
    return Sent(statuses, (), sent, answered, duration)
