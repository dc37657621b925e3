"""The path of a URI: percent-encoding and dot segments, at a cost that depends on the length alone.

A path has one character for each octet here. Differences without a meaning are unified, all others are kept.
"""

import re
from binascii import a2b_qp
from typing import Final

__all__ = [
    "NOT_IN_A_PATH",
    "URIError",
    "check_request_path",
    "encoded",
    "has_dot_segment",
    "is_normal",
    "quoted",
    "without_dot_segments",
]

_MAX_PATH: Final = 4 * 1024
# How many octets of a path may be, or must be, percent-encoded: each is handled separately.
_MAX_REWRITTEN: Final = 256
# Of a path that the server has decoded, each such part is encoded separately.
_MAX_QUOTED_PARTS: Final = 128
# Removing dot segments is a loop over the segments.
_MAX_DOTTED: Final = 256

_HEX: Final = "0123456789ABCDEFabcdef"
_UNRESERVED: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
# A path of these octets alone is in normal form, if it has no dot segment.
_KEPT: Final = (_UNRESERVED + "!$&'()*+,;=:@/").encode()
_PERCENT: Final = b"%"


# A table with which `translate` changes every other octet. To delete octets, it would build a table at each
# call: most paths are shorter than that.
_ONLY_KEPT: Final = bytes(octet if octet in _KEPT else _KEPT[0] for octet in range(256))

_TO_QUOTE: Final = re.compile(b"[^%s]+" % re.escape(_KEPT))
NOT_IN_A_PATH: Final = re.compile(f"[^{re.escape((_KEPT + _PERCENT).decode())}]")
"""A character that a path can't have, not even as a part of percent-encoding."""

_ENCODED: Final = {chr(octet): f"%{octet:02X}" for octet in range(256)}
# The two digits after a percent sign, and the text for both.
_DECODED: Final = {
    digits: chr(int(digits, 16)) if chr(int(digits, 16)) in _UNRESERVED else f"%{digits.upper()}"
    for digits in (high + low for high in _HEX for low in _HEX)
}

# Percent-encoding becomes quoted-printable, which is decoded at C speed: octets with a meaning there are
# replaced, and so is a slash, so that an encoded slash can be distinguished from it.
_QUOTED_PRINTABLE: Final = bytes.maketrans(b"%=\r\n/", b"=xxx\0")
_DECODED_DOTS: Final = (b"\0.\0", b"\0..\0")


class URIError(ValueError):
    """A URI, a path or a `Host` field that can't be accepted; the message is a fixed sentence."""


def _octets(path: str) -> bytes:
    try:
        return path.encode("latin-1")
    except UnicodeEncodeError as error:
        raise URIError("the path is not a string of octets") from error


def _to_rewrite(octets: bytes) -> bytes:
    """Return the octets that keep a path from being normal, or raise URIError for too many of them."""
    rewritten = octets.translate(None, _KEPT)
    if len(rewritten) > _MAX_REWRITTEN:
        raise URIError("the path has too many characters that are or must be percent-encoded")
    return rewritten


def encoded(path: str) -> str:
    """Return a path that is percent-encoded only where it must be (RFC 3986 sections 2.1, 6.2.2).

    `path` has one character for each octet. Raises URIError for any other character, for malformed
    percent-encoding, and where over 256 characters are or must be percent-encoded.
    """
    octets = _octets(path)
    if octets.translate(_ONLY_KEPT) == octets:
        return path
    rewritten = _to_rewrite(octets)
    if rewritten.strip(_PERCENT):
        path = NOT_IN_A_PATH.sub(lambda found: _ENCODED[found[0]], path)
    first, *others = path.split("%")
    try:
        return first + "".join(
            [_DECODED[other] if len(other) == 2 else _DECODED[other[:2]] + other[2:] for other in others]
        )
    except KeyError as error:
        raise URIError("the percent-encoding is malformed") from error


def quoted(path: str) -> str:
    """Return a decoded path as clients send it (RFC 3986 section 2.1); the cost depends on the length alone.

    One that is refused, whatever it contains, is returned in another form: of a path of over 4 KiB the
    beginning; one with over 128 parts that must be encoded with a first slash that is encoded too.
    """
    octets = path[: _MAX_PATH + 1].encode("utf-8", "surrogatepass")[: _MAX_PATH + 1]
    encoded_parts, parts = _TO_QUOTE.subn(_percent_encoded, octets, _MAX_QUOTED_PARTS + 1)
    if parts > _MAX_QUOTED_PARTS:
        return f"%2F{encoded_parts[1:].decode('latin-1')}"
    return encoded_parts.decode("ascii")


def _percent_encoded(found: re.Match[bytes]) -> bytes:
    return f"%{found[0].hex('%').upper()}".encode("ascii")


def has_dot_segment(path: str) -> bool:
    """Whether a path has a segment `.` or `..`, not percent-encoded."""
    return "/." in path and ("/./" in path or "/../" in path or path.endswith(("/.", "/..")))


def without_dot_segments(path: str) -> str:
    """Return a path without its dot segments (RFC 3986 section 5.2.4).

    Raises URIError where it has some, and more than 256 segments.
    """
    if not has_dot_segment(path):
        return path
    segments = path.split("/")[1:]
    if len(segments) > _MAX_DOTTED:
        raise URIError("the path has dot segments and too many segments")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def is_normal(path: str) -> bool:
    """Whether a path that starts with a slash is in normal form, without percent-encoding: a quick check."""
    # It says False of `/.well-known` too, which costs only time.
    return path.isascii() and "/." not in path and (octets := path.encode()).translate(_ONLY_KEPT) == octets


def check_request_path(raw_path: str) -> None:
    """Raise URIError for a path that is ambiguous or over 4 KiB; the cost depends on the length alone."""
    if len(raw_path) > _MAX_PATH:
        raise URIError("the request's path is too long")
    if raw_path[:1] != "/":
        raise URIError("the request's path doesn't start with a slash, or needs too much percent-encoding")
    if is_normal(raw_path):
        return
    octets = _octets(raw_path.partition("?")[0])
    if b"%00" in octets or b"\0" in octets:
        # Below, this octet represents a slash.
        if has_dot_segment(encoded(octets.decode("latin-1"))):
            raise URIError("the request's path has a dot segment")
        return
    decoded = octets.translate(_QUOTED_PRINTABLE)
    if _PERCENT in octets:
        decoded = a2b_qp(decoded)
        if len(octets) - len(decoded) != 2 * octets.count(_PERCENT):
            raise URIError("the percent-encoding is malformed")
    if b"\0." in decoded and (
        any(dots in decoded for dots in _DECODED_DOTS) or decoded.endswith((b"\0.", b"\0.."))
    ):
        raise URIError("the request's path has a dot segment")
