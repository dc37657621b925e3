"""The introspection endpoint: its discovery, and replies that are no answer (RFC 7662 section 2)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import Response

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import Unavailable
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question, refusal

JKT = DPoPKey.generate().jkt
US = ClientSecretBasic(client_id="api", client_secret="s3cret:/+")
Verifier = Callable[..., IntrospectionVerifier]


async def test_the_endpoint_is_found_by_the_issuers_metadata(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(endpoint=None)
    tokens = [issuer.issue(JKT) for _ in range(3)]
    await asyncio.gather(*map(opaque.verify, tokens))
    assert issuer.requests == ["/.well-known/oauth-authorization-server"]


def answers(status: int = 200, body: bytes = b"{}", **headers: str) -> Callable[[Question], Any]:
    async def behave(_question: Question) -> Response:
        fields = {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        return Response(body, status_code=status, headers=fields)

    return behave


@pytest.mark.parametrize(
    ("behaves", "reason"),
    [
        (answers(), "doesn't say whether the token is active"),
        (answers(body=b'{"active": "true"}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": 1}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": false, "active": true}'), "not a JSON object"),
        (answers(body=b"[true]"), "not a JSON object"),
        (answers(body=b'{"active": true, "x": "' + b"y" * 200_000 + b'"}'), "larger than the limit"),
        (answers(Content_Encoding="gzip"), "content coding"),
        (answers(Content_Type="text/html"), "media type"),
        (answers(Content_Type="application/token-introspection+jwt"), "media type"),
        (answers(302, Location="https://evil.example/"), "the status is 302"),
        (answers(401), "the status is 401"),
        (answers(400), "the status is 400"),
        (answers(500), "the status is 500"),
        (answers(503), "the status is 503"),
    ],
)
async def test_an_unusable_answer_is_503(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, behaves: Any, reason: str
) -> None:
    issuer.behaves = behaves
    opaque, token = verifier(), issuer.issue(JKT)
    error = await refusal(opaque, token)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 1
    assert error.check is Check.TOKEN_ACTIVE
    assert reason in str(error.actual)
    assert token not in str(error.actual)
    issuer.behaves = None
    assert (await opaque.verify(token)).subject == "ann"


async def test_the_server_says_when_to_come_back(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    for value, seconds in (("7", 7), ("100000", 60), ("0", 1), ("soon", 1), ("9" * 30, 1)):
        issuer.behaves = answers(429, Retry_After=value)
        error = await refusal(verifier(), "any")
        assert isinstance(error, Unavailable)
        assert error.retry_after == seconds
