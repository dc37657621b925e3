"""The header of a JWS that nobody has vouched for yet, and the media type in it (RFC 7515 section 4)."""

from typing import Any, Final

from dpop_middleware.checks import Check
from dpop_middleware.jose import base64url
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.jose.strict_json import Bounds, parse_untrusted_object

__all__ = ["HEADER", "media_type", "parse_header"]

# Room for a key and for two certificates; some serialisers escape each slash, of which one has some thirty.
HEADER: Final = Bounds(size=4 * 1024, structure=256, containers=16, escapes=160)
"""The bounds of a header."""

_OMITTED: Final = "application/"


def parse_header(segment: str, bounds: Bounds = HEADER) -> dict[str, Any]:
    """Return the JSON object that a header segment holds.

    Raises JOSEError (`Check.FORMAT`) for whatever `base64url.decode` and `parse_untrusted_object` refuse, and
    for more characters than `bounds` has bytes for. What the members mean is not checked.
    """
    if len(segment) > -(-bounds.size * 4 // 3):
        raise JOSEError("a header is too large", check=Check.FORMAT)
    return parse_untrusted_object(base64url.decode(segment), bounds)


def media_type(typ: object) -> str | None:
    """Return the media type that `typ` names, in its short form and in lower case; None for no such name.

    `application/` may be left out where no other slash is in it, and case doesn't matter. Nothing else is
    unified: a parameter, white space or another prefix make another value.
    """
    # ASCII first: lower() makes a "k" of the Kelvin sign.
    if not isinstance(typ, str) or not typ.isascii():
        return None
    name = typ.lower()
    short = name.removeprefix(_OMITTED)
    return short if short and "/" not in short else name
