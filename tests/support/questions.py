"""The questions of a gateway, as `ForwardAuth` is asked them."""

from typing import Any

from dpop_middleware.forward_auth import ForwardAuth
from tests.support.adapters import Fields, scope_of
from tests.support.asgi import Answer, call

__all__ = ["ASKS", "SHARED_SECRET", "ask", "question"]

SHARED_SECRET = "s3cret-that-only-the-gateway-knows"
ASKS = ("X-Forward-Auth-Secret", SHARED_SECRET)


def question(method: str | None = "GET", uri: str | None = "/notes") -> Fields:
    """Return what the gateway tells: its secret, method and URI of the client's request; None leaves out."""
    told = [("X-Original-Method", method), ("X-Original-URI", uri)]
    return [ASKS, *((name, value) for name, value in told if value is not None)]


async def ask(app: ForwardAuth, *fields: tuple[str, str], **changes: Any) -> Answer:
    """The question of a gateway that asks by GET, whatever the client's method was."""
    return await call(app, scope_of("/_dpop", list(fields), **changes))
