"""The application that the conformance suite tests, started and stopped as by a server: for tests only."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import urlsplit

from dpop_middleware._options import part, refused, strings
from dpop_middleware._runtime import Deferred
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import named_origin
from dpop_middleware.testing.issuer import TestIssuer

__all__ = ["ASGIApp", "Target", "lifespan"]

if TYPE_CHECKING:
    import httpx2
else:
    httpx2 = Deferred("httpx2")  # the command imports this module, with or without httpx2

_Message: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A protected resource, and the credentials of an honest client.

    - `url`: the resource's absolute URL, as clients call it; with the host that the server expects.
    - `method`: the HTTP method; the request has no body.
    - `key`, `access_token`: a client's key, and a token that is bound to it and grants what the route needs.
    - `app`: the ASGI application, served in this process; None to reach `url` over the network. `root_path`:
      the path at which its server mounts it (uvicorn's `--root-path`); the path of `url` begins with it.
    - `transport`: makes the transport to `url` over the network, such as for your own CA or for HTTP/2:
      `lambda: httpx2.AsyncHTTPTransport(http2=True, verify=context)`.
    - `token`: makes other tokens for the same route (`TestIssuer.token`); without it the cases that need
      them are skipped.
    - `leave_out`: names of cases to skip, because this target answers them differently on purpose.
    - `clock`: the server's time in seconds since the epoch, for the proofs' `iat`.
    """

    url: str
    method: str = "GET"
    key: DPoPKey
    access_token: str
    app: ASGIApp | None = None
    root_path: str = ""
    transport: "Callable[[], httpx2.AsyncBaseTransport] | None" = None
    token: Callable[..., str] | None = None
    leave_out: Collection[str] = ()
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        named_origin("url", self.url)
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            takes = "a URL without user information, which would be sent in place of the token"
            raise refused("url", takes, self.url)
        if self.root_path and not parts.path.startswith(f"{self.root_path}/"):
            raise refused("root_path", "what the path of the URL begins with", self.root_path)
        # In one name, `in` would find every part of it.
        if isinstance(self.leave_out, (str, Mapping)) or not isinstance(self.leave_out, Collection):
            raise refused(
                "leave_out", "a sequence of names of cases, such as ['unbound_token']", self.leave_out
            )

    @classmethod
    def of(
        cls,
        issuer: TestIssuer,
        *,
        url: str,
        app: ASGIApp | None = None,
        root_path: str = "",
        method: str = "GET",
        scopes: Iterable[str] = (),
        leave_out: Collection[str] = (),
        **claims: Any,
    ) -> Self:
        """Make a key, and tokens of `issuer` for it with `scopes` and `claims` (see `TestIssuer.token`)."""
        takes = "a TestIssuer, such as TestIssuer.of(api)"
        part("issuer", issuer, takes, fits=isinstance(issuer, TestIssuer))
        key = issuer.client_key()
        granted = strings("scopes", scopes)

        def token(**changes: Any) -> str:
            arguments: dict[str, Any] = {"scopes": granted, **claims, **changes}
            return issuer.token(**arguments)

        return cls(
            url=url,
            method=method,
            key=key,
            access_token=token(jkt=key.jkt),
            app=app,
            root_path=root_path,
            token=token,
            leave_out=leave_out,
            clock=issuer.clock,
        )


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncGenerator[ASGIApp]:
    """Run the application's lifespan around the block; yield the application, with the lifespan's state.

    An application that doesn't support the lifespan protocol is served without it. Raises RuntimeError when
    its startup or shutdown fails.
    """
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[_Message] = asyncio.Queue()
    from_app: asyncio.Queue[_Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def with_state(scope: _Message, receive: object, send: object) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    supported = await _phase("startup", task, to_app, from_app)
    try:
        yield with_state if supported else app
    finally:
        if supported:
            await _phase("shutdown", task, to_app, from_app)
            await asyncio.gather(task, return_exceptions=True)


async def _phase(
    name: str,
    task: "asyncio.Future[None]",
    to_app: "asyncio.Queue[_Message]",
    from_app: "asyncio.Queue[_Message]",
) -> bool:
    await to_app.put({"type": f"lifespan.{name}"})
    answer = asyncio.ensure_future(from_app.get())
    await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
    message = answer.result() if answer.done() else {"type": "nothing"}
    if message["type"] == f"lifespan.{name}.complete":
        return True
    # An application that returns, raises or sends another message has no lifespan for a server.
    answer.cancel()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if message["type"] == f"lifespan.{name}.failed":
        raise RuntimeError(f"the application's {name} failed: {message.get('message', '')}")
    return False
