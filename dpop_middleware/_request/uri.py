"""http and https URIs in one normal form, so that equal strings mean equal URIs (RFC 3986 section 6).

Two spellings are compared here: the `htu` that a client signed, and the target URI from the configuration and
the request's raw path. Both must have the same normal form exactly when they name the same resource. The
rules for that:

- Only the grammar of this module is used, and no URL library: these strip tabs, fold Unicode or keep dots.
  Non-ASCII characters become percent-encoded UTF-8 in a path, and are refused in an authority: nothing is
  folded or composed.
- A path is never resolved against a base, only appended to an origin: `//x/p` stays a path.
- `htu` is normalised. A request's own path with dot segments is refused instead, since servers and frameworks
  disagree on its meaning.
- Differences without a meaning are unified, all others are kept: `%2F`, empty segments, the case of a path, a
  trailing slash, a trailing dot of the host.
"""

import ipaddress
import re
from typing import Final, NamedTuple

__all__ = [
    "KEPT",
    "MAX_PATH",
    "NOT_IN_A_PATH",
    "BaseURL",
    "URIError",
    "authority",
    "encoded",
    "has_dot_segment",
    "normalize",
    "octets_of",
    "parse_base_url",
    "quoted",
    "without_dot_segments",
]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
# A host has at most 253 characters (RFC 1035 section 2.3.4).
_MAX_AUTHORITY: Final = 300
_NORMAL_ORIGIN: Final = re.compile(r"https?://[a-z0-9._-]{1,300}(?=/)")

_URI: Final = re.compile(r"([A-Za-z]+)://([^/]*)(.*)")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")
# No surrogates: half a character has no UTF-8.
_NOT_VISIBLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")

MAX_PATH: Final = 4 * 1024
"""Octets of the longest path of a request."""

# How many octets of a path may be, or must be, percent-encoded: each is handled separately.
_MAX_REWRITTEN: Final = 256
# Of a path that the server has decoded, each such part is encoded separately.
_MAX_QUOTED_PARTS: Final = 128
# Removing dot segments is a loop over the segments.
_MAX_DOTTED: Final = 256

_HEX: Final = "0123456789ABCDEFabcdef"
_UNRESERVED: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

KEPT: Final = (_UNRESERVED + "!$&'()*+,;=:@/").encode()
"""Every other octet is or must be percent-encoded: without one, a path has only its dot segments to lose.

What remains without these is found by `bytes.translate`: in a long path a pattern takes five times as long.
"""

NOT_IN_A_PATH: Final = re.compile(f"[^{re.escape(KEPT.decode())}%]")
"""A character that must be percent-encoded."""

_TO_QUOTE: Final = re.compile(b"[^%s]+" % re.escape(KEPT))
_ENCODED: Final = {chr(octet): f"%{octet:02X}" for octet in range(256)}
# The two digits after a percent sign, and the text for both.
_DECODED: Final = {
    digits: chr(int(digits, 16)) if chr(int(digits, 16)) in _UNRESERVED else f"%{digits.upper()}"
    for digits in (high + low for high in _HEX for low in _HEX)
}


class URIError(ValueError):
    """A URI, a path or a `Host` field that can't be accepted; the message is a fixed sentence."""


class BaseURL(NamedTuple):
    """A URL under which clients call the application, in normal form (RFC 3986 section 6.2).

    `origin` is scheme and authority, `authority` is the host with its port unless that is the scheme's
    default, `host` is without port and brackets, `path` is empty or starts with a slash and ends without.
    """

    origin: str
    authority: str
    host: str
    scheme: str
    path: str


def _host_and_port(text: str) -> tuple[str, int | None]:
    if len(text) > _MAX_AUTHORITY:
        raise URIError("the authority is too long")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        if "@" in text:
            raise URIError("the authority has user information")
        raise URIError("the authority is not a host with an optional port")
    name, literal, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and port > _MAX_PORT:
        raise URIError("the port is out of range")
    if name is not None:
        return name.lower(), port
    try:
        return f"[{ipaddress.IPv6Address(literal).compressed}]", port
    except ValueError as error:
        raise URIError("the host is not an IPv6 address") from error


