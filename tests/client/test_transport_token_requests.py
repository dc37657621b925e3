"""Token requests below clients of httpx2 and httpx: their recognition, and the answer for the client."""

import asyncio
import base64
import gzip
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import DPoPKey, DPoPTransport, TokenRequestError
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import (
    CLIENTS,
    JSON,
    Answer,
    Answering,
    Seen,
    caller,
    demanding,
    issuing,
)

KEY = DPoPKey.generate()
BEARER = {"Authorization": "Bearer token"}
GRANT = {"grant_type": "refresh_token", "refresh_token": "r"}

pytestmark = pytest.mark.parametrize("kind", CLIENTS)


class TestTokenRequests:
    async def test_a_token_request_has_a_proof_and_its_answer_is_translated(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(issuing("dpop")) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                answer = await client.request("POST", f"{server.origin}/token", data=GRANT, auth=("x", "y"))
        (seen,) = server.seen
        assert answer.json() == {"access_token": "token", "token_type": "Bearer", "expires_in": 60}
        assert seen.body == b"grant_type=refresh_token&refresh_token=r"
        assert seen.all("authorization") == [f"Basic {base64.b64encode(b'x:y').decode()}"]
        assert "ath" not in seen.proof
        assert seen.proof["htu"] == f"{server.origin}/token"

    def test_translate_token_type_takes_true_or_false(self, kind: str) -> None:
        for option in ("translate_token_type", "correct_clock"):
            wrong: dict[str, Any] = {option: 1}
            with pytest.raises(ConfigurationError, match=f"^{option} takes True or False, not 1$"):
                DPoPTransport(KEY, **wrong)

    async def test_an_answer_may_be_left_untranslated(self, kind: str, answering: Answering) -> None:
        with answering(issuing()) as server:
            transport = DPoPTransport(KEY, translate_token_type=False)
            async with caller(kind, transport=transport) as client:
                answer = await client.request("POST", server.origin, data=GRANT)
        assert answer.json()["token_type"] == "DPoP"

    async def test_a_token_request_is_sent_without_access_token(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(issuing()) as server:
            async with caller(kind, transport=DPoPTransport(KEY), headers=BEARER) as client:
                await client.request("GET", server.origin)
                await client.request("POST", server.origin, data=GRANT)
        assert server.seen[1].all("authorization") == []
        assert "ath" not in server.seen[1].proof

    async def test_nonces_of_endpoint_and_api_are_remembered_separately(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            return (issuing(nonce="as") if seen.path == "/token" else demanding("rs"))(seen)

        with answering(handler) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                for _ in range(2):
                    token = await client.request("POST", f"{server.origin}/token", data=GRANT)
                    assert token.json()["access_token"] == "token"
                    assert (await client.request("GET", server.origin, headers=BEARER)).status_code == 200
        assert [seen.proof.get("nonce") for seen in server.seen] == [None, "as", None, "rs", "as", "rs"]

    async def test_two_token_requests_at_once_have_a_proof_each(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(issuing(nonce="n")) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                answers = await asyncio.gather(
                    *(client.request("POST", server.origin, data=GRANT) for _ in range(5))
                )
        assert [answer.json()["token_type"] for answer in answers] == ["Bearer"] * 5
        assert len({seen.proof["jti"] for seen in server.seen}) == len(server.seen)

    @pytest.mark.parametrize("token_type", ["Bearer", "bearer"])
    async def test_a_token_that_is_not_bound_is_refused(
        self, kind: str, answering: Answering, token_type: str
    ) -> None:
        with answering(issuing(token_type)) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                with pytest.raises(TokenRequestError, match="did not bind the token") as caught:
                    await client.request("POST", server.origin, data=GRANT)
        assert "'token'" not in str(caught.value)
        assert caught.value.status == 200

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b'{"access_token": "t", "token_type": "N_A"}'),
            (200, b'{"token_type": "Bearer"}'),
            (200, b'["token_type", "DPoP"]'),
            (200, b'{"token_type": ["DPoP"]}'),
            (200, b"\xff"),
            (200, b"[" * 50_000),
            (200, b""),
            (400, b'{"error": "invalid_grant"}'),
            (400, b'{"error": "x", "token_type": "DPoP", "access_token": "t"}'),
            (500, b'{"access_token": "t", "token_type": "Bearer"}'),
            (502, b"[" * 100_000),
        ],
    )
    async def test_any_other_answer_is_unchanged(
        self, kind: str, answering: Answering, status: int, body: bytes
    ) -> None:
        with answering(lambda _: Answer(status, JSON, body)) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                answer = await client.request("POST", server.origin, data=GRANT)
        assert (answer.status_code, answer.content, len(server.seen)) == (status, body, 1)

    async def test_a_compressed_answer_is_read(self, kind: str, answering: Answering) -> None:
        body = gzip.compress(b'{"access_token": "t", "token_type": "DPoP"}')
        with answering(lambda _: Answer(201, JSON | {"content-encoding": "gzip", "x": "y"}, body)) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                answer = await client.request("POST", server.origin, data=GRANT)
        assert (answer.json()["token_type"], answer.headers["x"]) == ("Bearer", "y")
        assert (answer.status_code, answer.request.method) == (201, "POST")

    async def test_only_a_form_with_a_grant_type_is_a_token_request(
        self, kind: str, answering: Answering
    ) -> None:
        other: list[tuple[str, dict[str, Any]]] = [
            ("PUT", {"data": GRANT}),
            ("POST", {"json": GRANT}),
            ("POST", {"data": {"my_grant_type": "grant_type"}}),
            ("POST", {"files": {"grant_type": b"x"}}),
            ("POST", {"content": b"grant_type=x", "headers": {"content-type": "text/plain"}}),
            ("POST", {}),
        ]
        with answering(issuing()) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                for method, more in other:
                    answer = await client.request(method, server.origin, **more)
                    assert answer.json()["token_type"] == "DPoP"
                form = {"content-type": "Application/X-WWW-Form-URLencoded; charset=utf-8"}
                content = b"a=b&grant_type=x"
                answer = await client.request("POST", server.origin, headers=form, content=content)
        assert [seen.bare for seen in server.seen] == [True] * 6 + [False]
        assert answer.json()["token_type"] == "Bearer"

    async def test_a_named_endpoint_is_the_only_one(self, kind: str, answering: Answering) -> None:
        with answering(issuing()) as server:
            named = f"{server.origin.upper()}/token?x"
            async with caller(kind, transport=DPoPTransport(KEY, token_endpoint=named)) as client:
                types = [
                    (await client.request("POST", url, data=GRANT)).json()["token_type"]
                    for url in (f"{server.origin}/token?tenant=1", f"{server.origin}/Token", server.origin)
                ]
        assert types == ["Bearer", "DPoP", "DPoP"]
        assert [seen.bare for seen in server.seen] == [False, True, True]

    async def test_a_url_that_is_not_http_is_left_to_the_client_to_refuse(self, kind: str) -> None:
        transport = DPoPTransport(
            KEY, origin="https://api.example.com", token_endpoint="https://as.example.com/token"
        )
        async with caller(kind, transport=transport) as client:
            with pytest.raises((httpx.UnsupportedProtocol, httpx2.UnsupportedProtocol)):
                await client.request("POST", "ftp://example.com/", headers=BEARER, data=GRANT)

    @pytest.mark.parametrize("status", [302, 307, 308])
    async def test_no_redirect_takes_a_code_or_refresh_token_to_another_origin(
        self, kind: str, answering: Answering, status: int
    ) -> None:
        for location in (None, "//h", "http:///", "http://h:x/", "http://["):
            with answering(issuing()) as stranger:
                headers = {"location": location or f"{stranger.origin}/token"}
                with answering(lambda _, headers=headers: Answer(status, headers)) as server:  # type: ignore[misc] # a default binds it
                    transport = DPoPTransport(KEY)
                    async with caller(kind, transport=transport, follow_redirects=True) as client:
                        with pytest.raises(TokenRequestError, match="another origin") as caught:
                            await client.request("POST", server.origin, data=GRANT)
                        assert caught.value.status == status
            assert stranger.seen == []

    async def test_a_redirect_within_the_origin_is_followed(self, kind: str, answering: Answering) -> None:
        def handler(seen: Seen) -> Answer:
            return issuing()(seen) if seen.path == "/new" else Answer(307, {"location": "/new"})

        with answering(handler) as server:
            async with caller(kind, transport=DPoPTransport(KEY), follow_redirects=True) as client:
                answer = await client.request("POST", server.origin, data=GRANT)
        assert answer.json()["token_type"] == "Bearer"
        assert server.seen[1].proof["htu"] == f"{server.origin}/new"

    async def test_where_endpoints_are_named_a_redirect_may_lead_only_to_them(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            return issuing()(seen) if seen.path == "/new" else Answer(307, {"location": "/new"})

        for name, passes in (("/new", True), ("/other", False)):
            with answering(handler) as server:
                named = [f"{server.origin}/token", f"{server.origin}{name}"]
                transport = DPoPTransport(KEY, token_endpoint=named)
                async with caller(kind, transport=transport, follow_redirects=True) as client:
                    if passes:
                        answer = await client.request("POST", named[0], data=GRANT)
                        assert answer.json()["token_type"] == "Bearer"
                    else:
                        with pytest.raises(TokenRequestError, match="another endpoint"):
                            await client.request("POST", named[0], data=GRANT)
            assert all(not seen.bare for seen in server.seen)
            assert len(server.seen) == (2 if passes else 1)
