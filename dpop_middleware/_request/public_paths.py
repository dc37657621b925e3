"""Paths that need no credentials, matched so that no other path passes (RFC 3986 section 3.3)."""

import re
from binascii import a2b_qp
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from dpop_middleware._options import refused
from dpop_middleware.errors import ConfigurationError

__all__ = ["Judged", "PublicPaths"]

# RFC 9110 section 4.1 asks for 8,000 octets. The cost of a longer path would grow with it.
_LONGEST: Final = 8 * 1024
# Dot segments, also with parameters (RFC 3986 section 3.3), which some remove first.
_SEGMENTS: Final = (b"/./", b"/../", b"/.;", b"/..;")
_LAST_SEGMENTS: Final = (b"/.", b"/..")
# With a table all octets are looked at together: a backslash, a control character, and a percent sign that
# remains after decoding become a slash.
_UNAMBIGUOUS: Final = bytes(
    ord("/") if octet < ord(" ") or octet in b"\\%\x7f" else octet for octet in range(256)
)
# Quoted-printable is percent-encoding with another sign, which is kept by a control character meanwhile.
_TO_QUOTED_PRINTABLE: Final = bytes.maketrans(b"%=", b"=\1")
_FROM_QUOTED_PRINTABLE: Final = bytes.maketrans(b"\1", b"=")

# A root path that looks the same decoded and percent-encoded, and that every router removes in the same way.
_PLAIN_ROOT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+")

# Of the patterns of routers, such as /notes/{id} and /notes/<id>, which never equal a path, and of URLs.
_OF_PATTERNS_AND_URLS: Final = "*{}<>?#"


class Judged(NamedTuple):
    """Whether a path is public; and why a listed one isn't, None where only an attacker would send it."""

    is_public: bool
    reason: str | None


_NOT_PUBLIC: Final = Judged(is_public=False, reason=None)


