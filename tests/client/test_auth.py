"""DPoPAuth with httpx2 and httpx, sync and async, against a real server on loopback."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware._request.uri import parse_base_url
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import CLIENTS, Answer, Answering, Handler, LoopbackServer, Seen, caller

KEY = DPoPKey.generate()
CHALLENGE = {"www-authenticate": 'DPoP error="use_dpop_nonce"'}

pytestmark = pytest.mark.parametrize("kind", CLIENTS)


def wrong_htu(seen: Seen) -> bool:
    return not seen.proof["htu"].endswith(seen.path.split("?")[0])


def demanding(nonce: str, status: int = 401, **more: str) -> Handler:
    """A resource server that wants `nonce`."""

    def handler(seen: Seen) -> Answer:
        if seen.proof.get("nonce") == nonce:
            return Answer()
        return Answer(status, CHALLENGE | {"dpop-nonce": nonce} | more)

    return handler


def routes(**answers: Answer) -> Handler:
    """Answer by path; refuse a missing proof and one for another path, as every DPoP server does."""

    def handler(seen: Seen) -> Answer:
        if not seen.all("dpop") or wrong_htu(seen):
            return Answer(401, {"www-authenticate": 'DPoP error="invalid_dpop_proof"'})
        return answers.get(seen.path.split("?")[0].strip("/"), Answer())

    return handler


def paths(server: LoopbackServer) -> list[str]:
    return [seen.path for seen in server.seen]


async def test_every_request_has_the_token_and_a_fresh_proof(kind: str, answering: Answering) -> None:
    auth = DPoPAuth(KEY, "token", clock=lambda: 1700000000.7)
    with answering(lambda _: Answer()) as server:
        async with caller(kind, auth=auth) as client:
            for _ in range(3):
                await client.request("GET", f"{server.origin}/a%2Fb?c=d")
            await client.request("POST", server.origin, content=b"body")
    assert [seen.all("authorization") for seen in server.seen] == [["DPoP token"]] * 4
    assert len({seen.proof["jti"] for seen in server.seen}) == 4
    assert {seen.proof["iat"] for seen in server.seen} == {1700000000}
    assert server.seen[0].proof["htu"] == f"{server.origin}/a%2Fb"
    assert (server.seen[3].proof["htm"], server.seen[3].proof["htu"]) == ("POST", f"{server.origin}/")
    ath = KEY.proof("GET", "http://h/", access_token="token").split(".")[1]
    assert {seen.proof["ath"] for seen in server.seen} == {
        Seen("", "", (("dpop", f".{ath}."),), b"").proof["ath"]
    }


async def test_replaces_a_stale_proof_and_token_of_the_caller(kind: str, answering: Answering) -> None:
    with answering(lambda _: Answer()) as server:
        async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
            headers = [("DPoP", "a"), ("DPoP", "b"), ("Authorization", "DPoP old")]
            await client.request("GET", server.origin, headers=headers)
    assert server.seen[0].all("authorization") == ["DPoP token"]
    assert server.seen[0].proof["htm"] == "GET"


async def test_without_a_token_sends_proofs_only(kind: str, answering: Answering) -> None:
    with answering(lambda _: Answer()) as server:
        async with caller(kind) as client:
            await client.request(
                "POST", server.origin, auth=DPoPAuth(KEY), headers={"Authorization": "Basic eDp5"}
            )
    assert "ath" not in server.seen[0].proof
    assert server.seen[0].all("authorization") == ["Basic eDp5"]


async def test_one_request_object_can_be_sent_twice(kind: str, answering: Answering) -> None:
    with answering(lambda _: Answer()) as server:
        async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
            request = client.client.build_request("GET", server.origin)
            for _ in range(2):
                assert (await client.send(request)).status_code == 200
    assert len({seen.proof["jti"] for seen in server.seen}) == 2


class TestToken:
    async def test_a_callable_is_called_once_for_each_request(self, kind: str, answering: Answering) -> None:
        tokens = iter(["one", "two", "three"])
        auth = DPoPAuth(KEY, lambda: next(tokens))
        with answering(demanding("n")) as server:
            async with caller(kind, auth=auth) as client:
                await client.request("GET", server.origin)
                await client.request("GET", server.origin)
        sent = [seen.all("authorization") for seen in server.seen]
        assert sent == [["DPoP one"], ["DPoP one"], ["DPoP two"]]

    async def test_an_async_callable_needs_an_async_client(self, kind: str, answering: Answering) -> None:
        async def coroutine() -> str:
            await asyncio.sleep(0)
            return "token"

        class Ready:
            def __await__(self) -> Generator[Any, Any, str]:
                return coroutine().__await__()

        sources: list[Callable[[], Awaitable[str]]] = [coroutine, Ready]
        with answering(lambda _: Answer()) as server:
            for source in sources:
                async with caller(kind, auth=DPoPAuth(KEY, source)) as client:
                    refuses = pytest.raises(TypeError, match="AsyncClient")
                    with contextlib.nullcontext() if client.is_async else refuses:
                        await client.request("GET", server.origin)
            assert [seen.all("authorization") for seen in server.seen] == [["DPoP token"]] * (
                2 if kind.endswith("-async") else 0
            )


class TestNonces:
    async def test_one_challenge_costs_one_retry_and_is_then_known(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(demanding("n-1")) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                first = await client.request("POST", server.origin, content=b"body")
                second = await client.request("GET", server.origin)
        assert (first.status_code, second.status_code) == (200, 200)
        assert [seen.proof.get("nonce") for seen in server.seen] == [None, "n-1", "n-1"]
        assert [seen.body for seen in server.seen] == [b"body", b"body", b""]
        assert server.seen[0].proof["jti"] != server.seen[1].proof["jti"]
        assert [answer.status_code for answer in first.history] == [401]

    async def test_a_challenge_is_found_among_others(self, kind: str, answering: Answering) -> None:
        def handler(seen: Seen) -> Answer:
            if "nonce" in seen.proof:
                return Answer()
            fields = [("www-authenticate", "Bearer"), ("www-authenticate", 'DPoP error="use_dpop_nonce"')]
            return Answer(401, (*fields, ("DPoP-Nonce", "n")))

        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                assert (await client.request("GET", server.origin)).status_code == 200

    @pytest.mark.parametrize("status", [400, 401])
    @pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
    async def test_the_challenge_of_a_token_endpoint_is_json(
        self, kind: str, answering: Answering, status: int, media_type: str
    ) -> None:
        def handler(seen: Seen) -> Answer:
            if "nonce" in seen.proof:
                return Answer(200, {}, seen.body)
            headers = {"dpop-nonce": "n", "content-type": media_type}
            return Answer(status, headers, b'{"error": "use_dpop_nonce"}')

        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY)) as client:
                answer = await client.request("POST", server.origin, data={"grant_type": "x"})
        assert (answer.status_code, answer.content) == (200, b"grant_type=x")

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"error": "invalid_grant"}'])
    async def test_other_errors_are_not_retried(self, kind: str, answering: Answering, body: bytes) -> None:
        headers = {"dpop-nonce": "n", "content-type": "application/json"}
        with answering(lambda _: Answer(400, headers, body)) as server:
            async with caller(kind, auth=DPoPAuth(KEY)) as client:
                answer = await client.request("POST", server.origin)
        assert (answer.status_code, answer.content, len(server.seen)) == (400, body, 1)

    async def test_a_server_that_always_demands_a_nonce_gets_two_requests(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            return Answer(401, CHALLENGE | {"dpop-nonce": f"n{len(seen.proof.get('nonce', ''))}"})

        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                answer = await client.request("GET", server.origin)
        assert (answer.status_code, len(server.seen)) == (401, 2)

    @pytest.mark.parametrize("headers", [{}, {"dpop-nonce": ""}, {"dpop-nonce": "a b"}])
    async def test_a_challenge_without_a_usable_nonce_is_not_retried(
        self, kind: str, answering: Answering, headers: dict[str, str]
    ) -> None:
        with answering(lambda _: Answer(401, CHALLENGE | headers)) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                answer = await client.request("GET", server.origin)
        assert (answer.status_code, len(server.seen)) == (401, 1)

    @pytest.mark.parametrize("status", [200, 204, 302, 403, 404, 500])
    async def test_every_response_may_bring_the_next_nonce(
        self, kind: str, answering: Answering, status: int
    ) -> None:
        with answering(lambda seen: Answer(status, {"dpop-nonce": f"for{seen.path[1:]}"})) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                for number in range(3):
                    await client.request("GET", f"{server.origin}/{number}")
        assert [seen.proof.get("nonce") for seen in server.seen] == [None, "for0", "for1"]

    async def test_a_challenge_in_a_403_or_on_a_success_is_ignored(
        self, kind: str, answering: Answering
    ) -> None:
        for status in (200, 403):
            with answering(demanding("n", status)) as server:
                async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                    await client.request("GET", server.origin)
            assert len(server.seen) == 1

    async def test_each_origin_has_its_own_nonce(self, kind: str, answering: Answering) -> None:
        with answering(demanding("a")) as one, answering(demanding("b")) as other:
            auth = DPoPAuth(KEY, "token", origin=(one.origin, other.origin))
            async with caller(kind, auth=auth) as client:
                for server in (one, other, one, other):
                    assert (await client.request("GET", server.origin)).status_code == 200
        assert [seen.proof.get("nonce") for seen in one.seen] == [None, "a", "a"]
        assert [seen.proof.get("nonce") for seen in other.seen] == [None, "b", "b"]


class TestStreamedBodies:
    async def test_a_streamed_body_is_sent_once(self, kind: str, answering: Answering) -> None:
        with answering(demanding("n")) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                refused = await client.request("PUT", server.origin, content=client.stream())
                accepted = await client.request("PUT", server.origin, content=client.stream())
        assert (refused.status_code, accepted.status_code) == (401, 200)
        assert [seen.body for seen in server.seen] == [b"one two"] * 2

    async def test_a_streamed_body_that_was_read_first_is_sent_again(
        self, kind: str, answering: Answering
    ) -> None:
        auth = DPoPAuth(KEY, "token")
        auth.requires_request_body = True
        with answering(demanding("n")) as server:
            async with caller(kind, auth=auth) as client:
                answer = await client.request("PUT", server.origin, content=client.stream())
        assert answer.status_code == 200
        assert [seen.body for seen in server.seen] == [b"one two"] * 2

    async def test_a_streamed_body_is_not_sent_to_a_redirect(self, kind: str, answering: Answering) -> None:
        with answering(routes(a=Answer(307, {"location": "/b"}))) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token", follow_redirects=True)) as client:
                answer = await client.request("PUT", f"{server.origin}/a", content=client.stream())
        assert (answer.status_code, paths(server)) == (307, ["/a"])

    async def test_a_streamed_body_does_not_prevent_a_redirect_to_get(
        self, kind: str, answering: Answering
    ) -> None:
        handler = routes(a=Answer(303, {"location": "/b"}))
        for own in (True, False):
            auth = DPoPAuth(KEY, "token", follow_redirects=own)
            with answering(handler) as server:
                async with caller(kind, auth=auth, follow_redirects=not own) as client:
                    answer = await client.request("PUT", f"{server.origin}/a", content=client.stream())
            assert answer.status_code == 200
            assert server.seen[-1].method == server.seen[-1].proof["htm"] == "GET"
            assert server.seen[-1].proof["htu"] == f"{server.origin}/b"


class TestRedirects:
    async def test_redirects_are_not_followed_unless_that_is_set(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(routes(a=Answer(302, {"location": "/b"}))) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                answer = await client.request("GET", f"{server.origin}/a")
                assert (answer.status_code, paths(server)) == (302, ["/a"])
                answer = await client.send(answer.next_request)
        assert answer.status_code == 200
        assert server.seen[1].proof["htu"] == f"{server.origin}/b"

    @pytest.mark.parametrize(
        ("status", "method", "then"),
        [
            (301, "GET", "GET"),
            (302, "POST", "GET"),
            (303, "PUT", "GET"),
            (307, "POST", "POST"),
            (308, "PUT", "PUT"),
        ],
    )
    async def test_each_redirect_that_is_followed_here_gets_a_fresh_proof(
        self, kind: str, answering: Answering, status: int, method: str, then: str
    ) -> None:
        handler = routes(a=Answer(status, {"location": "/b?q"}), b=Answer(307, {"location": "/c"}))
        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token", follow_redirects=True)) as client:
                answer = await client.request(method, f"{server.origin}/a")
        assert answer.status_code == 200
        assert [hop.status_code for hop in answer.history] == [status, 307]
        assert [(seen.method, seen.path) for seen in server.seen] == [
            (method, "/a"),
            (then, "/b?q"),
            (then, "/c"),
        ]
        assert not any(wrong_htu(seen) or seen.proof["htm"] != seen.method for seen in server.seen)
        assert len({seen.proof["jti"] for seen in server.seen}) == 3
        assert {tuple(seen.all("authorization")) for seen in server.seen} == {("DPoP token",)}

    async def test_redirects_that_are_followed_here_answer_a_challenge_at_each_hop(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            if seen.proof.get("nonce") != seen.path:
                return Answer(401, CHALLENGE | {"dpop-nonce": seen.path})
            return Answer(307, {"location": "/b"}) if seen.path == "/a" else Answer(200, {}, seen.body)

        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token", follow_redirects=True)) as client:
                answer = await client.request("POST", f"{server.origin}/a", content=b"body")
        assert (answer.status_code, answer.content) == (200, b"body")
        assert paths(server) == ["/a", "/a", "/b", "/b"]

    async def test_redirects_that_the_client_follows_are_repeated_with_a_proof(
        self, kind: str, answering: Answering
    ) -> None:
        handler = routes(a=Answer(307, {"location": "/b"}), b=Answer(307, {"location": "/c"}))
        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token"), follow_redirects=True) as client:
                answer = await client.request("POST", f"{server.origin}/a", content=b"body")
        assert answer.status_code == 200
        # The client sends neither token nor proof to a redirect; after a refusal, the request is sent with
        # its own.
        assert [(seen.path, seen.bare) for seen in server.seen] == [
            ("/a", False), ("/b", True), ("/b", False), ("/c", True), ("/c", False)
        ]  # fmt: skip
        assert server.seen[-1].body == b"body"

    async def test_a_redirect_that_the_client_follows_to_a_success_is_not_repeated(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(
            lambda seen: Answer(302, {"location": "/b"}) if seen.path == "/a" else Answer()
        ) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token"), follow_redirects=True) as client:
                answer = await client.request("GET", f"{server.origin}/a")
        assert (answer.status_code, paths(server)) == (200, ["/a", "/b"])

    @pytest.mark.parametrize("own", [True, False])
    async def test_the_number_of_redirects_is_bounded(
        self, kind: str, answering: Answering, own: bool
    ) -> None:
        auth = DPoPAuth(KEY, "token", follow_redirects=own)
        with answering(lambda _: Answer(302, {"location": "/again"})) as server:
            async with caller(kind, auth=auth, follow_redirects=not own) as client:
                if own:
                    assert (await client.request("GET", server.origin)).status_code == 302
                else:
                    with pytest.raises(Exception, match="maximum allowed redirects"):
                        await client.request("GET", server.origin)
        assert len(server.seen) <= 21


class TestOrigins:
    @pytest.mark.parametrize("own", [True, False])
    async def test_a_redirect_to_another_origin_gets_no_token(
        self, kind: str, answering: Answering, own: bool
    ) -> None:
        with answering(lambda _: Answer(401, CHALLENGE | {"dpop-nonce": "stranger's"})) as stranger:
            handler = routes(a=Answer(307, {"location": f"{stranger.origin}/b"}))
            with answering(handler) as server:
                auth = DPoPAuth(KEY, "token", follow_redirects=own)
                async with caller(kind, auth=auth, follow_redirects=not own) as client:
                    answer = await client.request("GET", f"{server.origin}/a")
                    assert (answer.status_code, len(stranger.seen)) == (401, 1)
                    assert stranger.seen[0].all("authorization") == []
                    assert stranger.seen[0].bare
                    await client.request("GET", server.origin)
        assert "nonce" not in server.seen[-1].proof

    async def test_a_redirect_to_no_origin_is_left_to_the_client_to_refuse(
        self, kind: str, answering: Answering
    ) -> None:
        answer = Answer(302, {"location": "ftp://example.com/", "dpop-nonce": "n"})
        with answering(lambda _: answer) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token", follow_redirects=True)) as client:
                with pytest.raises((httpx.UnsupportedProtocol, httpx2.UnsupportedProtocol)):
                    await client.request("GET", server.origin)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("by_itself", [True, False], ids=["its own chain", "the client's chain"])
    async def test_a_chain_that_left_the_origin_returns_without_token(
        self, kind: str, answering: Answering, by_itself: bool
    ) -> None:
        home: list[str] = []
        with answering(lambda _: Answer(302, {"location": f"{home[0]}/admin/delete"})) as stranger:
            handler = routes(a=Answer(302, {"location": stranger.origin}))
            with answering(handler) as server:
                home.append(server.origin)
                auth = DPoPAuth(KEY, "token", follow_redirects=by_itself)
                async with caller(kind, auth=auth, follow_redirects=not by_itself) as client:
                    answer = await client.request("GET", f"{server.origin}/a")
                assert answer.status_code == 401
                assert (paths(server), server.seen[1].bare) == (["/a", "/admin/delete"], True)
                assert server.seen[-1].all("authorization") == []

    async def test_a_chain_of_other_origins_ends(self, kind: str, answering: Answering) -> None:
        with answering(lambda seen: Answer(302, {"location": "/again"})) as stranger:
            with answering(routes(a=Answer(302, {"location": stranger.origin}))) as server:
                async with caller(kind, auth=DPoPAuth(KEY, "token", follow_redirects=True)) as client:
                    answer = await client.request("GET", f"{server.origin}/a")
            assert answer.status_code == 302
            assert len(stranger.seen) == 20
            assert all(seen.bare for seen in stranger.seen)

    async def test_the_first_request_decides_when_none_is_named(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(lambda _: Answer()) as server, answering(lambda _: Answer()) as stranger:
            async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                await client.request("GET", server.origin)
                await client.request("GET", stranger.origin)
                await client.request("GET", server.origin)
        assert [seen.bare for seen in server.seen] == [False, False]
        assert [seen.bare for seen in stranger.seen] == [True]

    async def test_a_named_origin_is_the_only_one(self, kind: str, answering: Answering) -> None:
        with answering(lambda _: Answer()) as server, answering(lambda _: Answer()) as stranger:
            auth = DPoPAuth(KEY, "token", origin=f"{server.origin}/some/path")
            async with caller(kind, auth=auth) as client:
                headers = {"DPoP": "stale", "Authorization": "dpop token"}
                await client.request("GET", stranger.origin, headers=headers)
                await client.request("GET", stranger.origin, headers={"Authorization": "Basic eDp5"})
                await client.request("GET", server.origin)
        assert stranger.seen[0].bare
        assert stranger.seen[1].all("authorization") == ["Basic eDp5"]
        assert not server.seen[0].bare

    async def test_a_nonce_challenge_after_the_client_s_own_redirect_is_answered(
        self, kind: str, answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            if seen.path == "/a":
                return Answer(307, {"location": "/b"})
            if seen.bare or seen.proof.get("nonce") != "b":
                return Answer(401, CHALLENGE | {"dpop-nonce": "b"} if not seen.bare else CHALLENGE)
            return Answer(200, {}, seen.body)

        with answering(handler) as server:
            async with caller(kind, auth=DPoPAuth(KEY, "token"), follow_redirects=True) as client:
                answer = await client.request("POST", f"{server.origin}/a", content=b"body")
        assert (answer.status_code, answer.content) == (200, b"body")
        assert [(seen.path, seen.bare) for seen in server.seen] == [
            ("/a", False), ("/b", True), ("/b", False), ("/b", False)
        ]  # fmt: skip

    async def test_a_redirect_that_one_request_follows_gets_no_token_and_no_proof(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(lambda _: Answer()) as stranger:
            away = Answer(308, {"location": stranger.origin})
            with answering(lambda _: away) as server:
                async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
                    await client.request("POST", server.origin, content=b"b", follow_redirects=True)
        assert stranger.seen[0].bare


class TestPlainHTTP:
    @pytest.mark.parametrize("url", ["http://api.example.com/a", "ws://api.example.com/a"])
    async def test_plain_http_is_refused_before_anything_is_sent(self, kind: str, url: str) -> None:
        auth = DPoPAuth(KEY, lambda: pytest.fail("the token was asked for"))
        async with caller(kind, auth=auth) as client:
            with pytest.raises(ConfigurationError, match=r"insecure_http_hosts=\('api.example.com',\)"):
                await client.request("GET", url)
        with pytest.raises(ConfigurationError, match="insecure_http_hosts"):
            DPoPAuth(KEY, "token", origin=url)

    async def test_plain_http_is_sent_to_a_named_host(self, kind: str) -> None:
        module: Any = httpx2 if kind.startswith("httpx2") else httpx
        transport = module.MockTransport(lambda request: module.Response(200, request=request))
        auth = DPoPAuth(KEY, "token", insecure_http_hosts=("API.example.com",))
        async with caller(kind, auth=auth, transport=transport) as client:
            answer = await client.request("GET", "http://api.example.com/a")
        assert answer.request.headers["Authorization"] == "DPoP token"

    async def test_plain_http_on_the_same_host_is_another_origin(self, kind: str) -> None:
        module = httpx2 if kind.startswith("httpx2") else httpx
        seen: list[tuple[str, bool]] = []

        def answer(request: Any) -> Any:
            seen.append((request.url.scheme, "DPoP" in request.headers or "Authorization" in request.headers))
            if request.url.scheme == "https":
                return module.Response(307, headers={"Location": "http://api.example.com/a"})
            return module.Response(200)

        for own in (True, False):
            seen.clear()
            auth = DPoPAuth(KEY, "token", follow_redirects=own)
            transport = module.MockTransport(answer)
            async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
                await client.request("GET", "https://api.example.com/a")
            assert seen == [("https", True), ("http", False)]


@pytest.mark.parametrize(
    "path", ["/a\\b", "/a|b", "/a^b", '/a"b', "/a{b}", "/\u00e4 b", "/a%zz", "/a'b", "/a[b]"]
)
async def test_the_signed_url_is_the_one_that_is_sent(kind: str, answering: Answering, path: str) -> None:
    with answering(lambda _: Answer()) as server:
        async with caller(kind, auth=DPoPAuth(KEY, "token")) as client:
            await client.request("GET", f"{server.origin}{path}?q=1")
    (seen,) = server.seen
    assert seen.proof["htu"] == server.origin + seen.path.removesuffix("?q=1")
    assert "\\" not in seen.path
    parse_base_url(seen.proof["htu"])
