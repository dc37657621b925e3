"""The introspection endpoint: its discovery, and replies that are no answer (RFC 7662 section 2)."""

import asyncio
import codecs
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import Response

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import Unavailable
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.introspection._endpoint import Endpoint, EndpointOptions
from dpop_middleware.introspection._transport import EndpointError
from dpop_middleware.tokens.connections import ProxyChoice
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question, answers, refusal
from tests.support.issuer_server import OPENID, IssuerServer, json_answer

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


METADATA = "/.well-known/oauth-authorization-server"
DISCOVERED = "introspection_endpoint"


def options_for(issuer: str, **changes: Any) -> EndpointOptions:
    """Options that find the endpoint by the metadata of `issuer`."""
    options: dict[str, Any] = {
        "issuer": issuer,
        "url": None,
        "authentication": US,
        "accept": "application/json",
        "clock": time.time,
        "insecure_http_hosts": frozenset(),
        "ssl_context": NO_AUTHORITIES,
        "max_connections": 4,
        "proxy": ProxyChoice(None),
    }
    return EndpointOptions(**options | changes)


@pytest.fixture
async def located(issuer: IssuerOfOpaqueTokens) -> AsyncIterator[tuple[Endpoint, list[float]]]:
    """An endpoint that was found by the metadata, and the time, which is the test's to move."""
    now = [1000.0]
    endpoint = Endpoint(options_for(issuer.origin, monotonic=lambda: now[0]))
    await endpoint.ask("any")
    assert endpoint.url == issuer.endpoint
    issuer.requests.clear()
    yield endpoint, now
    await endpoint.aclose()


async def test_a_place_of_the_metadata_that_hangs_is_tried_last_at_the_next_attempt() -> None:
    with IssuerServer() as server:
        server.handlers[METADATA] = lambda _: [60.0]
        document = {"issuer": server.origin, DISCOVERED: f"{server.origin}/introspect"}
        server.handlers[OPENID] = lambda _: json_answer(document)
        endpoint = Endpoint(options_for(server.origin))
        asking = asyncio.create_task(endpoint.locate())
        while METADATA not in server.targets:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await endpoint.locate()
        assert endpoint.url == f"{server.origin}/introspect"
        assert server.targets.count(METADATA) == 1
        await endpoint.aclose()


async def test_an_hour_later_the_metadata_are_read_again(
    issuer: IssuerOfOpaqueTokens, located: tuple[Endpoint, list[float]]
) -> None:
    endpoint, now = located
    now[0] += 3599
    await endpoint.ask("any")
    assert issuer.requests == []
    now[0] += 1
    for _ in range(2):
        await endpoint.ask("any")
        assert (endpoint.url, issuer.requests) == (issuer.endpoint, [METADATA])
    issuer.metadata = {DISCOVERED: f"{issuer.origin}/moved"}
    now[0] += 3600
    await endpoint.ask("any")
    assert endpoint.url == f"{issuer.origin}/moved"


