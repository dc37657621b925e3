"""Header fields on what an application returns or raises.

Many routes may return or raise one object, such as a constant of a module. What it gets for one request must
not be in the answers to others: a copy gets it.
"""

from typing import Any, TypeVar

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from dpop_middleware._adapter.answers import raw_headers
from dpop_middleware._adapter.expiry import streams
from dpop_middleware._judge.verdicts import Headers

__all__ = ["exception_with", "response_with"]

Original = TypeVar("Original")


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


def _copied(original: Original, *args: object) -> Original:
    """Return a shallow copy, made of `args` without any method of the class's own: each may do anything."""
    kind = type(original)
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    copied: Original = built_in.__new__(kind, *args)
    state: Any = object.__getstate__(original)
    # With slots it is a pair.
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    vars(copied).update(attributes)
    for name, value in slots.items():
        object.__setattr__(copied, name, value)
    return copied
