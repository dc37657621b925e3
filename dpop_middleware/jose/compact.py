"""The compact serialisation of a JWS, taken apart (RFC 7515 section 7.1)."""

from typing import NamedTuple

from dpop_middleware.checks import Check
from dpop_middleware.jose.errors import JOSEError

__all__ = ["CompactJWS", "split"]


class CompactJWS(NamedTuple):
    """The three segments of a compact JWS, each still encoded (RFC 7515 section 7.1).

    `signing_input` is what the signature covers (RFC 7515 section 5.2).
    """

    header: str
    payload: str
    signature: str
    signing_input: bytes

    def __repr__(self) -> str:
        return "CompactJWS()"


def split(text: str) -> CompactJWS:
    """Take a compact JWS apart.

    Raises JOSEError (`Check.FORMAT`) unless there are exactly three segments in ASCII. A JWE, which has five,
    is refused by that. What the segments hold is not checked.
    """
    if not text.isascii():
        raise JOSEError("a compact JWS is ASCII", check=Check.FORMAT)
    # Not str.split: it looks at each character by itself.
    header, _, rest = text.partition(".")
    payload, dot, signature = rest.partition(".")
    if not dot or "." in signature:
        raise JOSEError("a compact JWS has three segments", check=Check.FORMAT)
    return CompactJWS(header, payload, signature, text[: -len(signature) - 1].encode())
