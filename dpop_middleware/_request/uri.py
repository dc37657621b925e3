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

from dpop_middleware._request.paths import (
    URIError,
    check_request_path,
    encoded,
    is_normal,
    without_dot_segments,
)

__all__ = [
    "BaseURL",
    "URIError",
    "absolute_form",
    "authority",
    "normalize",
    "parse_base_url",
    "request_path",
    "root_prefix",
    "strip_root_path",
    "target_uri",
]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
# A host has at most 253 characters (RFC 1035 section 2.3.4).
_MAX_AUTHORITY: Final = 300
_NORMAL_ORIGIN: Final = re.compile(r"https?://[a-z0-9._-]{1,300}(?=/)")

_URI: Final = re.compile(r"([A-Za-z]+)://([^/]*)(.*)")
_ABSOLUTE_FORM: Final = re.compile(
    r"(https?)://([^/?]{0,300}(?![^/?]))(.*)", re.ASCII | re.IGNORECASE | re.DOTALL
)
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")
# No surrogates: half a character has no UTF-8.
_NOT_VISIBLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")


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
    origin = _NORMAL_ORIGIN.match(uri)
    if origin is not None and is_normal(uri[origin.end() :]):
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


def request_path(raw_path: str) -> str:
    """Return a request's own path in normal form, without query (RFC 3986 section 6.2.2).

    `raw_path` is the path of the request line, one character for each octet. A path is treated as in
    `normalize`, with two differences: characters that a path can't have are all percent-encoded, octet by
    octet, and dot segments raise, percent-encoded or not. A `#` is such a character, not the start of a
    fragment: a request has none, and servers route by the text after it.

    Raises URIError as `check_request_path` does, and for more than 256 characters to percent-encode.
    """
    check_request_path(raw_path)
    return encoded(raw_path.partition("?")[0])


def absolute_form(target: str) -> tuple[str, str] | None:
    """Return origin, in normal form, and rest of a request target in absolute form, None for another form.

    RFC 9112 section 3.2.2. `target` is the target in the request line; the rest, as it was sent, is empty or
    starts with a slash or a question mark. Raises URIError for user information and a malformed authority.
    """
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        return None
    scheme = match[1].lower()
    return f"{scheme}://{authority(match[2], scheme=scheme)}", match[3]


def root_prefix(root_path: str) -> str:
    """Return an ASGI `root_path` in the normal form of paths, without trailing slashes.

    `root_path` is decoded, as in ASGI.
    """
    # surrogatepass: a root path that isn't Unicode matches nothing, and raises nothing.
    octets = root_path.rstrip("/").encode("utf-8", "surrogatepass").replace(b"%", b"%25")
    return encoded(octets.decode("latin-1"))


def strip_root_path(path: str, root_path: str) -> str:
    """Return `path` without the ASGI `root_path` at its start, else `path` itself.

    `path` is the result of `request_path`; `root_path` is decoded, as in ASGI, and a trailing slash doesn't
    count. It is removed at a segment boundary only: `/svc` from `/svc/x`, never from `/svcs/x`. The rest
    starts with a slash or is empty (`/svc` from `/svc`), so that it can be appended to a prefix.
    """
    rest = path.removeprefix(root_prefix(root_path))
    return path if rest[:1] not in ("", "/") else rest


def target_uri(base: BaseURL, raw_path: str, root_path: str) -> str:
    """Return the target URI of a request, in normal form and without query (RFC 9449 section 4.3).

    Scheme and authority are `base`'s. Where `base` has a path, a proxy stripped that prefix: `root_path` is
    removed from the raw path (`strip_root_path`), then the prefix put before it. Raises URIError as
    `request_path` does.
    """
    path = request_path(raw_path)
    if not base.path:
        return base.origin + path
    return base.origin + base.path + strip_root_path(path, root_path)
