"""An ASGI scope whose request target came in absolute form, as the application expects it: in origin form.

RFC 9112 section 3.2.2. Some servers hand the target over whole, in `path` and `raw_path`; some take the
authority off and let `Host` stand: then nothing of it can be seen here.
"""

from starlette.types import Scope

from dpop_middleware._proof.verification import TargetURIs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.errors import InvalidRequest

__all__ = ["is_not_origin_form", "to_origin_form"]


def is_not_origin_form(scope: Scope) -> bool:
    """Whether path or raw path of `scope` starts with anything but a slash."""
    raw_path = scope.get("raw_path")
    return scope["path"][:1] != "/" or (raw_path is not None and raw_path[:1] != b"/")


def to_origin_form(scope: Scope, public_urls: TargetURIs) -> bool:
    """Put the target of `scope` in origin form; return False where it can't be, and change nothing then.

    It can be where it is in absolute form and names an origin of ours. `Host` becomes its authority: what the
    application reads of the host is what a proof was compared with (RFC 9112 section 3.2.2).
    """
    request = ResourceRequest.from_scope(scope)
    try:
        seen = public_urls.origin_form(request)
    except InvalidRequest:
        return False
    if seen is request:
        return False
    prefix = request.raw_path.removesuffix(seen.raw_path)
    path: str = scope["path"]
    if not path.startswith(prefix):
        return False
    scope["path"] = path.removeprefix(prefix) or "/"
    if scope.get("raw_path") is not None:
        scope["raw_path"] = seen.raw_path.encode("latin-1")
    host = seen.hosts[0].encode("latin-1")
    scope["headers"] = [
        (b"host", host),
        *(field for field in scope["headers"] if field[0].lower() != b"host"),
    ]
    return True