def authority(value: str, *, scheme: str) -> str:
    """Return a `Host` field value in lower case and without the default port (RFC 9110 section 7.2).

    `scheme` is `"http"` or `"https"`. Raises URIError for anything that isn't exactly a host with an optional
    port: user information, a path, white space, a list, an IPv6 zone.
    """
    if scheme not in _DEFAULT_PORTS:
        raise URIError("the scheme is neither http nor https")
    host, port = _host_and_port(value)
    return host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"


def octets_of(path: str) -> bytes:
    """Return the octets of a path that has one character for each, or raise URIError."""
    try:
        return path.encode("latin-1")
    except UnicodeEncodeError as error:
        raise URIError("the path is not a string of octets") from error


def encoded(path: str) -> str:
    """Return a path that is percent-encoded only where it must be (RFC 3986 sections 2.1, 6.2.2).

    `path` has one character for each octet. Raises URIError for any other character, for malformed
    percent-encoding, and where over 256 characters are or must be percent-encoded.
    """
    rewritten = octets_of(path).translate(None, KEPT)
    if not rewritten:
        return path
    if len(rewritten) > _MAX_REWRITTEN:
        raise URIError("the path has too many characters that are or must be percent-encoded")
    if rewritten.strip(b"%"):
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
    octets = path[: MAX_PATH + 1].encode("utf-8", "surrogatepass")[: MAX_PATH + 1]
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


def _split(uri: str) -> tuple[str, str, str]:
    """Return scheme, authority and path of a URI without query and fragment, in normal form."""
    if _NOT_VISIBLE.search(uri):
        raise URIError("a URI is visible ASCII, characters of other scripts in its path aside")
    match = _URI.fullmatch(uri)
    if match is None:
        raise URIError("the URI is not absolute")
    scheme, path = match[1].lower(), match[3]
    if "\\" in path:
        raise URIError("the path has a backslash")
    if not path.isascii():
        # RFC 3987 section 3.1, without normalisation: the octets are those that a client would send.
        path = path.encode("utf-8").decode("latin-1")
    return scheme, authority(match[2], scheme=scheme), without_dot_segments(encoded(path)) or "/"


def normalize(uri: str) -> str:
    """Return an absolute http or https URI in normal form, without query and fragment (RFC 9449 section 4.3).

    Scheme and host in lower case, no default or empty port, IPv6 in its short form; `/` for an empty path,
    dot segments removed, unreserved characters decoded, all other percent-encodings in upper case, characters
    that a path can't have encoded, non-ASCII ones as UTF-8 (RFC 3986 sections 6.2.2 and 6.2.3, RFC 3987
    section 3.1). Normalising twice changes nothing. Query and fragment are cut off before anything is judged.

    Raises URIError for another scheme, user information, a host outside letters, digits, `-._` and IPv6
    literals, a port out of range, malformed percent-encoding, and for a backslash in the path, white space,
    control characters and lone surrogates. Also for a path in which over 256 characters are or must be
    percent-encoded, or that has dot segments and over 256 segments: so no path costs much more than another.
    """
    if _NORMAL_ORIGIN.match(uri) and not has_dot_segment(uri):
        rewritten = uri.encode("latin-1", "replace").translate(None, KEPT)
        if not rewritten:
            return uri
    scheme, host_and_port, path = _split(_QUERY.sub("", uri, count=1))
    return f"{scheme}://{host_and_port}{path}"


def parse_base_url(url: str) -> BaseURL:
    """Return the parts of a base URL in normal form (RFC 3986 section 6.2).

    Raises URIError for everything that `normalize` refuses, for a query or fragment, even an empty one, for a
    path with an empty segment, and for non-ASCII characters: a configured URL can be written as it is sent.
    """
    if "?" in url or "#" in url:
        raise URIError("a base URL has no query and no fragment")
    if not url.isascii():
        raise URIError("a base URL is ASCII: percent-encode the path")
    scheme, host_and_port, path = _split(url)
    if "//" in path:
        raise URIError("the path of a base URL has no empty segment")
    host, _ = _host_and_port(host_and_port)
    return BaseURL(
        origin=f"{scheme}://{host_and_port}",
        authority=host_and_port,
        host=host.strip("[]"),
        scheme=scheme,
        path=path.removesuffix("/"),
    )
