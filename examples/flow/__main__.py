"""DPoP step by step: an authorization server, a protected API, and a page on which you play the client.

    python -m tox -e flow

starts all three on ports of 127.0.0.1 of their own, so that they are three origins to a browser, and prints
the page's address. Ctrl-C stops them.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from examples.flow import api, authorization_server, page
from examples.flow.check import check

HOST = "127.0.0.1"
USUAL_PORT = 9449


class ByPort:
    """One server for several origins: passes each connection to the application for its port."""

    def __init__(self, apps: Mapping[int, ASGIApp], *, lifespan: ASGIApp) -> None:
        self._apps = apps
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        app = self._lifespan if scope["type"] == "lifespan" else self._apps[scope["server"][1]]
        await app(scope, receive, send)


def listening(port: int) -> list[socket.socket]:
    """Return three sockets: on `port` and the two after it, or wherever there is room where `port` is 0."""
    ports = [port, port + 1, port + 2] if port else [0, 0, 0]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, one))) for one in ports]
        stack.pop_all()
        return sockets


def application(origins: list[str]) -> ByPort:
    """Build the three applications for the origins of page, authorization server and API."""
    page_origin, issuer, resource = origins
    the_api = api.create_app(issuer=issuer, resource=resource, page=page_origin)
    apps = (
        page.create_app(issuer=issuer, resource=resource),
        authorization_server.create_app(issuer=issuer, resource=resource, page=page_origin),
        the_api,
    )
    ports = [int(origin.rpartition(":")[2]) for origin in origins]
    return ByPort(dict(zip(ports, apps, strict=True)), lifespan=the_api)


async def serve(sockets: list[socket.socket], *, check_only: bool) -> int:
    """Serve until Ctrl-C, or walk the flow once; return the exit status."""
    origins = [f"http://{HOST}:{one.getsockname()[1]}" for one in sockets]
    config = uvicorn.Config(application(origins), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    for name, origin in zip(("page", "authorization server", "API"), origins, strict=True):
        print(f"{name:<22}{origin}")
    if not check_only:
        print(f"\nOpen {origins[0]} in a browser. Ctrl-C stops all three.", flush=True)
        await server.serve(sockets=sockets)
        return 0
    serving = asyncio.create_task(server.serve(sockets=sockets))
    try:
        return await asyncio.to_thread(check, *origins)
    finally:
        server.should_exit = True
        await serving


def main() -> int:
    """Start the servers; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.flow", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--port",
        type=int,
        default=USUAL_PORT,
        help=f"the page's port; the servers take the next two (default {USUAL_PORT}, 0 for any free ones)",
    )
    parser.add_argument("--check", action="store_true", help="walk the flow once without a browser, and stop")
    arguments = parser.parse_args()
    try:
        sockets = listening(arguments.port)
    except (OSError, OverflowError) as error:
        print(f"port {arguments.port} or one of the next two can't be used ({error}): try --port 0")
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(serve(sockets, check_only=arguments.check))
    return 0


if __name__ == "__main__":
    sys.exit(main())
