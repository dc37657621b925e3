"""The HTTP libraries that are installed, httpx2, httpx or both, and what must be in no copy of theirs.

They share interfaces but no classes.
"""

from collections.abc import ItemsView, Iterator, MutableMapping
from importlib import import_module
from typing import Any

__all__ = ["UncopiedHeaders", "installed", "library_of"]


def installed(*names: str) -> tuple[Any, ...]:
    """Return the classes of these names, of each library that is installed.

    Raises ModuleNotFoundError where there is none.
    """
    return tuple(getattr(library, name) for library in _libraries() for name in names)


def library_of(request: object) -> Any:
    """Return the library of which `request` is a request."""
    return next(library for library in _libraries() if isinstance(request, library.Request))


def _libraries() -> list[Any]:
    found: list[Any] = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(import_module(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    if not found:
        raise ModuleNotFoundError(
            "the client's side needs httpx2 or httpx: "
            "in a checkout of dpop_middleware, python -m pip install '.[client]'",
            name="httpx2",
        )
    return found


class UncopiedHeaders(MutableMapping[str, str]):
    """The header fields of one request, whose copies have neither its proof nor its DPoP token.

    A client that follows redirects makes the next request's fields with `Headers(request.headers)`. Of a
    mapping that isn't its own class that takes the `items()`, and those leave out `DPoP` and an
    `Authorization` of the scheme DPoP. All else is that of `headers`, which are httpx2's or httpx's.
    """

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def items(self) -> ItemsView[str, str]:
        """Return the fields that a request to another URL may have."""
        kept = dict(self._headers.items())
        kept.pop("dpop", None)
        if kept.get("authorization", "").lower().startswith("dpop "):
            del kept["authorization"]
        return kept.items()

    def __getitem__(self, name: str) -> str:
        return str(self._headers[name])

    def __setitem__(self, name: str, value: str) -> None:
        self._headers[name] = value

    def __delitem__(self, name: str) -> None:
        del self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy or an unpickled one has no `_headers` yet
            raise AttributeError(name)
        return getattr(self._headers, name)

    def __repr__(self) -> str:
        return repr(self._headers)
