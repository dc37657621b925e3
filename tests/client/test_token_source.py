"""Tokens are renewed in time, by one request at a time, and a refresh token is sent once."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import httpx2
import pytest
from freezegun import freeze_time

from dpop_middleware.client import (
    AuthorizationCode,
    ClientCredentials,
    DPoPAuth,
    DPoPKey,
    RefreshToken,
    TokenRequestError,
    TokenResponse,
    TokenSource,
)
from dpop_middleware.client.token_request import Grant, TokenRequestOptions
from dpop_middleware.errors import ConfigurationError

KEY = DPoPKey.generate()
MACHINE = ClientCredentials()
CODE = AuthorizationCode(code="c", redirect_uri="https://app.example.com/", code_verifier="v")


class Server:
    """A token endpoint without a network; it numbers its tokens."""

    def __init__(self, *, expires_in: float | None = 600, refresh: bool = False) -> None:
        self.expires_in = expires_in
        self.refresh = refresh
        self.asked: list[dict[str, str]] = []
        self.error: str | None = None
        self.is_down = False
        self.now = 1700000000.0
        self.arrived = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        number = self.note(request)
        assert self.may_answer.wait(20)
        return self.answer(number)

    async def later(self, request: httpx2.Request) -> httpx2.Response:
        number = self.note(request)
        while not self.may_answer.is_set():
            await asyncio.sleep(0.001)
        return self.answer(number)

    def note(self, request: httpx2.Request) -> int:
        """Keep the form of a request that has arrived; return how many there were."""
        self.asked.append({name: value[0] for name, value in parse_qs(request.content.decode()).items()})
        number = len(self.asked)
        self.arrived.set()
        return number

    def answer(self, number: int) -> httpx2.Response:
        if self.is_down:
            raise httpx2.ConnectError("no route to the host")
        if self.error is not None:
            error, self.error = self.error, None
            return httpx2.Response(400, json={"error": error})
        token: dict[str, Any] = {"access_token": f"token-{number}", "token_type": "DPoP"}
        if self.expires_in is not None:
            token["expires_in"] = self.expires_in
        if self.refresh:
            token["refresh_token"] = f"refresh {number}"
        return httpx2.Response(200, content=json.dumps(token))

    def source(self, grant: Grant = MACHINE, **options: Any) -> TokenSource:
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return self.source_of(client, grant, **options)

    def source_async(self, grant: Grant = MACHINE, **options: Any) -> TokenSource:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self.later))
        return self.source_of(client, grant, **options)

    def source_of(
        self, client: httpx2.Client | httpx2.AsyncClient, grant: Grant, **options: Any
    ) -> TokenSource:
        options = {"key": KEY, "client_id": "me", "clock": lambda: self.now, **options}
        return TokenSource(client, "https://as.example.com/token", grant, **options)

    @property
    def grants(self) -> list[str]:
        return [asked.get("refresh_token", asked["grant_type"]) for asked in self.asked]


Asking = Callable[[Server, Grant, dict[str, Any]], Callable[[], str]]


@pytest.fixture(params=["sync", "async"])
def asking(request: pytest.FixtureRequest) -> Asking:
    """Returns a function that asks a source for a token, in either way."""

    def sync(server: Server, grant: Grant, options: dict[str, Any]) -> Callable[[], str]:
        return server.source(grant, **options).token

    def asynchronous(server: Server, grant: Grant, options: dict[str, Any]) -> Callable[[], str]:
        source = server.source_async(grant, **options)
        return lambda: asyncio.run(source.token_async())

    return sync if request.param == "sync" else asynchronous


def test_a_token_is_used_until_shortly_before_its_expiry(asking: Asking) -> None:
    server = Server()
    token = asking(server, ClientCredentials(), {"scopes": (s for s in ["a", "b"])})
    assert [token(), token()] == ["token-1"] * 2
    server.now += 569
    assert token() == "token-1"
    server.now += 1
    assert token() == "token-2"
    assert [asked["scope"] for asked in server.asked] == ["a b"] * 2


def test_the_leeway_is_at_most_half_of_a_tokens_lifetime(asking: Asking) -> None:
    server = Server(expires_in=10)
    token = asking(server, ClientCredentials(), {"leeway": 60})
    assert token() == "token-1"
    server.now += 4
    assert token() == "token-1"
    server.now += 1
    assert token() == "token-2"


def test_a_refresh_token_is_sent_once(asking: Asking) -> None:
    server = Server(refresh=True)
    kept: list[TokenResponse] = []
    token = asking(server, CODE, {"on_response": kept.append})
    for _ in range(3):
        token()
        server.now += 600
    assert server.grants == ["authorization_code", "refresh 1", "refresh 2"]
    assert [response.refresh_token for response in kept] == ["refresh 1", "refresh 2", "refresh 3"]


def test_a_refresh_token_that_is_not_replaced_is_used_again(asking: Asking) -> None:
    server = Server()
    token = asking(server, RefreshToken(refresh_token="kept"), {})
    for _ in range(2):
        token()
        server.now += 600
    assert server.grants == ["kept", "kept"]


def test_a_code_is_used_once(asking: Asking) -> None:
    server = Server()
    token = asking(server, CODE, {})
    assert token() == "token-1"
    server.now += 600
    with pytest.raises(TokenRequestError, match="no refresh token") as caught:
        token()
    assert (caught.value.status, len(server.asked)) == (0, 1)


def test_client_credentials_are_used_after_a_refused_refresh_token(asking: Asking) -> None:
    server = Server(refresh=True)
    token = asking(server, ClientCredentials(), {})
    token()
    server.now += 600
    server.error = "invalid_grant"
    assert token() == "token-3"
    assert server.grants == ["client_credentials", "refresh 1", "client_credentials"]


@pytest.mark.parametrize("error", ["invalid_grant", "temporarily_unavailable"])
def test_the_caller_gets_another_refusal_and_the_next_call_tries_again(asking: Asking, error: str) -> None:
    server = Server(refresh=True)
    token = asking(server, CODE, {})
    token()
    server.now += 600
    server.error = error
    with pytest.raises(TokenRequestError, match=error):
        token()
    assert token() == "token-3"
    assert server.grants == ["authorization_code", "refresh 1", "refresh 1"]


def test_a_token_serves_to_its_end_where_the_server_is_down(asking: Asking) -> None:
    server = Server()
    token = asking(server, MACHINE, {})
    token()
    server.is_down = True
    server.now += 570
    for seconds, attempts in ((0, 2), (14, 2), (1, 3), (7, 3), (1, 4), (6, 5), (0.5, 5)):
        server.now += seconds
        assert (token(), len(server.asked)) == ("token-1", attempts)
    server.now += 0.5
    with pytest.raises(httpx2.ConnectError):
        token()
    server.is_down = False
    assert token() == "token-7"


def test_a_token_serves_to_its_end_where_the_next_one_is_refused(asking: Asking) -> None:
    server = Server(refresh=True)
    token = asking(server, CODE, {})
    token()
    server.now += 599
    server.error = "invalid_grant"
    assert [token(), token()] == ["token-1", "token-1"]
    server.now += 1
    server.error = "invalid_grant"
    with pytest.raises(TokenRequestError, match="invalid_grant"):
        token()
    assert server.grants == ["authorization_code", "refresh 1", "refresh 1"]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_token_serves_to_its_end_where_the_server_redirects_to_no_url(library: Any) -> None:
    server = Server()

    def answer(request: Any) -> Any:
        if server.note(request) == 1:
            return library.Response(200, content=server.answer(1).content)
        return library.Response(307, headers={"location": "https:nowhere"})

    source = server.source_of(library.Client(transport=library.MockTransport(answer)), MACHINE)
    assert source.token() == "token-1"
    server.now += 590
    assert source.token() == "token-1"
    assert len(server.asked) == 2


def test_a_token_that_nothing_can_follow_serves_to_its_end(asking: Asking) -> None:
    server = Server()
    token = asking(server, CODE, {})
    for seconds in (0, 570, 29):
        server.now += seconds
        assert token() == "token-1"
    server.now += 1
    with pytest.raises(TokenRequestError, match="no refresh token"):
        token()


def test_a_token_outlives_a_dead_refresh_token_and_a_server_that_is_down() -> None:
    server = Server(refresh=True)
    client = httpx2.Client(transport=httpx2.MockTransport(server))
    source = server.source_of(client, MACHINE)
    source.token()
    server.now += 580
    server.error = "invalid_grant"

    def goes_down(_: httpx2.Response) -> None:
        server.is_down = True

    client.event_hooks = {"response": [goes_down]}
    assert source.token() == "token-1"
    assert server.grants == ["client_credentials", "refresh 1", "client_credentials"]


def test_a_token_that_was_discarded_serves_no_more_where_the_server_is_down() -> None:
    server = Server()
    source = server.source()
    source.discard(source.token())
    server.is_down = True
    with pytest.raises(httpx2.ConnectError):
        source.token()


def test_a_token_of_unknown_lifetime_is_used_until_it_is_discarded() -> None:
    server = Server(expires_in=None)
    source = server.source()
    assert source.token() == "token-1"
    server.now += 1_000_000
    assert source.token() == "token-1"
    source.discard("another")
    assert source.token() == "token-1"
    source.discard("token-1")
    assert source.token() == "token-2"


@pytest.mark.parametrize("error", [None, "temporarily_unavailable"])
def test_of_threads_that_call_at_once_one_sends_the_request(error: str | None) -> None:
    server = Server()
    came: set[int] = set()

    def clock() -> float:
        # Each caller checks whether the old token is still valid; the answer waits until all have checked.
        came.add(threading.get_ident())
        if len(came) == 5:
            server.may_answer.set()
        return server.now

    source = server.source(clock=clock)
    source.token()
    server.now += 1000
    server.error = error
    server.may_answer.clear()
    came.clear()
    inside = threading.Barrier(5)

    def call() -> str:
        inside.wait(20)
        try:
            return source.token()
        except TokenRequestError as refused:
            return str(refused.error)

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: call(), range(5)))
    assert answers == [error or "token-2"] * 5
    assert len(server.asked) == 2


@pytest.mark.parametrize("error", [None, "temporarily_unavailable"])
async def test_of_tasks_that_call_at_once_one_sends_the_request(error: str | None) -> None:
    server = Server()
    server.error = error
    source = server.source_async()
    answers = await asyncio.gather(*(source.token_async() for _ in range(5)), return_exceptions=True)
    assert {getattr(answer, "error", answer) for answer in answers} == {error or "token-1"}
    assert len(server.asked) == 1


@pytest.mark.parametrize("error", [None, "temporarily_unavailable"])
async def test_a_cancelled_caller_does_not_affect_the_others(error: str | None) -> None:
    server = Server(refresh=True)
    server.error = error
    server.may_answer.clear()
    source = server.source_async()
    calling = asyncio.create_task(source.token_async())
    while not server.arrived.is_set():
        await asyncio.sleep(0.001)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    other = asyncio.create_task(source.token_async()) if error is None else None
    server.may_answer.set()
    if other is not None:
        assert await other == "token-1"
        assert len(server.asked) == 1
    else:
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        assert await source.token_async() == "token-2"


async def test_dpop_auth_uses_the_source_as_its_token() -> None:
    server = Server()
    seen: list[str] = []

    def api(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(200)

    transport = httpx2.MockTransport(api)
    with httpx2.Client(transport=transport, auth=DPoPAuth(KEY, server.source().token)) as client:
        client.get("https://api.example.com/")
    auth = DPoPAuth(KEY, server.source_async().token_async)
    async with httpx2.AsyncClient(transport=transport, auth=auth) as asynchronous:
        await asynchronous.get("https://api.example.com/")
    assert seen == ["DPoP token-1", "DPoP token-2"]


def test_the_options_are_checked_and_the_repr_has_no_token() -> None:
    server = Server(refresh=True)
    with pytest.raises(ConfigurationError, match="leeway takes"):
        server.source(leeway=-1)
    source = server.source()
    source.token()
    assert "token-1" not in repr(vars(source))
    assert "refresh 1" not in repr(vars(source))


def test_an_argument_that_is_missing_or_wrong_is_named_at_once() -> None:
    key, client = DPoPKey.generate(), httpx2.Client()
    names = sorted(("leeway", "on_response", "clock", *TokenRequestOptions.__annotations__))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"client_id": "c"}, "key takes a DPoPKey or a DPoPAuth, not None"),
        ({"key": key}, "client_id takes a non-empty string, not a NoneType"),
        ({"key": key, "client_id": "c", "scope": "a"}, f"TokenSource takes {', '.join(names)}, not 'scope'"),
        (
            {"key": key, "client_id": "c", "client_authentication": "none"},
            "client_authentication takes one of 'basic', 'post', not 'none'",
        ),
        (
            {"key": key, "client_id": "c", "resource": 7},
            "resource takes a sequence of non-empty strings, not 7",
        ),
        (
            {"key": key, "client_id": "c", "parameters": "a=b"},
            "parameters takes a mapping, or a synchronous function that returns one, not a str",
        ),
        (
            {"key": key, "client_id": "c", "insecure_http_hosts": "auth"},
            "insecure_http_hosts takes a sequence of host names, such as ('auth',), not 'auth'",
        ),
    ]
    for given, message in wrong:
        with pytest.raises(ConfigurationError) as caught:
            TokenSource(client, "https://auth.example/token", ClientCredentials(), **given)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["https://a", "https://b"], ["https://a", "https://b"]),
        (iter(["https://a", "https://b"]), ["https://a", "https://b"]),
        ((), None),
    ],
)
def test_every_request_names_each_of_the_resources(given: Any, named: list[str] | None) -> None:
    forms: list[dict[str, list[str]]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        forms.append(parse_qs(request.content.decode()))
        return httpx2.Response(200, json={"access_token": f"token-{len(forms)}", "token_type": "DPoP"})

    source = Server().source_of(
        httpx2.Client(transport=httpx2.MockTransport(answer)), MACHINE, resource=given
    )
    source.discard(source.token())
    source.token()
    assert [form.get("resource") for form in forms] == [named] * 2


def test_a_source_without_client_endpoint_or_grant_is_refused_at_once() -> None:
    options: dict[str, Any] = {"key": KEY, "client_id": "c"}
    client, url = httpx2.Client(), "https://auth.example/token"
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="^client takes a client of httpx2 or httpx, not None$"):
        TokenSource(nothing, url, ClientCredentials(), **options)
    with pytest.raises(ConfigurationError, match="^token_endpoint takes an https URL, not None$"):
        TokenSource(client, nothing, ClientCredentials(), **options)
    with pytest.raises(ConfigurationError, match="^token_endpoint takes an https URL, not 'http://auth"):
        TokenSource(client, "http://auth.example/token", ClientCredentials(), **options)
    with pytest.raises(ConfigurationError, match="^grant takes an AuthorizationCode"):
        TokenSource(client, url, nothing, **options)


class Waiting:
    """A token endpoint whose first answer waits until `answer` is called."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._answers = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        name = "second"
        if self._loop is None:
            name, self._loop = "first", asyncio.get_running_loop()
            self.asked.set()
            await self._answers.wait()
        return httpx2.Response(200, json={"access_token": name, "token_type": "DPoP"})

    def answer(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._answers.set)

    def source(self) -> TokenSource:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        return TokenSource(client, "https://as.example.com/token", MACHINE, key=KEY, client_id="me")


