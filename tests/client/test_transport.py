"""DPoPTransport below clients of httpx2 and httpx, sync and async, against a real server on loopback."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import DPoPAuth, DPoPKey, DPoPTransport
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import (
    CHALLENGE,
    CLIENTS,
    JSON,
    Answer,
    Answering,
    Handler,
    Seen,
    caller,
    demanding,
    issuing,
)

KEY = DPoPKey.generate()
BEARER = {"Authorization": "Bearer token"}
GRANT = {"grant_type": "refresh_token", "refresh_token": "r"}

pytestmark = pytest.mark.parametrize("kind", CLIENTS)


def ok(seen: Seen) -> Answer:
    return Answer(200, {}, seen.body)


def over(handler: Handler, *, headers: Iterable[tuple[str, str]] = ()) -> Any:
    """Return a transport without a network for `kind`'s library, which answers as `handler` says."""

    class Over:
        def __init__(self, kind: str) -> None:
            self.seen: list[Seen] = []
            module: Any = httpx2 if kind.startswith("httpx2") else httpx

            def answer(request: Any) -> Any:
                fields = tuple((name.lower(), value) for name, value in request.headers.multi_items())
                seen = Seen(request.method, str(request.url), fields, request.content)
                self.seen.append(seen)
                found = handler(seen)
                return module.Response(found.status, headers=dict(found.headers), content=found.body)

            self.transport = module.MockTransport(answer)

    return Over


