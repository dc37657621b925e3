"""A server on loopback with a thread for each connection: it may misbehave as a test chooses."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["ThreadedServer"]


class ThreadedServer:
    """Listens at `port` of `host` until the `with` block ends; `serve` is given each connection."""

    host = "127.0.0.1"

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((self.host, 0), family=family, backlog=64)
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self.start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(60)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def start(self, target: Callable[..., None], *args: object) -> None:
        """Run `target` in a thread that ends with the server."""
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def serve(self, connection: socket.socket) -> None:
        """Send something on one connection, in a thread of its own."""
        raise NotImplementedError

    def _accept(self) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.start(self.serve, connection)
