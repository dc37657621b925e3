"""An issuer of opaque tokens for each test, and verifiers that are closed at its end."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import API, PATIENT, IssuerOfOpaqueTokens, issuing


@pytest.fixture
def issuer() -> Iterator[IssuerOfOpaqueTokens]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
async def verifier(issuer: IssuerOfOpaqueTokens) -> AsyncIterator[Callable[..., IntrospectionVerifier]]:
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> IntrospectionVerifier:
            usual: dict[str, Any] = {
                "issuer": issuer.origin,
                "audience": API,
                "client_authentication": ClientSecretBasic(client_id="api", client_secret="s3cret:/+"),
                "endpoint": issuer.endpoint,
                "ssl_context": NO_AUTHORITIES,
                **PATIENT,
            }
            made = IntrospectionVerifier(**(usual | options))
            stack.push_async_callback(made.aclose)
            return made

        yield make
