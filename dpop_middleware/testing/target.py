"""The application that the conformance suite tests: for tests only."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from dpop_middleware._options import refused
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.testing.issuer import TestIssuer
from dpop_middleware.testing.lifespan import ASGIApp

if TYPE_CHECKING:
    # The command imports this module, with or without httpx2.
    import httpx2

__all__ = ["Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A protected resource, and the credentials of an honest client.

    - `url`: the resource's absolute URL, as clients call it; with the host that the server expects.
    - `method`: the HTTP method; the request has no body.
    - `key`, `access_token`: a client's key, and a token that is bound to it and grants what the route needs.
    - `app`: the ASGI application, served in this process; None to reach `url` over the network. `root_path`:
      at what its server mounts it (uvicorn's `--root-path`); the path of `url` begins with it.
    - `transport`: makes what reaches `url` over the network, for a CA of your own or HTTP/2 for instance:
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
        if self.root_path and not urlsplit(self.url).path.startswith(self.root_path):
            raise refused("root_path", "what the path of the URL begins with", self.root_path)

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
        key = DPoPKey.generate()
        granted = tuple(scopes)

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
