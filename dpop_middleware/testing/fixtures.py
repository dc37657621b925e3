"""Fixtures of pytest for the tests of your own application, by import or by `pytest_plugins`.

    # conftest.py
    from dpop_middleware.testing.fixtures import dpop_client, dpop_issuer

    @pytest.fixture
    def dpop_server() -> ResourceServer: return api  # the production server, which stays unchanged

    @pytest.fixture
    def dpop_app(dpop_issuer) -> ASGIApp: return make_app(dpop_issuer.resource_server(api))

The two fixtures `dpop_server` and `dpop_app` are yours. Nothing here is loaded unless you ask for it.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.testing.issuer import TestIssuer
from dpop_middleware.testing.stand_in import public_origin_of
from dpop_middleware.testing.target import ASGIApp

__all__ = ["dpop_client", "dpop_issuer"]


@pytest.fixture
def dpop_issuer(dpop_server: ResourceServer) -> TestIssuer:
    """Return a stand-in for the issuer of your fixture `dpop_server`: `TestIssuer.of`."""
    return TestIssuer.of(dpop_server)


@pytest.fixture
def dpop_client(
    dpop_issuer: TestIssuer, dpop_server: ResourceServer, dpop_app: ASGIApp
) -> Generator[Callable[..., TestClient]]:
    """Yield a function that makes clients of `dpop_app`: `dpop_client(sub="ann", scopes=["notes:read"])`.

    Arguments are those of `TestIssuer.auth`. Each client has a key and a token of its own, calls the origin
    of the first public URL, and is in the application's lifespan until the test ends.
    """
    origin = public_origin_of(dpop_server)
    with ExitStack() as stack:

        def client(**token: Any) -> TestClient:
            made = stack.enter_context(TestClient(dpop_app, base_url=origin))
            made.auth = dpop_issuer.auth(**token)
            return made

        yield client
