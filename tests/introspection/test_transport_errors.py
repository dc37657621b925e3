"""Why an introspection endpoint gives no answer, and of whom that says something."""

import time

import pytest
from starlette.responses import Response

from dpop_middleware.introspection import ClientSecretBasic
from dpop_middleware.introspection._endpoint import Endpoint, EndpointOptions
from dpop_middleware.introspection._transport import EndpointError, NotNamedError
from dpop_middleware.tokens.connections import ProxyChoice
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question


def endpoint_of(issuer: IssuerOfOpaqueTokens, *, url: str | None) -> Endpoint:
    return Endpoint(
        EndpointOptions(
            issuer=issuer.origin,
            url=url,
            authentication=ClientSecretBasic(client_id="api", client_secret="s3cret:/+"),
            accept="application/json",
            clock=time.time,
            insecure_http_hosts=frozenset(),
            ssl_context=NO_AUTHORITIES,
            max_connections=4,
            proxy=ProxyChoice(None),
        )
    )


@pytest.mark.parametrize(
    ("status", "of_token", "declined", "blocked"),
    [
        (400, True, True, False),
        (422, True, True, False),
        (500, True, False, False),
        (302, False, False, True),
        (401, False, False, True),
        (403, False, False, True),
        (429, False, False, False),
        (503, False, False, False),
    ],
)
async def test_a_status_is_about_the_one_token_or_about_the_server(
    issuer: IssuerOfOpaqueTokens, status: int, of_token: bool, declined: bool, blocked: bool
) -> None:
    async def behaves(_question: Question) -> Response:
        return Response(b"{}", status_code=status, headers={"Retry-After": "7"})

    issuer.behaves = behaves
    endpoint = endpoint_of(issuer, url=issuer.endpoint)
    with pytest.raises(EndpointError, match=f"the status is {status}") as caught:
        await endpoint.ask("any")
    await endpoint.aclose()
    error = caught.value
    assert (error.of_token, error.declined, error.blocked) == (of_token, declined, blocked)
    assert error.retry_after == 7


async def test_metadata_that_name_no_endpoint_are_told_apart_from_metadata_that_are_not_there(
    issuer: IssuerOfOpaqueTokens,
) -> None:
    async def fails() -> Response:
        return Response(status_code=502)

    for describes, metadata, kind in (
        (None, {"introspection_endpoint": None}, NotNamedError),
        (fails, {}, EndpointError),
    ):
        issuer.describes, issuer.metadata = describes, metadata
        endpoint = endpoint_of(issuer, url=None)
        with pytest.raises(EndpointError) as caught:
            await endpoint.ask("any")
        await endpoint.aclose()
        assert type(caught.value) is kind
        assert not caught.value.of_token
