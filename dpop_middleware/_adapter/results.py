"""The result of a decorated function of Starlette: whether it is the response, and header fields on it.

A refusal that is taken for a value lets a stranger pass: whoever calls may ignore it, and go on.

Many routes may return or raise one object, such as a constant of a module. What it gets for one request must
not be in the answers to others: a copy gets it.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FrameType, FunctionType, MethodType
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

__all__ = ["exception_with", "makes_the_response", "response_with"]

_Original = TypeVar("_Original")

# Inside a middleware `receive` and `send` are functions of the same module.
_CALL_NEXT = BaseHTTPMiddleware.__module__, "call_next"
# The functions that wait for an endpoint and send its result, or return it to one that does.
_SENDERS = frozenset(
    {
        ("starlette.routing", "request_response.<locals>.app.<locals>.app"),
        ("starlette.routing", "websocket_session.<locals>.app.<locals>.app"),
        ("starlette.endpoints", "HTTPEndpoint.dispatch"),
        ("fastapi.routing", "run_endpoint_function"),
        ("fastapi.routing", "get_websocket_app.<locals>.app"),
    }
)
# Where those are, and what else calls functions of an application, or waits for what does.
_ROUTERS = frozenset(
    {module for module, _ in _SENDERS}
    | {"fastapi.dependencies.utils", "starlette.background", "starlette.responses"}
)
# The same, and the middleware that calls a `dispatch`.
_CALLERS = _ROUTERS | {BaseHTTPMiddleware.__module__}


def makes_the_response(function: Callable[..., Any], args: tuple[Any, ...], scope: Scope) -> bool:
    """Whether the result of `function`, called with the arguments `args`, is the connection's response.

    It is if the router itself calls `function`, and if `function` is the `dispatch` of a middleware. Any
    other caller may want another value, or none: a decorator around it too, a `dispatch` that passes its
    arguments on, and `function` itself. `function` must be running: its callers are looked at.
    """
    if _calls_itself(function):
        return False
    middleware = _middleware_of(args)
    if middleware is not None:
        return _is_called_for(function, middleware.dispatch_func)
    if not _is_called_by_a_router():
        return False
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, type):
        endpoint = _request_method(endpoint, args)
    return _is_called_for(function, endpoint)


def _calls_itself(function: Callable[..., Any]) -> bool:
    """Whether no router or middleware called `function`, or it is running twice within one call by one."""
    frame, running = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__") not in _CALLERS:
        running += _runs(frame, function)
        frame = frame.f_back
    return frame is None or running > 1


def _runs(frame: FrameType, function: Any) -> bool:
    """Whether `frame` is of `function` itself: others are made by the same decorator, of the same code."""
    code = function.__code__
    return frame.f_code is code and all(
        frame.f_locals[name] is cell.cell_contents
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
    )


def _middleware_of(args: Iterable[Any]) -> Any:
    """Return the BaseHTTPMiddleware by whose `call_next`, in `args`, its `dispatch` goes on, or None."""
    for function in filter(inspect.isfunction, args):
        if (function.__module__, function.__name__) == _CALL_NEXT:
            return inspect.getclosurevars(function).nonlocals.get("self")
    return None


def _is_called_by_a_router() -> bool:
    """Whether the innermost function of a router among those that wait is one that sends a result."""
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module in _ROUTERS:
            return (module, frame.f_code.co_qualname) in _SENDERS
        frame = frame.f_back
    return False


def _request_method(endpoint: type, args: tuple[Any, ...]) -> Any:
    """Return the method of an HTTPEndpoint that serves its request, None if its object isn't in `args`."""
    served = next(iter(args), None)
    if type(served) is not endpoint or not isinstance(served, HTTPEndpoint):
        return None
    name = served.scope["method"].lower()
    return getattr(served, "get" if name == "head" and not hasattr(served, name) else name, None)


def _is_called_for(function: Callable[..., Any], called: Any) -> bool:
    """Whether a call of `called` is one of `function`, maybe with an object or other arguments before.

    A function that is decorated twice is also called for the outer one, which returns what it returns.
    """
    # By the types themselves: a proxy says that it is what it stands for.
    if type(called) is functools.partial:
        called = called.func
    if type(called) is MethodType:
        called = called.__func__
    while called is not function and _has_the_code_of(function, called):
        called = called.__wrapped__
    return called is function or type(called).__call__ is function


def _has_the_code_of(function: Any, other: Any) -> bool:
    return type(other) is FunctionType and other.__code__ is function.__code__


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