async def test_a_byte_order_mark_is_ignored_rfc_8259_8_1(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    document = {"issuer": issuer.origin, DISCOVERED: issuer.endpoint}

    def marked(said: dict[str, Any]) -> Response:
        return Response(codecs.BOM_UTF8 + json.dumps(said).encode(), media_type="application/json")

    async def describes() -> Response:
        return marked(document)

    async def behaves(question: Question) -> Response:
        return marked(issuer.says(question.form["token"]))

    issuer.describes, issuer.behaves = describes, behaves
    assert (await verifier(endpoint=None).verify(issuer.issue(JKT))).jkt == JKT


async def test_answers_may_be_compressed_with_gzip(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    document = {"issuer": issuer.origin, DISCOVERED: issuer.endpoint}

    def compressed(said: dict[str, Any]) -> Response:
        fields = {"Content-Type": "application/json", "Content-Encoding": "GZIP"}
        return Response(gzip.compress(json.dumps(said).encode()), headers=fields)

    async def describes() -> Response:
        return compressed(document)

    async def behaves(question: Question) -> Response:
        return compressed(issuer.says(question.form["token"]))

    issuer.describes, issuer.behaves = describes, behaves
    opaque = verifier(endpoint=None)
    for _ in range(3):
        assert (await opaque.verify(issuer.issue(JKT))).jkt == JKT


async def never() -> Response:
    await asyncio.Event().wait()
    return Response()


async def fails() -> Response:
    return Response(status_code=503)


async def is_a_page() -> Response:
    return Response("<!doctype html>")


@pytest.mark.parametrize(
    ("describes", "reason"),
    [(fails, "the status is 503"), (is_a_page, "not a JSON object"), (never, "no metadata within 0.5 s")],
)
async def test_where_the_metadata_cannot_be_read_the_endpoint_is_asked_where_it_was(
    issuer: IssuerOfOpaqueTokens,
    located: tuple[Endpoint, list[float]],
    caplog: pytest.LogCaptureFixture,
    describes: Callable[[], Awaitable[Response]],
    reason: str,
) -> None:
    endpoint, now = located
    issuer.describes = describes
    now[0] += 3600
    for _ in range(2):
        assert b"active" in (await endpoint.ask("any")).body
    assert issuer.requests == [METADATA], "the next look is a minute later"
    (said,) = caplog.messages
    assert said.startswith("the introspection endpoint's last URL is used, since it can't be looked up: ")
    assert reason in said
    issuer.metadata, issuer.describes = {DISCOVERED: f"{issuer.origin}/moved"}, None
    looks = 0
    while endpoint.url != f"{issuer.origin}/moved":
        # On a busy machine half a second may be too little for a look.
        assert (looks := looks + 1) <= 20
        now[0] += 60
        await endpoint.ask("any")


async def test_an_endpoint_that_failed_is_asked_where_it_was_too(
    issuer: IssuerOfOpaqueTokens, located: tuple[Endpoint, list[float]]
) -> None:
    endpoint, now = located
    issuer.describes, issuer.behaves = fails, answers(502)
    for looks in (0, 1, 1, 1):
        with pytest.raises(EndpointError, match="the status is 502"):
            await endpoint.ask("any")
        assert issuer.requests == [METADATA] * looks, "one look a second at most"
    issuer.behaves = None
    now[0] += 1
    for _ in range(2):
        assert b"active" in (await endpoint.ask("any")).body
    assert issuer.requests == [METADATA] * 2


async def test_an_endpoint_that_does_not_answer_in_time_may_have_moved_too(
    issuer: IssuerOfOpaqueTokens, located: tuple[Endpoint, list[float]]
) -> None:
    endpoint, _ = located
    reached = asyncio.Event()

    async def hangs(_question: Question) -> Response:
        loop.call_soon_threadsafe(reached.set)
        return await never()

    loop, issuer.behaves = asyncio.get_running_loop(), hangs
    question = asyncio.create_task(endpoint.ask("any"))
    await reached.wait()
    question.cancel()
    await asyncio.wait({question})
    issuer.metadata, issuer.behaves = {DISCOVERED: f"{issuer.origin}/moved"}, None
    assert b"active" in (await endpoint.ask("any")).body
    assert endpoint.url == f"{issuer.origin}/moved"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [({"issuer": "https://other.example"}, "another issuer's"), ({DISCOVERED: None}, "takes an https URL")],
)
async def test_an_endpoint_that_the_metadata_name_no_more_is_asked_no_more(
    issuer: IssuerOfOpaqueTokens,
    located: tuple[Endpoint, list[float]],
    metadata: dict[str, Any],
    says: str,
) -> None:
    endpoint, now = located
    issuer.metadata = metadata
    now[0] += 3600
    for _ in range(2):
        with pytest.raises(EndpointError, match=says):
            await endpoint.ask("any")
        assert endpoint.url is None
    assert len(issuer.asked) == 1
    issuer.metadata = {}
    await endpoint.ask("any")
    assert endpoint.url == issuer.endpoint


@pytest.mark.parametrize(
    ("behaves", "reason"),
    [
        (answers(), "doesn't say whether the token is active"),
        (answers(body=b'{"active": "true"}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": 1}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": false, "active": true}'), "not a JSON object"),
        (answers(body=b"[true]"), "not a JSON object"),
        (answers(body=b'{"active": true, "x": "' + b"y" * 200_000 + b'"}'), "larger than the limit"),
        (answers(Content_Encoding="br"), "content coding other than gzip"),
        (answers(Content_Encoding="gzip"), "not valid gzip data"),
        (answers(body=gzip.compress(b" " * 200_000), Content_Encoding="gzip"), "larger than the limit"),
        (answers(body=b"x" * 200_000, Content_Encoding="gzip"), "larger than the limit"),
        (answers(Content_Type="text/html"), "media type"),
        (answers(Content_Type="application/token-introspection+jwt"), "media type"),
        (answers(302, Location="https://evil.example/"), "the status is 302"),
        (answers(401), "the status is 401, not 200: does the issuer know this client_authentication?"),
        (answers(403), "the status is 403, not 200: does the issuer know this client_authentication?"),
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
    assert str(error.actual).startswith(f"{issuer.endpoint}: ")
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
