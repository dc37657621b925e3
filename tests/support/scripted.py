"""A server with the replies that a test chooses: old versions, narrow permissions, odd replies."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.model import told_time
from tests.support.valkey import HOST

__all__ = ["Reporting", "ScriptedServer", "Words", "bulk", "info", "shown"]

Words = tuple[bytes, ...]
Reply = bytes | None


def bulk(data: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def info(version: str = "7.2.0") -> bytes:
    """A server's reply to INFO."""
    identity = f"run_id:{'a' * 40}\r\nmaster_replid:{'b' * 40}"
    return bulk(
        f"redis_version:{version}\r\n{identity}\r\nuptime_in_seconds:9999\r\nrole:master\r\n".encode()
    )


def shown(moment: float) -> bytes:
    """What a server says to TIME whose clock shows `moment`."""
    return b"*2\r\n" + b"".join(map(bulk, told_time(moment)))


class Reporting:
    """The report of a server whose clock steps by `step`, and which refuses the commands `hides`.

    The rest is of its process and its data, as INFO names it.
    """

    def __init__(self, *hides: bytes) -> None:
        self.step = 0.0
        self.uptime = 9999
        self.run_id, self.replication_id, self.former_id = "a" * 40, "b" * 40, "0" * 40
        self._hides = hides

    def __call__(self, words: Words) -> bytes | None:
        now = time.time() + self.step
        if words[0] in self._hides:
            return b"-NOPERM this user has no permissions to run it\r\n"
        if words[0] == b"TIME":
            return shown(now)
        if words[0] != b"INFO":
            return None
        return bulk(
            f"redis_version:7.2.0\r\nrole:master\r\nrun_id:{self.run_id}\r\n"
            f"master_replid:{self.replication_id}\r\nmaster_replid2:{self.former_id}\r\n"
            f"uptime_in_seconds:{self.uptime}\r\nserver_time_usec:{int(now * 1e6)}\r\n".encode()
        )


class ScriptedServer:
    """Keeps keys like a server would, but first asks `script` for a reply to each command's words.

    Where `script` has none, it answers from its keys. Every command is remembered in `commands`; `open` says
    how many connections are open now, `opened` how many there were, and `asking` the number of the one whose
    command `script` sees.
    """

    def __init__(self, script: Callable[[Words], Reply] = lambda words: None) -> None:
        self.script = script
        self.commands: list[Words] = []
        self.keys: dict[bytes, bytes] = {}
        self.open = 0
        self.opened = 0
        self.asking = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._held = b""
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}?protocol=2"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.release()
        self.cut()
        while self.open:
            await asyncio.sleep(0)

    def asked(self, name: bytes, about: bytes) -> int:
        """How many commands `name` there were with `about` in their first argument."""
        return len([words for words in self.commands if words[0] == name and about in words[1]])

    def expire(self) -> None:
        """Drop what has a lifetime: all but the anchors."""
        self.keys = {name: value for name, value in self.keys.items() if b"anchor" in name}

    def hold(self, name: bytes) -> None:
        """From now on hold back the reply to each command `name`, and all later replies on its connection."""
        self._held = name
        self._released.clear()

    def release(self) -> None:
        """Send every reply that was held back."""
        self._held = b""
        self._released.set()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def push(self, data: bytes) -> None:
        """Send something unrequested."""
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.open += 1
        self.opened = number = self.opened + 1
        try:
            while True:
                count = int((await reader.readline())[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.commands.append(tuple(words))
                if words[0] == self._held:
                    await self._released.wait()
                self.asking = number
                reply = self.script(tuple(words))
                writer.write(self._reply(tuple(words)) if reply is None else reply)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self.open -= 1

    def _reply(self, words: Words) -> bytes:
        match words:
            case b"INFO", *_:
                return info()
            case (b"TIME",):
                return shown(time.time())
            case b"GET", name:
                return bulk(self.keys[name]) if name in self.keys else b"$-1\r\n"
            case b"SET", name, value, b"NX", b"GET", *_:
                known = self.keys.setdefault(name, value) if name in self.keys else None
                self.keys.setdefault(name, value)
                return b"$-1\r\n" if known is None else bulk(known)
            case b"SET", name, value, b"NX", *_:
                if name in self.keys:
                    return b"$-1\r\n"
                self.keys[name] = value
            case b"EVAL", _, b"1", name, found, value:
                if self.keys.get(name) == found:
                    self.keys[name] = value
            case b"SET", name, value, b"XX":
                is_there = name in self.keys
                self.keys |= {name: value} if is_there else {}
                return b"+OK\r\n" if is_there else b"$-1\r\n"
            case _:
                pass
        return b"+OK\r\n"
