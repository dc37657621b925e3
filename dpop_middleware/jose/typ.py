"""The `typ` of a JOSE header, as the media type that it names (RFC 7515 section 4.1.9)."""

from typing import Final

__all__ = ["media_type"]

_OMITTED: Final = "application/"


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
