"""Inspection of an application from outside: the applications, middleware and routes inside it."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from dpop_middleware._request.public_paths import PublicPaths

__all__ = ["has_cors_around_protected_routes", "inner_root_paths"]

_MOST_LAYERS = 10_000
_MOST_MOUNTS = 64


class _Layer(NamedTuple):
    """An object inside an application, and the path below which it is; for a route, its own path."""

    value: object
    path: str = ""
    mounts: int = 0
    is_route: bool = False

    def inner(self) -> list["_Layer"]:
        # FastAPI keeps an included router behind a route without a path.
        behind = (_seen(self.value, name) for name in ("app", "original_router"))
        # A Starlette router's `app` is a method of its own, which dispatches to its routes.
        others = (value for value in behind if _seen(value, "__self__") is not self.value)
        values = (*_listed(self.value, "routes"), *others)
        return [self._inner(value) for value in values if value is not None]

    def _inner(self, value: object) -> "_Layer":
        path = _seen(value, "path", _seen(_seen(value, "include_context"), "prefix"))
        if not isinstance(path, str) or not isinstance(value, BaseRoute):
            return _Layer(value, self.path, self.mounts, self.is_route)
        return _Layer(value, self.path + path, self.mounts + 1, isinstance(value, Route))

    def is_or_has_cors(self) -> bool:
        middleware = (_seen(each, "cls") for each in _listed(self.value, "user_middleware"))
        kinds = (type(self.value), *middleware)
        # If the module wasn't imported, no object is of its class.
        cors = getattr(sys.modules.get("starlette.middleware.cors"), "CORSMiddleware", ())
        return any(isinstance(kind, type) and issubclass(kind, cors) for kind in kinds)

    def is_public(self, public_paths: PublicPaths) -> bool:
        literal, parameter, _ = self.path.partition("{")
        if self.is_route and not parameter:
            return public_paths.covers(self.path)
        return public_paths.covers_all_below(literal if parameter else f"{literal.rstrip('/')}/")


def _seen(value: object, name: str, default: object = None) -> object:
    """Return an attribute of any object, `default` if it has none or raises."""
    try:
        seen: object = getattr(value, name, default)
    except Exception:  # noqa: BLE001 - the objects are only inspected here
        return default
    return seen


def _listed(layer: object, name: str) -> Iterable[object]:
    value = _seen(layer, name, ())
    return value if isinstance(value, (list, tuple)) else ()


def _inside(outermost: _Layer) -> Iterator[_Layer]:
    seen: set[tuple[int, str]] = set()
    waiting = [outermost]
    while waiting:
        layer = waiting.pop()
        key = (id(layer.value), layer.path)
        if key in seen or layer.mounts > _MOST_MOUNTS:
            continue
        seen.add(key)
        yield layer
        waiting.extend(layer.inner())


def has_cors_around_protected_routes(app: ASGIApp, public_paths: PublicPaths) -> bool:
    """Whether a CORSMiddleware is inside `app`, around anything that isn't public."""
    return any(
        layer.is_or_has_cors() and not _is_public_throughout(layer, public_paths)
        for layer in islice(_inside(_Layer(app)), _MOST_LAYERS)
    )


def _is_public_throughout(outermost: _Layer, public_paths: PublicPaths) -> bool:
    ends = (layer for layer in islice(_inside(outermost), _MOST_LAYERS) if not layer.inner())
    return all(end.is_public(public_paths) for end in ends)


def inner_root_paths(app: ASGIApp) -> Iterator[tuple[str, str]]:
    """Yield each root path that an application inside `app` sets itself, after the path of its mount.

    `FastAPI(root_path=...)` does so.
    """
    for layer in islice(_inside(_Layer(app)), _MOST_LAYERS):
        root_path = _seen(layer.value, "root_path") if isinstance(layer.value, Starlette) else None
        if root_path and isinstance(root_path, str):
            yield layer.path.partition("{")[0], root_path
