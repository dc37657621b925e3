"""Who calls a decorated function of Starlette: whether its result is the response, or a value.

A refusal that is taken for a value lets a stranger pass: whoever calls may ignore it, and go on.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Scope

__all__ = ["GUARD", "makes_the_response"]

GUARD = "_dpop_dispatch"
"""Names the `dispatch` that a class has because it is decorated: it calls the next one."""

_MIDDLEWARE = BaseHTTPMiddleware.__module__
# Inside a middleware `receive` and `send` are functions of the same module.
_CALL_NEXT = _MIDDLEWARE, "call_next"


def makes_the_response(function: Callable[..., Any], args: tuple[Any, ...], scope: Scope) -> bool:
    """Whether the result of `function`, called with the arguments `args`, is the connection's response.

    It is if the router itself calls `function`, and if `function` is the `dispatch` of a middleware, or is
    called by one with its arguments. Any other caller may want another value, or none: a decorator around it
    too. What an ASGI middleware of one route does with the function of that route can't be told apart.
    """
    if _is_dispatch(args):
        return True
    if _is_request_of_a_dispatch(args):
        return False
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, type):
        endpoint = _request_method(endpoint, args, scope)
    return _is_called_for(function, endpoint)


def _is_dispatch(args: Iterable[Any]) -> bool:
    """Whether a BaseHTTPMiddleware has passed the function by which its `dispatch` goes on."""
    functions = filter(inspect.isfunction, args)
    return any((function.__module__, function.__name__) == _CALL_NEXT for function in functions)


def _is_request_of_a_dispatch(args: Iterable[Any]) -> bool:
    """Whether one is the request that a BaseHTTPMiddleware has made: the router makes another one."""
    return any(type(arg).__module__ == _MIDDLEWARE for arg in args)


def _request_method(endpoint: type, args: tuple[Any, ...], scope: Scope) -> Any:
    """Return the method of an HTTPEndpoint that serves the request.

    None if its object isn't in `args`, or if another function than Starlette's calls that method.
    """
    served = next(iter(args), None)
    if type(served) is not endpoint or not isinstance(served, HTTPEndpoint) or not _is_starlettes(served):
        return None
    name = scope["method"].lower()
    return getattr(served, "get" if name == "head" and not hasattr(served, name) else name, None)


def _is_starlettes(served: HTTPEndpoint) -> bool:
    """Whether Starlette's own `dispatch` serves the request, maybe below ours: a wrapper may want a value."""
    if "dispatch" in vars(served) or type(served).__await__ is not HTTPEndpoint.__await__:
        return False
    classes = [vars(kind) for kind in type(served).__mro__ if "dispatch" in vars(kind)]
    dispatches = (own["dispatch"] for own in classes if own["dispatch"] is not own.get(GUARD))
    return next(dispatches) is HTTPEndpoint.dispatch


def _is_called_for(function: Callable[..., Any], endpoint: Any) -> bool:
    """Whether a call of `endpoint` is one of `function`, maybe with an object or other arguments before."""
    # By the type itself: a proxy says that it is what it stands for.
    if type(endpoint) is functools.partial:
        endpoint = endpoint.func
    return (endpoint.__func__ if type(endpoint) is MethodType else endpoint) is function
