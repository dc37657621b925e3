"""Header fields on what an application returns or raises.

Many routes may return or raise one object, such as a constant of a module. What it gets for one request must
not be in the answers to others: a copy gets it.
"""

from copy import copy

from starlette.datastructures import Headers as RawHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dpop_middleware._adapter.answers import raw_headers
from dpop_middleware._adapter.expiry import streams
from dpop_middleware._judge.verdicts import Headers

__all__ = ["exception_with", "response_with"]


def exception_with(headers: Headers, error: HTTPException) -> HTTPException:
    """Return a copy of `error` whose fields of the same names are replaced by `headers`."""
    copied = type(error).__new__(type(error), *error.args)
    vars(copied).update(vars(error))
    names = {name for name, _ in headers}
    kept = [(name, value) for name, value in (error.headers or {}).items() if name.lower() not in names]
    copied.headers = RawHeaders(raw=raw_headers((*kept, *headers)))
    return copied.with_traceback(error.__traceback__)


def response_with(headers: Headers, response: Response) -> Response:
    """Return `response` with its fields of the same names replaced by `headers`.

    It is a copy, unless it streams: a stream is sent once, and may belong to its response.
    """
    if headers and not streams(response):
        response = copy(response)
        response.raw_headers = list(response.raw_headers)
        # `headers` of Starlette's, which shows the list that it was made for.
        vars(response).pop("_headers", None)
    for name, value in headers:
        response.headers[name] = value
    return response
