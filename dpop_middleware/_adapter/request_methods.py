"""The request methods that reach an HTTPEndpoint (RFC 9110 section 9, RFC 5789).

Starlette before 1.1 dispatches to any attribute that has the request method in lower case as its name:
`RENDER` reaches a helper named `render`. `requires_dpop` guards against that with every version.
"""

import inspect
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["guard_class_of", "is_unreachable", "mark", "not_allowed"]

# The methods that every class may answer, with any handler.
_USUAL = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# The other methods of HTTP, by RFC 9110 and the IANA registry: only a protected handler shows that the class
# answers one. `search` and `update` are good names for helpers too.
_DECLARED = frozenset({
    "ACL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY",
    "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH",
    "QUERY", "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
    "UPDATEREDIRECTREF",
})  # fmt: skip
_MARK = "__requires_dpop__"
_GUARD = "__requires_dpop_guard__"


def mark(protected: Any) -> None:
    """Remember that a function or a class is protected."""
    setattr(protected, _MARK, True)


def is_unreachable(endpoint: HTTPEndpoint, method: str) -> bool:
    """Whether no handler of `endpoint` is meant to answer this request method."""
    # Starlette's own list, which a class may have added to.
    if method in _USUAL or method in getattr(endpoint, "_allowed_methods", ()):
        return False
    kind = type(endpoint)
    handler = getattr(kind, method.lower(), None) if method in _DECLARED else None
    return handler is None or not (hasattr(handler, _MARK) or hasattr(kind, _MARK))


async def not_allowed(endpoint: HTTPEndpoint) -> Response:
    """Return the endpoint's own answer to a method that it doesn't have, or raise what it raises."""
    answer: Any = endpoint.method_not_allowed
    request = Request(endpoint.scope, endpoint.receive)
    given: Any = (
        answer(request) if inspect.iscoroutinefunction(answer) else run_in_threadpool(answer, request)
    )
    return await given  # type: ignore[no-any-return]


class _Guard:
    """In the body of a class, guards the class's `dispatch` when the class is made, and is removed then."""

    def __set_name__(self, owner: type, name: str) -> None:
        delattr(owner, name)
        own = vars(owner).get("dispatch")
        if hasattr(owner, "dispatch") and HTTPEndpoint not in owner.__mro__:
            return  # another framework's

        async def dispatch(endpoint: Any) -> None:
            if is_unreachable(endpoint, endpoint.scope["method"]):
                response = await not_allowed(endpoint)
                await response(endpoint.scope, endpoint.receive, endpoint.send)
            elif own is not None:
                await own(endpoint)
            else:
                # Not the base class's: in a mixin, the HTTPEndpoint comes next.
                following: Any = super(owner, endpoint)
                await following.dispatch()

        setattr(owner, "dispatch", dispatch)  # noqa: B010


def guard_class_of(endpoint: Callable[..., Any]) -> None:
    """Guard the class in whose body `endpoint` is being defined; does nothing for any other function.

    The other methods of the class need the guard, not the decorated one, and only the class body has them.
    """
    body, _, _ = getattr(endpoint, "__qualname__", "").rpartition(".")
    if not body or body.endswith("<locals>"):
        return
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == body.rpartition(".")[2] and frame.f_locals.get("__qualname__") == body:
            frame.f_locals.setdefault(_GUARD, _Guard())
            return
        frame = frame.f_back
