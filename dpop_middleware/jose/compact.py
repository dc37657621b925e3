"""A compact JWS of an untrusted sender: its segments, its header, and the media type in the header.

RFC 7515 sections 7.1 and 4.
"""

from typing import Any, Final, NamedTuple

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.jose.strict_json import Bounds, parse_untrusted_object

__all__ = ["HEADER", "CompactJWS", "media_type", "parse_header", "split"]

# Room for a key and two certificates; some serialisers escape each slash, and a certificate has about thirty.
HEADER: Final = Bounds(size=4 * 1024, structure=256, containers=16, escapes=160, fractions=True)
"""The bounds of a header."""

_OMITTED: Final = "application/"


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
    """Split a compact JWS.

    Raises JOSEError (`Check.FORMAT`) unless there are exactly three segments in ASCII. A JWE, which has five,
    is refused too. The contents of the segments are not checked.
    """
    if not text.isascii():
        raise JOSEError("a compact JWS is ASCII", check=Check.FORMAT)
    # Not str.split: it examines each character separately.
    header, _, rest = text.partition(".")
    payload, dot, signature = rest.partition(".")
    if not dot or "." in signature:
        raise JOSEError("a compact JWS has three segments", check=Check.FORMAT)
    return CompactJWS(header, payload, signature, text[: -len(signature) - 1].encode())


def parse_header(segment: str, bounds: Bounds = HEADER) -> dict[str, Any]:
    """Return the JSON object in a header segment.

    Raises JOSEError (`Check.FORMAT`) for everything that `base64url.decode` and `parse_untrusted_object`
    refuse, and for more characters than `bounds` allows. The meaning of the members is not checked.
    """
    if len(segment) > -(-bounds.size * 4 // 3):
        raise JOSEError("a header is too large", check=Check.FORMAT)
    return parse_untrusted_object(base64url.decode(segment), bounds)


def media_type(typ: object) -> str | None:
    """Return the media type that `typ` names, in its short form and in lower case; None if it isn't one.

    `application/` may be left out if there is no other slash, and case doesn't matter. Nothing else is
    unified: with a parameter, white space or another prefix it is another value.
    """
    # ASCII first: lower() turns the Kelvin sign into a "k".
    if not isinstance(typ, str) or not typ.isascii():
        return None
    name = typ.lower()
    short = name.removeprefix(_OMITTED)
    return short if short and "/" not in short else name
