"""The header of a JWS that nobody has vouched for yet, and the media type in it (RFC 7515 section 4)."""

from typing import Any, Final

from dpop_middleware.checks import Check
from dpop_middleware.jose import base64url, strict_json
from dpop_middleware.jose.errors import JOSEError

__all__ = ["LONGEST_HEADER", "media_type", "parse_header"]

# Encoded: 4 KiB of JSON, which has room for a key and for two certificates.
LONGEST_HEADER: Final = 5462
# Some serialisers escape each slash, of which a certificate has some thirty.
_MAX_ESCAPES: Final = 160
_OMITTED: Final = "application/"


def parse_header(segment: str, *, longest: int = LONGEST_HEADER) -> dict[str, Any]:
    """Return the JSON object that a header segment holds.

    Raises JOSEError (`Check.FORMAT`) for whatever `base64url.decode` and `strict_json.parse_untrusted_object`
    refuse, for more than `longest` characters, by default those of 4 KiB of JSON, and for more than 160
    backslashes. What the members mean is not checked.
    """
    if len(segment) > longest:
        raise JOSEError("a header is too large", check=Check.FORMAT)
    return strict_json.parse_untrusted_object(base64url.decode(segment), max_escapes=_MAX_ESCAPES)


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