class TestResourceRequests:
    async def test_a_bearer_token_is_sent_as_dpop_with_a_fresh_proof(
        self, kind: str, answering: Answering
    ) -> None:
        transport = DPoPTransport(KEY, clock=lambda: 1700000000.7)
        with answering(ok) as server:
            async with caller(kind, transport=transport, headers=BEARER) as client:
                await client.request("GET", server.origin)
                answer = await client.request("GET", f"{server.origin}/a|b?c=d")
                await client.request("POST", server.origin, content=b"body")
        assert [seen.all("authorization") for seen in server.seen] == [["DPoP token"]] * 3
        assert len({seen.proof["jti"] for seen in server.seen}) == 3
        assert server.seen[1].proof["htu"] == f"{server.origin}/a%7Cb"
        assert server.seen[1].path == "/a%7Cb?c=d"
        assert (server.seen[2].proof["htm"], server.seen[2].body) == ("POST", b"body")
        assert {seen.proof["iat"] for seen in server.seen} == {1700000000}
        assert all("ath" in seen.proof for seen in server.seen)
        # The client's own request is unchanged, so that it has nothing to copy into a redirect.
        assert answer.request.headers["Authorization"] == "Bearer token"
        assert "DPoP" not in answer.request.headers

    @pytest.mark.parametrize("value", ["bearer token", "DPOP token", "Bearer  token"])
    async def test_the_scheme_may_be_in_any_case(self, kind: str, answering: Answering, value: str) -> None:
        with answering(ok) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                await client.request("GET", server.origin, headers={"Authorization": value})
        assert server.seen[0].all("authorization") == ["DPoP token"]
        assert "ath" in server.seen[0].proof

    @pytest.mark.parametrize(
        "value", ["Basic eDp5", "Bearer", "Bearer a b", "Bearer \u00e4", "BearerX token"]
    )
    async def test_a_request_without_access_token_gets_no_proof(
        self, kind: str, answering: Answering, value: str
    ) -> None:
        with answering(ok) as server:
            async with caller(kind, transport=DPoPTransport(KEY, origin=server.origin)) as client:
                headers = {"Authorization": value.encode()}
                await client.request("GET", server.origin, headers=headers)
                await client.request("GET", server.origin)
        assert [seen.all("dpop") for seen in server.seen] == [[], []]
        assert server.seen[1].bare

    async def test_a_request_with_a_proof_of_its_own_is_sent_unchanged(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(issuing()) as server:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                auth = DPoPAuth(DPoPKey.generate())
                answer = await client.request("POST", server.origin, auth=auth, data=GRANT)
        assert answer.json()["token_type"] == "DPoP"
        assert len(server.seen[0].all("dpop")) == 1

    async def test_one_challenge_costs_one_retry_and_is_then_known(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(demanding("n-1")) as server:
            async with caller(kind, transport=DPoPTransport(KEY), headers=BEARER) as client:
                first = await client.request("POST", server.origin, content=b"body")
                second = await client.request("GET", server.origin)
        assert (first.status_code, first.content, second.status_code) == (200, b"body", 200)
        assert [seen.proof.get("nonce") for seen in server.seen] == [None, "n-1", "n-1"]
        assert [seen.body for seen in server.seen] == [b"body", b"body", b""]

    async def test_a_server_that_always_demands_a_nonce_gets_two_requests(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            return Answer(401, CHALLENGE | {"dpop-nonce": f"n{len(seen.proof.get('nonce', ''))}"}, b"no")

        with answering(handler) as server:
            async with caller(kind, transport=DPoPTransport(KEY), headers=BEARER) as client:
                answer = await client.request("GET", server.origin)
        assert (answer.status_code, answer.content, len(server.seen)) == (401, b"no", 2)

    async def test_a_nonce_of_a_request_without_token_is_used(self, kind: str, answering: Answering) -> None:
        with answering(demanding("n")) as server:
            async with caller(kind, transport=DPoPTransport(KEY, origin=server.origin)) as client:
                await client.request("GET", server.origin)
                answer = await client.request("GET", server.origin, headers=BEARER)
        assert (answer.status_code, len(server.seen)) == (200, 2)

    async def test_a_streamed_body_is_sent_once(self, kind: str, answering: Answering) -> None:
        with answering(demanding("n")) as server:
            async with caller(kind, transport=DPoPTransport(KEY), headers=BEARER) as client:
                refused = await client.request("PUT", server.origin, content=client.stream())
                accepted = await client.request("PUT", server.origin, content=client.stream())
        assert (refused.status_code, accepted.status_code) == (401, 200)
        assert [seen.body for seen in server.seen] == [b"one two"] * 2

    async def test_an_answer_is_not_read_before_the_client_reads_it(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(lambda _: Answer(200, JSON, b"[1]")) as server:
            async with caller(kind, transport=DPoPTransport(KEY), headers=BEARER) as client:
                request = client.client.build_request("GET", server.origin)
                answer = await client.send(request, stream=True)
                assert not answer.is_stream_consumed
                await (answer.aread() if client.is_async else asyncio.to_thread(answer.read))
                await (answer.aclose() if client.is_async else asyncio.to_thread(answer.close))
        assert answer.json() == [1]


class TestOrigins:
    async def test_a_token_is_sent_to_no_other_origin(self, kind: str, answering: Answering) -> None:
        with answering(ok) as server, answering(demanding("stranger's")) as stranger:
            async with caller(kind, transport=DPoPTransport(KEY)) as client:
                await client.request("GET", server.origin, headers=BEARER)
                for value in ("Bearer token", "DPoP token", "Bearer other", "bearer", "Bearer a b"):
                    answer = await client.request("GET", stranger.origin, headers={"Authorization": value})
                    assert answer.status_code == 401
                await client.request("GET", stranger.origin, headers={"Authorization": "Basic eDp5"})
                await client.request("GET", server.origin, headers=BEARER)
        assert [seen.bare for seen in stranger.seen] == [True] * 5 + [False]
        assert stranger.seen[-1].all("authorization") == ["Basic eDp5"]
        assert "nonce" not in server.seen[-1].proof

    async def test_neither_of_two_authorization_fields_is_sent_to_another_origin(
        self, kind: str, answering: Answering
    ) -> None:
        fields = [("Authorization", "Basic eDp5"), ("Authorization", "Bearer token")]
        with answering(ok) as server, answering(ok) as stranger:
            async with caller(kind, transport=DPoPTransport(KEY, origin=server.origin)) as client:
                await client.request("GET", stranger.origin, headers=fields)
                await client.request("GET", server.origin, headers=fields)
        assert stranger.seen[0].bare
        assert server.seen[0].all("dpop") == []

    async def test_a_redirect_to_another_origin_gets_no_token(self, kind: str, answering: Answering) -> None:
        away = [""]
        with (
            answering(ok) as stranger,
            answering(lambda _: Answer(307, {"location": away[0]})) as server,
        ):
            away[0] = stranger.origin
            transport = DPoPTransport(KEY)
            # A default header is sent with every request of the client, to other origins too.
            async with caller(kind, transport=transport, follow_redirects=True, headers=BEARER) as client:
                await client.request("POST", server.origin, content=b"body")
                await client.request("GET", stranger.origin)
        assert [seen.bare for seen in stranger.seen] == [True, True]

    async def test_a_redirect_within_the_origin_gets_a_fresh_proof(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            return Answer(307, {"location": "/b"}) if seen.path == "/a" else Answer(200, {}, seen.body)

        with answering(handler) as server:
            transport = DPoPTransport(KEY)
            async with caller(kind, transport=transport, follow_redirects=True, headers=BEARER) as client:
                answer = await client.request("POST", f"{server.origin}/a", content=b"body")
        assert (answer.status_code, answer.content) == (200, b"body")
        assert [seen.proof["htu"] for seen in server.seen] == [f"{server.origin}/a", f"{server.origin}/b"]

    async def test_each_origin_has_its_own_nonce(self, kind: str, answering: Answering) -> None:
        with answering(demanding("a")) as one, answering(demanding("b")) as other:
            transport = DPoPTransport(KEY, origin=(one.origin, other.origin))
            async with caller(kind, transport=transport, headers=BEARER) as client:
                for server in (one, other, one, other):
                    assert (await client.request("GET", server.origin)).status_code == 200
        assert [seen.proof.get("nonce") for seen in one.seen] == [None, "a", "a"]
        assert [seen.proof.get("nonce") for seen in other.seen] == [None, "b", "b"]

    @pytest.mark.parametrize("what", ["token", "grant"])
    async def test_plain_http_is_refused_before_anything_is_sent(self, kind: str, what: str) -> None:
        def nothing(_: Seen) -> Answer:
            raise AssertionError("sent")

        more: dict[str, Any] = {"headers": BEARER} if what == "token" else {"data": GRANT}
        async with caller(kind, transport=DPoPTransport(KEY, over(nothing)(kind).transport)) as client:
            with pytest.raises(ConfigurationError, match=r"insecure_http_hosts=\('example.com',\)"):
                await client.request("POST", "http://example.com/", **more)
        answers = over(issuing())(kind)
        transport = DPoPTransport(KEY, answers.transport, insecure_http_hosts=["example.com"])
        async with caller(kind, transport=transport) as client:
            assert (await client.request("POST", "http://example.com/", **more)).status_code == 200
        assert not answers.seen[0].bare


class TestClock:
    """A server whose clock is 200 s ahead refuses the first proof and says what time it is."""

    @staticmethod
    def late(iat: float, date: str | None = "Tue, 14 Nov 2023 22:16:40 GMT") -> Handler:
        headers = {"www-authenticate": 'DPoP error="invalid_dpop_proof"'} | (
            {} if date is None else {"date": date}
        )

        def handler(seen: Seen) -> Answer:
            return Answer(200) if abs(seen.proof["iat"] - iat) < 5 else Answer(401, headers)

        return handler

    @staticmethod
    def transport(
        kind: str, handler: Handler, *, correct_clock: bool = True
    ) -> tuple[DPoPTransport, list[Seen]]:
        answers = over(handler)(kind)
        wrapped = DPoPTransport(
            KEY, answers.transport, clock=lambda: 1700000000.0, correct_clock=correct_clock
        )
        return wrapped, answers.seen

    async def test_the_clock_is_learned_from_a_refusal_once(self, kind: str) -> None:
        transport, seen = self.transport(kind, self.late(1700000200))
        async with caller(kind, transport=transport, headers=BEARER) as client:
            for _ in range(2):
                assert (await client.request("GET", "https://api.example.com/")).status_code == 200
        assert [one.proof["iat"] for one in seen] == [1700000000, 1700000200, 1700000200]

    async def test_the_clock_is_learned_from_a_token_endpoint(self, kind: str) -> None:
        def handler(seen: Seen) -> Answer:
            if seen.proof["iat"] == 1700000200:
                return issuing()(seen)
            date = {"date": "Tue, 14 Nov 2023 22:16:40 GMT"}
            return Answer(400, JSON | date, b'{"error": "invalid_dpop_proof"}')

        transport, seen = self.transport(kind, handler)
        async with caller(kind, transport=transport) as client:
            answer = await client.request("POST", "https://as.example.com/", data=GRANT)
        assert (answer.status_code, len(seen)) == (200, 2)

    async def test_the_clock_is_learned_before_a_nonce_is_demanded(self, kind: str) -> None:
        def handler(seen: Seen) -> Answer:
            refused = self.late(1700000200)(seen)
            return demanding("n")(seen) if refused.status == 200 else refused

        transport, seen = self.transport(kind, handler)
        async with caller(kind, transport=transport, headers=BEARER) as client:
            assert (await client.request("GET", "https://api.example.com/")).status_code == 200
        assert len(seen) == 3

    @pytest.mark.parametrize(
        "date",
        [
            None,
            "yesterday",
            "Tue, 14 Nov 2023 22:13:21 GMT",  # one second: explained by the resolution of a second
            "Tue, 14 Nov 2023 22:18:21 GMT",  # five minutes and one second
            "Tue, 14 Nov 99999 22:18:21 GMT",
            "Tue, 14 Nov 2023 22:08:19 GMT",
        ],
    )
    async def test_the_clock_is_not_learned_from_a_wrong_date(self, kind: str, date: str | None) -> None:
        transport, seen = self.transport(kind, self.late(0, date))
        async with caller(kind, transport=transport, headers=BEARER) as client:
            for _ in range(2):
                assert (await client.request("GET", "https://api.example.com/")).status_code == 401
        assert [one.proof["iat"] for one in seen] == [1700000000] * 2

    async def test_the_clock_is_not_learned_over_plain_http(self, kind: str) -> None:
        transport, seen = self.transport(kind, self.late(1700000200))
        async with caller(kind, transport=transport, headers=BEARER) as client:
            assert (await client.request("GET", "http://localhost/")).status_code == 401
        assert len(seen) == 1

    async def test_the_clock_is_not_learned_by_default(self, kind: str) -> None:
        transport, seen = self.transport(kind, self.late(1700000200), correct_clock=False)
        async with caller(kind, transport=transport, headers=BEARER) as client:
            assert (await client.request("GET", "https://api.example.com/")).status_code == 401
        assert len(seen) == 1

    async def test_the_clock_is_not_learned_from_another_refusal(self, kind: str) -> None:
        headers = {"www-authenticate": 'DPoP error="invalid_token"', "date": "Tue, 14 Nov 2023 22:16:40 GMT"}
        transport, seen = self.transport(kind, lambda _: Answer(401, headers))
        async with caller(kind, transport=transport, headers=BEARER) as client:
            assert (await client.request("GET", "https://api.example.com/")).status_code == 401
        assert len(seen) == 1

    async def test_the_clock_is_learned_by_dpop_auth_too(self, kind: str) -> None:
        answers = over(self.late(1700000200))(kind)
        auth = DPoPAuth(KEY, "token", clock=lambda: 1700000000.0, correct_clock=True)
        async with caller(kind, transport=answers.transport, auth=auth) as client:
            assert (await client.request("GET", "https://api.example.com/")).status_code == 200
        assert len(answers.seen) == 2

    async def test_the_clock_of_another_origin_is_ignored(self, kind: str) -> None:
        transport, seen = self.transport(kind, self.late(1700000200))
        async with caller(kind, transport=transport, headers=BEARER) as client:
            await client.request("GET", "https://api.example.com/", headers={"Authorization": "Bearer t"})
            await client.request(
                "GET", "https://stranger.example.com/", headers={"DPoP": KEY.proof("GET", "https://x/")}
            )
        assert len(seen) == 3


async def test_a_failure_to_read_closes_the_answer(kind: str) -> None:
    module: Any = httpx2 if kind.startswith("httpx2") else httpx
    closed: list[bool] = []

    class Broken(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Any:
            raise module.ReadError("gone")

        def __aiter__(self) -> Any:
            raise module.ReadError("gone")

        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    broken = module.MockTransport(lambda _: module.Response(200, stream=Broken()))
    async with caller(kind, transport=DPoPTransport(KEY, broken)) as client:
        with pytest.raises(module.ReadError):
            await client.request("POST", "https://as.example.com/", data=GRANT)
    assert closed


async def test_the_transport_is_closed_with_its_client(kind: str) -> None:
    module: Any = httpx2 if kind.startswith("httpx2") else httpx
    closed: list[bool] = []

    class Inner(module.MockTransport):  # type: ignore[misc]
        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    inner = Inner(lambda _: module.Response(200))
    async with caller(kind, transport=DPoPTransport(KEY, inner)) as client:
        await client.request("GET", "https://api.example.com/", headers=BEARER)
    assert closed == [True]
    async with caller(kind, transport=DPoPTransport(KEY)):
        pass  # a client that was never used has nothing to close
