"""Who calls a decorated function of Starlette: whether its result is the response, or a value.

A refusal that is taken for a value lets a stranger pass: whoever calls may ignore it, and go on.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Scope

__all__ = ["makes_the_response"]

_MOST_DECORATORS = 32  # around an endpoint: an odd object has another one each time


def makes_the_response(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], scope: Scope
) -> bool:
    """Whether the result of `function`, called with `args` and `kwargs`, is the connection's response.

    It is if the router serves the connection by `function`, and if `function` is the `dispatch` of a
    middleware, or is called by one with its arguments. Otherwise the caller may want another value, or none,
    or a decorator hides the function.
    """
    if _is_dispatch((*args, *kwargs.values())):
        return True
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, type):
        endpoint = _request_method(endpoint, args, scope)
    return _serves(function, endpoint)


def _is_dispatch(given: Iterable[Any]) -> bool:
    """Whether a BaseHTTPMiddleware has passed the function by which its `dispatch` goes on."""
    functions = filter(inspect.isfunction, given)
    return any(function.__module__ == BaseHTTPMiddleware.__module__ for function in functions)


def _request_method(endpoint: type, args: tuple[Any, ...], scope: Scope) -> Any:
    """Return the method of an HTTPEndpoint that serves the request, None if its object isn't in `args`."""
    served = next(iter(args), None)
    if not (issubclass(endpoint, HTTPEndpoint) and isinstance(served, endpoint)):
        return None
    name = scope["method"].lower()
    return getattr(served, "get" if name == "head" and not hasattr(served, name) else name, None)


def _serves(function: Callable[..., Any], endpoint: Any) -> bool:
    """Whether `endpoint` is `function`, maybe bound to an object or inside other decorators."""
    for _ in range(_MOST_DECORATORS):
        # A method that is bound has the function, and passes on what that wraps.
        if getattr(endpoint, "__func__", endpoint) is function:
            return True
        inner = "func" if isinstance(endpoint, functools.partial) else "__wrapped__"
        endpoint = getattr(endpoint, inner, None)
    return False
