"""Paths that need no credentials, matched so that nothing else slips through (RFC 3986 section 3.3)."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from dpop_middleware.errors import ConfigurationError

__all__ = ["PublicPaths"]

# What a router, a proxy or a file system could read in another way than the comparison below does: a dot
# segment, an empty segment, a backslash, a control character, a percent sign that is left after decoding.
_AMBIGUOUS = re.compile(r"(?:/|\A)\.{1,2}(?:/|\Z)|//|[\\%\x00-\x1f\x7f]")
# The same before decoding: an encoded dot, slash, percent sign or backslash.
_AMBIGUOUS_RAW = re.compile(rb"(?:/|\A)\.{1,2}(?:/|\Z)|//|\\|%2e|%2f|%25|%5c", re.IGNORECASE)


def _checked(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(f"a public path starts with a slash, unlike {path!r}")
    if path == "/*":
        raise ConfigurationError(
            "public_paths=['/*'] would leave nothing protected: leave the middleware out"
        )
    literal = path[:-1] if path.endswith("/*") else path
    if any(character in literal for character in "*?#") or _AMBIGUOUS.search(literal):
        raise ConfigurationError(
            f"a public path is a decoded path or a prefix that ends in '/*', unlike {path!r}"
        )
    return path


class PublicPaths:
    """Exact paths, and prefixes that end in `/*`; a prefix covers what lies below it, not itself.

    `/docs/*` covers `/docs/a`, neither `/docs` nor `/docs/`, which some routers take for one. Raises
    ConfigurationError.
    """

    def __init__(self, paths: Collection[str]) -> None:
        if isinstance(paths, str) or not isinstance(paths, Collection):
            raise ConfigurationError(
                f"public_paths takes a sequence of paths, such as ['/health'], not {paths!r}"
            )
        checked = [_checked(path) for path in paths]
        self._exact = frozenset(path for path in checked if not path.endswith("/*"))
        self._prefixes = tuple(path[:-1] for path in checked if path.endswith("/*"))

    def __contains__(self, scope: Mapping[str, Any]) -> bool:
        """Whether the path on which the application of this ASGI scope routes is public."""
        path = _route_path(scope)
        if path not in self._exact and not (path.startswith(self._prefixes) and path not in self._prefixes):
            return False
        raw_path, _, _ = (scope.get("raw_path") or b"").partition(b"?")
        return not _AMBIGUOUS.search(path) and not _AMBIGUOUS_RAW.search(raw_path)


def _route_path(scope: Mapping[str, Any]) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    rest = path.removeprefix(root_path)
    return rest if rest[:1] in ("", "/") else path
