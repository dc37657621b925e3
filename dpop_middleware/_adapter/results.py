"""The result of a decorated function of Starlette: whether it is the response, and header fields on it.

A refusal that is taken for a value lets a stranger pass: whoever calls may ignore it, and go on.

Many routes may return or raise one object, such as a constant of a module. What it gets for one request must
not be in the answers to others: a copy gets it.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, TypeVar

from starlette.datastructures import MutableHeaders
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, Response
from starlette.types import Scope

from dpop_middleware._adapter.answers import raw_headers
from dpop_middleware._adapter.expiry import streams
from dpop_middleware._judge.verdicts import Headers

__all__ = ["GUARD", "exception_with", "makes_the_response", "response_with"]

_Original = TypeVar("_Original")

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


def exception_with(headers: Headers, error: HTTPException) -> HTTPException:
    """Return a copy of `error` whose fields of the same names are replaced by `headers`."""
    names = {name for name, _ in headers}
    kept = [(name, value) for name, value in (error.headers or {}).items() if name.lower() not in names]
    copied = _copied(error, *error.args)
    object.__setattr__(copied, "headers", MutableHeaders(raw=raw_headers((*kept, *headers))))
    return copied.with_traceback(error.__traceback__)


def response_with(headers: Headers, response: Response) -> Response:
    """Return `response` with its fields of the same names replaced by `headers`.

    It is a copy, unless it streams: a stream is sent once, and its owner may know its response.
    """
    if headers and (isinstance(response, FileResponse) or not streams(response)):
        response = _copied(response)
        response.raw_headers = list(response.raw_headers)
        # `headers` of Starlette's, which shows the list that it was made for.
        vars(response).pop("_headers", None)
    for name, value in headers:
        response.headers[name] = value
    return response


def _copied(original: _Original, *args: object) -> _Original:
    """Return a shallow copy, made of `args` without any method of the class's own: each may do anything."""
    kind = type(original)
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    copied: _Original = built_in.__new__(kind, *args)
    state: Any = object.__getstate__(original)
    # With slots it is a pair.
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    vars(copied).update(attributes)
    for name, value in slots.items():
        object.__setattr__(copied, name, value)
    return copied
