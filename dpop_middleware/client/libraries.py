"""The HTTP libraries that are installed, httpx2, httpx or both: they share interfaces but no classes."""

from importlib import import_module
from typing import Any

__all__ = ["installed", "library_of"]


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