def test_a_source_outlives_an_event_loop_that_ended_during_a_request() -> None:
    waiting = Waiting()
    source = waiting.source()
    first = asyncio.new_event_loop()
    asked = first.create_task(source.token_async())
    while not waiting.asked.is_set():
        first.run_until_complete(asyncio.sleep(0))
    try:
        assert asyncio.run(source.token_async()) == "second"
    finally:
        waiting.answer()
        first.run_until_complete(asked)
        first.close()


class Paused:
    """A source of which one event loop was paused while it requested a token; `server` answers both."""

    def __init__(self, server: Server, grant: Grant = MACHINE, **options: Any) -> None:
        self.server = server
        self.source = server.source_async(grant, **options)
        self._loop = asyncio.new_event_loop()
        self._asked: asyncio.Task[str] | None = None

    def begin(self) -> None:
        """Let the loop send a request, and pause it before the answer."""
        self.server.may_answer.clear()
        self.server.arrived.clear()
        self._asked = self._loop.create_task(self.source.token_async())
        while not self.server.arrived.is_set():
            self._loop.run_until_complete(asyncio.sleep(0))
        self.server.may_answer.set()

    def token(self) -> str:
        """Ask for a token in another event loop."""
        return asyncio.run(self.source.token_async())

    def end(self) -> str:
        """Let the paused loop go on; return the token that its request brought."""
        assert self._asked is not None
        try:
            return self._loop.run_until_complete(self._asked)
        finally:
            self._loop.close()