def _checked(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise refused("public_paths", "paths that start with a slash", path)
    if path == "/*":
        raise ConfigurationError(
            "public_paths=['/*'] would leave nothing protected: leave the middleware out"
        )
    literal = path[:-1] if path.endswith("/*") else path
    if any(character in literal for character in _OF_PATTERNS_AND_URLS) or _has_two_readings(literal):
        raise refused("public_paths", "decoded paths and prefixes that end in '/*'", path)
    return path


class PublicPaths:
    """Exact paths, and prefixes that end in `/*`; a prefix covers the paths below it, not itself.

    `/docs/*` covers `/docs/a`, but neither `/docs` nor `/docs/`, which some routers treat as one. A path that
    routers read in different ways is never public: some remove a root path anywhere in the path, some only at
    its start, some use the raw path. `inner_root_paths` are root paths that the application itself sets, each
    after the path of the mount. Raises ConfigurationError.
    """

    def __init__(self, paths: Collection[str], *, inner_root_paths: Collection[tuple[str, str]] = ()) -> None:
        if isinstance(paths, (str, Mapping)) or not isinstance(paths, Collection):
            raise refused("public_paths", "a sequence of paths, such as ['/health']", paths)
        checked = [_checked(path) for path in paths]
        self._exact = frozenset(path for path in checked if not path.endswith("/*"))
        self._prefixes = tuple(path[:-1] for path in checked if path.endswith("/*"))
        self._inner_root_paths = tuple(inner_root_paths)
        self._exact_raw = frozenset(raw for path in self._exact for raw in _spellings(path))
        self._prefixes_raw = tuple(raw for prefix in self._prefixes for raw in _spellings(prefix))

    def __bool__(self) -> bool:
        """Whether any path is listed."""
        return bool(self._exact or self._prefixes)

    def __contains__(self, scope: Mapping[str, Any]) -> bool:
        """Whether the path of this ASGI scope is public, with any kind of routing."""
        return self.judge(scope).is_public

    def covers(self, path: str) -> bool:
        """Whether this path, decoded and below any root path, is listed, exactly or by a prefix."""
        return path in self._exact or (path.startswith(self._prefixes) and path not in self._prefixes)

    def covers_all_below(self, path: str) -> bool:
        """Whether every path that begins with this one is listed, by a prefix."""
        return path.startswith(self._prefixes)

    def judge(self, scope: Mapping[str, Any]) -> Judged:
        """Return whether the path of this ASGI scope is public, and why not if it is listed.

        A path is looked at once, whatever is found: anybody can send it.
        """
        path, root_path = scope["path"], scope.get("root_path") or ""
        if len(root_path) > _LONGEST:  # some servers let clients choose it
            return _NOT_PUBLIC
        if not any(map(self.covers, _readings(path, root_path))):
            return _NOT_PUBLIC
        raw_path = scope.get("raw_path")
        raw = None if raw_path is None else raw_path.partition(b"?")[0]
        if max(len(path), len(raw or b"")) > _LONGEST:
            return Judged(is_public=False, reason=f"the path has over {_LONGEST} characters")
        is_plain = _is_plain(root_path)
        if is_plain and _has_two_readings(path):
            return _NOT_PUBLIC
        decoded = path if raw is None else _decoded(raw)
        if is_plain and raw is not None and _is_ambiguous(raw, decoded, path):
            return _NOT_PUBLIC
        doubt = self._doubt(path, decoded, root_path)
        if doubt is None and not self.covers(path[len(root_path) :]):
            doubt = "it is listed with the root path, and public_paths takes paths without it"
        elif doubt is None and not self._is_spelled_plainly(raw, root_path):
            doubt = "the client percent-encodes it in another way than RFC 3986 asks for"
        return Judged(is_public=doubt is None, reason=doubt)

    def _is_spelled_plainly(self, raw: bytes | None, root_path: str) -> bool:
        """Whether the path as it was sent has the listed spelling: some routers compare paths undecoded."""
        if raw is None:
            return True
        below = raw.removeprefix(root_path.encode())
        if root_path and below == raw:
            return False
        return below in self._exact_raw or below.startswith(self._prefixes_raw)

    def _doubt(self, path: str, decoded: str | None, root_path: str) -> str | None:
        if root_path:
            if not _is_plain(root_path):
                return "a root path must be ASCII without percent signs, start with a slash, not end with one"
            if not path.startswith(root_path + "/"):
                return "the path doesn't start with the root path and a slash"
            if path.casefold().find(root_path.casefold(), 1) != -1:
                return "the path contains the root path twice"
        if decoded not in (None, path):
            return "path and raw_path are two paths"
        for mount, inner in self._inner_root_paths:
            if inner in (root_path, root_path + mount) or not path.startswith(root_path + mount):
                continue
            if root_path or inner.casefold() in path.casefold():
                return f"the application has a root path of its own, {inner!a}"
        return None


def _is_plain(root_path: str) -> bool:
    return not root_path or _PLAIN_ROOT_PATH.fullmatch(root_path) is not None


def _decoded(path: bytes) -> str | None:
    """Return a raw path as servers decode it, None if it is not text; at C speed for every path."""
    if b"\r" in path or b"\n" in path:
        return None
    if b"%" in path:
        # A malformed sequence keeps its sign; a server's path keeps its percent sign, and is ambiguous.
        path = a2b_qp(path.translate(_TO_QUOTED_PRINTABLE)).translate(_FROM_QUOTED_PRINTABLE)
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None


def _spellings(path: str) -> tuple[bytes, bytes]:
    """Return how clients send this path: encoded as RFC 3986 section 3.3 requires, or not at all."""
    return quote(path, safe="/!$&'()*+,;=:@").encode(), path.encode()


def _is_ambiguous(raw: bytes, decoded: str | None, path: str) -> bool:
    """Whether the client sent a path that can be read in two ways, although `path` can't."""
    if decoded is None or b"#" in raw:  # the start of a fragment, which some cut off
        return True
    # An encoded dot or slash; a percent sign or a backslash is there after decoding too.
    if raw.count(b".") != decoded.count(".") or raw.count(b"/") != decoded.count("/"):
        return True
    return decoded != path and _has_two_readings(decoded)


def _has_two_readings(path: str) -> bool:
    """Whether a router, a proxy or a file system could read a decoded path differently from `covers`."""
    try:
        octets = path.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return True
    if octets.translate(_UNAMBIGUOUS) != octets or b"//" in octets:
        return True
    return b"/." in octets and (
        any(segment in octets for segment in _SEGMENTS) or octets.endswith(_LAST_SEGMENTS)
    )


def _readings(path: str, root_path: str) -> Iterator[str]:
    yield path
    if root_path:
        yield path.removeprefix(root_path.rstrip("/"))
        yield path.removeprefix(unquote(root_path))
        yield "/" + path.split(root_path, maxsplit=1)[-1].lstrip("/")
