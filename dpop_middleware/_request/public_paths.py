"""Paths that need no credentials, matched so that no other path passes (RFC 3986 section 3.3)."""

import re
from binascii import a2b_qp
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from dpop_middleware._options import refused
from dpop_middleware.errors import ConfigurationError

__all__ = ["PublicPaths"]

# Parts that a router, a proxy or a file system could read differently from the comparison below: a dot
# segment, also with parameters (RFC 3986 section 3.3), which some remove first, an empty segment, a
# backslash, a control character, a percent sign that remains after decoding, half of a surrogate pair.
_AMBIGUOUS = re.compile(r"(?:/|\A)\.{1,2}(?:[/;]|\Z)|//|[\\%\x00-\x1f\x7f\ud800-\udfff]")
# The same before decoding: an encoded dot, slash, percent sign or backslash; the start of a fragment, which
# some cut off.
_AMBIGUOUS_RAW = re.compile(rb"(?:/|\A)\.{1,2}(?:/|\Z)|//|[\\#]|%2e|%2f|%25|%5c", re.IGNORECASE)
# A root path that looks the same decoded and percent-encoded, and that every router removes in the same way.
_PLAIN_ROOT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+")


def _checked(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise refused("public_paths", "paths that start with a slash", path)
    if path == "/*":
        raise ConfigurationError(
            "public_paths=['/*'] would leave nothing protected: leave the middleware out"
        )
    literal = path[:-1] if path.endswith("/*") else path
    if any(character in literal for character in "*?#") or _AMBIGUOUS.search(literal):
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
        root_path: str = scope.get("root_path") or ""
        path: str = scope["path"]
        return (
            self.covers(path[len(root_path) :])
            and not _is_ambiguous(scope)
            and self._doubt(scope, root_path) is None
            and self._is_spelled_plainly(scope, root_path)
        )

    def covers(self, path: str) -> bool:
        """Whether this path, decoded and below any root path, is listed, exactly or by a prefix."""
        return path in self._exact or (path.startswith(self._prefixes) and path not in self._prefixes)

    def covers_all_below(self, path: str) -> bool:
        """Whether every path that begins with this one is listed, by a prefix."""
        return path.startswith(self._prefixes)

    def locked_out(self, scope: Mapping[str, Any]) -> str | None:
        """Return why a request for a listed path isn't public, if the configuration is the cause."""
        root_path: str = scope.get("root_path") or ""
        if not any(map(self.covers, _readings(scope["path"], root_path))):
            return None
        doubt = self._doubt(scope, root_path)
        return None if doubt is None or (_is_plain(root_path) and _is_ambiguous(scope)) else doubt

    def _is_spelled_plainly(self, scope: Mapping[str, Any], root_path: str) -> bool:
        """Whether `raw_path` also has the listed spelling: some routers compare paths undecoded."""
        raw_path = scope.get("raw_path")
        if raw_path is None:
            return True
        path, _, _ = raw_path.partition(b"?")
        below = path.removeprefix(root_path.encode())
        if root_path and below == path:
            return False
        return below in self._exact_raw or below.startswith(self._prefixes_raw)

    def _doubt(self, scope: Mapping[str, Any], root_path: str) -> str | None:
        path: str = scope["path"]
        if root_path:
            if not _is_plain(root_path):
                return "a root path must be ASCII without percent signs, start with a slash, not end with one"
            if not path.startswith(root_path + "/"):
                return "the path doesn't start with the root path and a slash"
            if path.casefold().find(root_path.casefold(), 1) != -1:
                return "the path contains the root path twice"
        raw_path = scope.get("raw_path")
        if raw_path is not None and _decoded(raw_path) not in (None, path):
            return "path and raw_path are two paths"
        for mount, inner in self._inner_root_paths:
            if inner in (root_path, root_path + mount) or not path.startswith(root_path + mount):
                continue
            if root_path or inner.casefold() in path.casefold():
                return f"the application has a root path of its own, {inner!a}"
        return None


def _is_plain(root_path: str) -> bool:
    return not root_path or _PLAIN_ROOT_PATH.fullmatch(root_path) is not None


def _decoded(raw_path: bytes) -> str | None:
    """Return the path as servers decode it, None if it is not text; at C speed for every path."""
    path, _, _ = raw_path.partition(b"?")
    if b"\r" in path or b"\n" in path:
        return None
    if b"%" in path:
        # Quoted-printable is percent-encoding with another sign. A malformed sequence keeps its sign; a
        # server's path keeps its percent sign, and is ambiguous.
        path = a2b_qp(path.replace(b"=", b"%3D").replace(b"%", b"="))
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None


def _spellings(path: str) -> tuple[bytes, bytes]:
    """Return how clients send this path: encoded as RFC 3986 section 3.3 requires, or not at all."""
    return quote(path, safe="/!$&'()*+,;=:@").encode(), path.encode()


def _is_ambiguous(scope: Mapping[str, Any]) -> bool:
    """Whether the client sent a path that can be read in two ways."""
    if _AMBIGUOUS.search(scope["path"]):
        return True
    raw_path = scope.get("raw_path")
    if raw_path is None:
        return False
    path, _, _ = raw_path.partition(b"?")
    return _AMBIGUOUS_RAW.search(path) is not None or _decoded(path) is None


def _readings(path: str, root_path: str) -> Iterator[str]:
    yield path
    yield path.removeprefix(root_path.rstrip("/"))
    yield path.removeprefix(unquote(root_path))
    if root_path:
        yield "/" + path.split(root_path, maxsplit=1)[-1].lstrip("/")