def test_the_answer_to_a_paused_event_loop_replaces_no_newer_tokens() -> None:
    kept: list[TokenResponse] = []
    paused = Paused(Server(refresh=True), RefreshToken(refresh_token="first"), on_response=kept.append)
    paused.begin()
    assert [paused.token(), paused.end(), paused.token()] == ["token-2"] * 3
    paused.server.now += 600
    paused.token()
    assert paused.server.grants == ["first", "first", "refresh 2"]
    assert [response.access_token for response in kept] == ["token-2", "token-3"]


def test_a_token_that_was_discarded_does_not_come_back_from_a_paused_event_loop() -> None:
    paused = Paused(Server(refresh=True), RefreshToken(refresh_token="first"))
    paused.begin()
    paused.source.discard(paused.token())
    paused.end()
    paused.token()
    assert paused.server.grants == ["first", "first", "refresh 2"]


@pytest.mark.parametrize("grant", [MACHINE, RefreshToken(refresh_token="refresh 1")])
@pytest.mark.parametrize("passed", [0, 600])
def test_a_refusal_of_an_older_refresh_token_discards_no_newer_one(grant: Grant, passed: float) -> None:
    paused = Paused(Server(refresh=True), grant)
    paused.token()
    paused.server.now += 600
    paused.begin()
    paused.token()
    paused.server.error, paused.server.refresh = "invalid_grant", False
    paused.server.now += passed
    newer = f"refresh {len(paused.server.asked)}"
    paused.end()
    paused.server.now += 600
    paused.token()
    assert paused.server.grants[3:] == ([newer, newer] if passed else [newer])


