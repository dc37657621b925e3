"""The anchors of one server as the connection at hand has shown them, and what is to be done about them."""

from collections.abc import Iterable
from dataclasses import dataclass

from dpop_middleware.replay.buckets import Buckets
from dpop_middleware.replay.info import ServerInfo
from dpop_middleware.replay.wire import command, compare_and_set

__all__ = ["Standing"]


@dataclass(frozen=True, slots=True)
class Due:
    """An anchor to be written where `found` stands, None where nothing does."""

    found: bytes | None
    value: bytes


class Standing:
    """The buckets of one server.

    `agreed` are anchors that need no judgement, `foreign` those that only others can judge, `due` what is to
    be written. `owned` are the buckets that the server has, `unread` those of which nothing is known.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._usual: dict[int, bytes] = {}
        self.agreed: dict[int, bytes] = {}
        self.foreign: dict[int, bytes] = {}
        self.due: dict[int, Due] = {}
        self.owned: set[int] = set()
        self.unread: set[int] = set()

    @property
    def met(self) -> set[int]:
        """The buckets that were seen here."""
        return {*self.agreed, *self.foreign, *self.due}

    def own(self, buckets: Iterable[int]) -> bool:
        """The server has these buckets now, and no others; return whether some are to be read."""
        former, self.owned = self.owned, set(buckets)
        for bucket in former ^ self.owned:
            self.drop(bucket)
        self.unread = (self.unread & self.owned) | (self.owned - former)
        return bool(self.unread)

    def read_again(self) -> None:
        """Read all anchors once more: what is seen here now wasn't on another server before."""
        self.unread |= self.owned

    def drop(self, bucket: int) -> None:
        """What is known of `bucket` here doesn't count any more."""
        self.agreed.pop(bucket, None)
        self._usual.pop(bucket, None)
        self.foreign.pop(bucket, None)
        self.due.pop(bucket, None)

    def agree(self, bucket: int, value: bytes) -> None:
        """`value` stands, and that is right."""
        self.drop(bucket)
        self.agreed[bucket] = value
        self._usual[bucket] = b"$%d\r\n%b\r\n" % (len(value), value)

    def owe(self, bucket: int, found: bytes | None, value: bytes) -> None:
        """`value` is to be written where `found` stands."""
        self.due[bucket] = Due(found, value)

    def usual(self, buckets: Iterable[int]) -> bytes:
        """What reads of the anchors of `buckets` answer if nothing happened; empty where that isn't known."""
        usual = self._usual
        try:
            return b"".join([usual[bucket] for bucket in buckets])
        except KeyError:
            return b""

    def writes(self, buckets: Iterable[int], info: ServerInfo | None, *, with_script: bool) -> list[bytes]:
        """The commands that write what is due in `buckets`.

        By what `info` says the server compares as it sets, or a script does; else nothing is compared.
        """
        commands: list[bytes] = []
        if not self.due:
            return commands
        with_ifeq = info is not None and info.answers_ifeq
        for bucket in buckets:
            due = self.due.get(bucket)
            if due is None:
                continue
            name = self._buckets.anchors[bucket]
            if due.found is None:
                commands.append(command(b"SET", name, due.value, b"NX"))
            elif with_ifeq or with_script:
                commands.append(compare_and_set(name, due.found, due.value, with_ifeq=with_ifeq))
            else:
                commands.append(command(b"SET", name, due.value))
        return commands
