"""The compact serialisation of a JWS, taken apart (RFC 7515 section 7.1)."""

from dataclasses import dataclass, field
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.jose.errors import JOSEError

__all__ = ["CompactJWS", "split"]

_SEGMENTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactJWS:
    """The three segments of a compact JWS, each still encoded (RFC 7515 section 7.1)."""

    header: str = field(repr=False)
    payload: str = field(repr=False)
    signature: str = field(repr=False)

    @property
    def signing_input(self) -> bytes:
        """The bytes that the signature covers (RFC 7515 section 5.2)."""
        return f"{self.header}.{self.payload}".encode("ascii")


def split(text: str) -> CompactJWS:
    """Take a compact JWS apart.

    Raises JOSEError (`Check.FORMAT`) unless there are exactly three segments in ASCII. A JWE, which has five,
    is refused by that. What the segments hold is not checked.
    """
    if not text.isascii():
        raise JOSEError("a compact JWS is ASCII", check=Check.FORMAT)
    segments = text.split(".", _SEGMENTS)
    if len(segments) != _SEGMENTS:
        raise JOSEError("a compact JWS has three segments", check=Check.FORMAT)
    return CompactJWS(header=segments[0], payload=segments[1], signature=segments[2])