def test_two_event_loops_at_once_do_not_share_a_request() -> None:
    waiting = Waiting()
    source = waiting.source()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asyncio.run, source.token_async())
        waiting.asked.wait()
        try:
            with pytest.raises(ConfigurationError, match="make a TokenSource, and an AsyncClient, for each"):
                asyncio.run(source.token_async())
        finally:
            waiting.answer()
        assert asked.result() == "first"


def test_a_token_ends_in_time_though_the_wall_clock_is_set_back(asking: Asking) -> None:
    server = Server(expires_in=0.1)
    token = asking(server, MACHINE, {})
    assert token() == "token-1"
    server.now -= 3600
    time.sleep(0.15)
    assert token() == "token-2"
    server.is_down = True
    time.sleep(0.15)
    with pytest.raises(httpx2.ConnectError):
        token()


def test_a_new_token_is_kept_though_all_clocks_are_set_back() -> None:
    # freezegun sets time.monotonic back too.
    with freeze_time("2030-01-01") as frozen:
        source = Server().source()
        source.discard(source.token())
        frozen.move_to("2029-01-01")
        assert [source.token(), source.token()] == ["token-2"] * 2


@pytest.mark.timeout(120)
def test_a_listener_may_discard_a_token() -> None:
    server = Server()
    sources: list[TokenSource] = []

    def discards(response: TokenResponse) -> None:
        if response.access_token == "token-1":
            sources[0].discard("another")
            sources[0].discard("token-1")

    sources.append(server.source(on_response=discards))
    asked = threading.Thread(target=sources[0].token, daemon=True)
    asked.start()
    asked.join(60)
    assert not asked.is_alive()
    assert sources[0].token() == "token-2"


FORKING = """
import asyncio, os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import httpx2
from dpop_middleware.client import ClientCredentials, DPoPKey, TokenSource

parent = os.getpid()
arrived = threading.Event()
is_async = sys.argv[2] == "async"

def answer(request):
    arrived.set()
    if os.getpid() == parent:
        threading.Event().wait(600)
    return httpx2.Response(200, json={"access_token": "token", "token_type": "DPoP"})

async def answer_later(request):
    arrived.set()
    if os.getpid() == parent:
        await asyncio.sleep(600)
    return answer(request)

kind, handler = (httpx2.AsyncClient, answer_later) if is_async else (httpx2.Client, answer)
client = kind(transport=httpx2.MockTransport(handler))
source = TokenSource(
    client, "https://as.example.com/token", ClientCredentials(), key=DPoPKey.generate(), client_id="me"
)

def token():
    return asyncio.run(source.token_async()) if is_async else source.token()

threading.Thread(target=token, daemon=True).start()
assert arrived.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(token() != "token")
_, status = os.waitpid(child, 0)
os._exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_child_does_not_wait_for_its_parents_request(way: str) -> None:
    root = str(Path(sys.modules["dpop_middleware"].__path__[0]).parent)
    command = [sys.executable, "-W", "ignore", "-c", FORKING, root, way]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
