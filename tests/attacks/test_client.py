"""A server that attacks our client: it wants token or proof elsewhere, endless requests, or a crash."""

import base64
import contextlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import pytest

from dpop_middleware.client import ClientCredentials, DPoPAuth, DPoPKey, TokenRequestError, fetch_token
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import base64url
from tests.support.clients import CLIENTS, caller

HOME = "https://api.example.com"
KEY = DPoPKey.generate()
CHALLENGE = {"www-authenticate": 'DPoP error="use_dpop_nonce"'}
REDIRECTS = (301, 302, 303, 307, 308)
ELSEWHERE = (
    "https://evil.example/x",
    "//evil.example/x",
    "https://api.example.com@evil.example/",
    "https://api.example.com:443@evil.example/",
    "https://api.example.com.evil.example/",
    "https://api.example.com%2eevil.example/",
    "https://evil.example\\@api.example.com/",
    "https://evil.example#@api.example.com/",
    "https://evil.example?@api.example.com/",
    "https:evil.example/",
    "\\\\evil.example/x",
    "/\\evil.example/x",
    "https://sub.api.example.com/",
    "https://example.com/",
    "https://api.example.com./",
    "https://api.example.com:444/",
    "https://api.example.com:80/",
    "http://api.example.com/",
    "HTTP://API.EXAMPLE.COM:443/",
    "https://xn--pi-6kc.example.com/",
    "https://[::1]/",
)
NO_URLS = ("", "http://[", "https://", "ftp://api.example.com/", "javascript:x", "https://h:99999/", "?", "%")

pytestmark = pytest.mark.parametrize("kind", CLIENTS)


@dataclass(frozen=True)
class Sent:
    """One request as the attacker's server, or the honest one, would see it."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def origin(self) -> tuple[str, str | None, int | None]:
        return origin(self.url)

    @property
    def bare(self) -> bool:
        return "dpop" not in self.headers and "authorization" not in self.headers

    @property
    def claims(self) -> dict[str, Any]:
        return dict(json.loads(base64url.decode(self.headers["dpop"].split(".")[1])))


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Parsed by the standard library, so that our own parser doesn't judge itself."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


Answers = Callable[[Sent, int], tuple[int, Any, bytes]]


def module_of(kind: str) -> Any:
    return httpx2 if kind.startswith("httpx2") else httpx


def answered_by(kind: str, answers: Answers, sent: list[Sent]) -> Any:
    module = module_of(kind)

    def handler(request: Any) -> Any:
        # A copy, name by name: the same request may be sent once more, with other fields.
        headers_now = {name.lower(): request.headers[name] for name in request.headers}
        sent.append(Sent(str(request.url), headers_now, request.content))
        status, headers, body = answers(sent[-1], len(sent))
        return module.Response(status, headers=headers, content=body)

    return module.MockTransport(handler)


@contextlib.contextmanager
def refusals_of_the_client_itself(kind: str) -> Generator[None]:
    """The errors that httpx2 and httpx themselves raise for an answer that can't be used."""
    module = module_of(kind)
    with contextlib.suppress(module.HTTPError, module.InvalidURL):
        yield


async def asked(
    kind: str, answers: Answers, *, own: bool, method: str = "POST", **options: Any
) -> list[Sent]:
    """Ask for HOME once; `own` follows redirects in `DPoPAuth`, otherwise in the client."""
    sent: list[Sent] = []
    auth = DPoPAuth(KEY, "token", follow_redirects=own)
    transport = answered_by(kind, answers, sent)
    async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
        with refusals_of_the_client_itself(kind):
            await client.request(method, f"{HOME}/a", **options)
    for request in sent:
        if request.bare:
            continue
        assert request.origin == origin(HOME)
        parts = urlsplit(request.url)
        assert request.claims["htu"] == f"{HOME}{parts.path or '/'}"
    return sent


def sending_to(location: str, status: int) -> Answers:
    def answers(request: Sent, number: int) -> tuple[int, Any, bytes]:
        if number == 1:
            return status, {"location": location, "dpop-nonce": "from-home"}, b""
        # The server asks for more each time.
        return 401, CHALLENGE | {"dpop-nonce": "from-elsewhere"}, b""

    return answers


@pytest.mark.parametrize("own", [True, False])
async def test_token_and_proof_never_go_to_another_origin_or_unencrypted(kind: str, own: bool) -> None:
    left = set[str]()
    for location in ELSEWHERE:
        for status in REDIRECTS:
            sent = await asked(kind, sending_to(location, status), own=own, content=b"body")
            away = [request for request in sent if request.origin != origin(HOME)]
            assert all(request.bare for request in away)
            assert len(sent) <= 4
            left |= {location} if away else set()
    assert left >= {"https://evil.example/x", "//evil.example/x", "https://api.example.com@evil.example/",
                    "https://api.example.com.evil.example/", "https://api.example.com:444/",
                    "http://api.example.com/", "https://sub.api.example.com/"}  # fmt: skip


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("status", [307, 308])
async def test_cookies_of_the_first_origin_never_go_to_another(kind: str, own: bool, status: int) -> None:
    sent: list[Sent] = []

    def answers(request: Sent, number: int) -> tuple[int, Any, bytes]:
        if number == 1:
            return 200, {"set-cookie": "session=s3cr3t; Path=/"}, b""
        return status, {"location": "https://evil.example/x"}, b""

    transport = answered_by(kind, answers, sent)
    auth = DPoPAuth(KEY, "token", follow_redirects=own)
    async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
        client.client.cookies.set("named", "s3cr3t", domain="api.example.com")
        await client.request("GET", HOME)
        with refusals_of_the_client_itself(kind):
            await client.request("POST", HOME, content=b"body")
    home, away = sent[1], sent[2]
    assert "session=s3cr3t" in home.headers["cookie"]
    assert "named=s3cr3t" in home.headers["cookie"]
    assert (away.origin[1], away.bare, away.headers.get("cookie")) == ("evil.example", True, None)


@pytest.mark.parametrize("own", [True, False])
async def test_no_cookie_or_authorization_of_one_request_goes_with_another(kind: str, own: bool) -> None:
    sent: list[Sent] = []
    transport = answered_by(kind, sending_to("https://evil.example/x", 307), sent)
    auth = DPoPAuth(KEY, follow_redirects=own)  # proofs only, beside the caller's own credentials
    async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
        headers = {"Cookie": "a=s3cr3t", "Authorization": "Basic eDp5"}
        await client.request("POST", f"{HOME}/a", content=b"body", headers=headers)
    home, *away = sent
    assert (home.headers["cookie"], home.headers["authorization"]) == ("a=s3cr3t", "Basic eDp5")
    assert [(request.bare, request.headers.get("cookie")) for request in away] == [(True, None)]


@pytest.mark.parametrize("own", [True, False])
async def test_a_nonce_of_one_origin_is_never_used_at_another(kind: str, own: bool) -> None:
    sent: list[Sent] = []
    auth = DPoPAuth(KEY, "token", origin=(HOME, "https://other.example"), follow_redirects=own)

    def answers(request: Sent, number: int) -> tuple[int, Any, bytes]:
        host = str(request.origin[1])
        headers = {"dpop-nonce": f"of-{host}"}
        if request.url.endswith("/away"):
            headers["location"] = "https://evil.example/x"
        return 307 if "location" in headers else 200, headers, b""

    transport = answered_by(kind, answers, sent)
    async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
        for url in (HOME, f"{HOME}/away", HOME, "https://other.example", "https://other.example", HOME):
            await client.request("GET", url)
    proofs = [(request.origin[1], request.claims.get("nonce")) for request in sent if not request.bare]
    assert len(proofs) == 6
    assert {nonce for _, nonce in proofs} == {None, "of-api.example.com", "of-other.example"}
    assert all(nonce in (None, f"of-{host}") for host, nonce in proofs)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "tactic", ["challenge", "redirect", "both in turn", "both at once", "between two origins"]
)
async def test_the_client_never_asks_for_ever(kind: str, own: bool, tactic: str) -> None:
    asked_for_token: list[int] = []

    def answers(request: Sent, number: int) -> tuple[int, Any, bytes]:
        again = {"location": f"/{number}"}
        challenge = CHALLENGE | {"dpop-nonce": f"nonce-{number}"}
        if tactic == "between two origins":
            again = {"location": "https://evil.example/" if request.origin == origin(HOME) else HOME}
        if tactic == "challenge" or (tactic == "both in turn" and number % 2):
            return 401, challenge, b""
        return 307, again | (challenge if tactic == "both at once" else {}), b""

    def token() -> str:
        asked_for_token.append(1)
        return "token"

    sent: list[Sent] = []
    auth = DPoPAuth(KEY, token, follow_redirects=own)
    transport = answered_by(kind, answers, sent)
    async with caller(kind, auth=auth, transport=transport, follow_redirects=not own) as client:
        with refusals_of_the_client_itself(kind):
            await client.request("POST", HOME, content=b"body")
    assert len(sent) <= (2 if tactic == "challenge" else 42)
    assert len(asked_for_token) == 1


DEEP = b"[" * 100_000
HOSTILE_BODIES = {
    "deep": DEEP,
    "deep in the challenge": b'{"error": "use_dpop_nonce", "x": ' + DEEP + b"]" * 100_000 + b"}",
    "a long number": b'{"error": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"error": "\xff"}',
    "a lone surrogate": b'{"error": "\\ud800"}',
    "an error that is no string": b'{"error": {"use_dpop_nonce": 1}}',
    "no object": b'"use_dpop_nonce"',
    "nothing": b"",
}


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("name", HOSTILE_BODIES)
async def test_no_body_stops_the_client(kind: str, name: str, status: int) -> None:
    sent: list[Sent] = []
    headers = {"dpop-nonce": "n", "content-type": "application/json; charset=x"}
    transport = answered_by(kind, lambda *_: (status, headers, HOSTILE_BODIES[name]), sent)
    async with caller(kind, auth=DPoPAuth(KEY), transport=transport) as client:
        answer = await client.request("POST", f"{HOME}/token", data={"grant_type": "x"})
    assert (answer.status_code, len(sent)) == (status, 1)


@pytest.mark.parametrize("own", [True, False])
async def test_no_redirect_or_header_stops_the_client(kind: str, own: bool) -> None:
    for location in NO_URLS:
        assert len(await asked(kind, sending_to(location, 307), own=own)) <= 22
    for nonce in ("", " ", "a b", "\t", "\u00e4".encode(), b"\xff", "x" * 2049, '"', "\\", "a,b c"):
        headers = [("www-authenticate", 'DPoP error="use_dpop_nonce"'), ("dpop-nonce", nonce)]
        assert len(await asked(kind, lambda *_, headers=headers: (401, headers, b""), own=own)) == 1
    two = [*CHALLENGE.items(), ("dpop-nonce", "one"), ("dpop-nonce", "two")]
    assert len(await asked(kind, lambda *_: (401, two, b""), own=own)) == 1
    challenges = [
        "DPoP " * 20_000,
        'error="' * 20_000,
        "DPoP error=" + " " * 50_000,
        "\x00",
        '"use_dpop_nonce"',
    ]
    for challenge in challenges:
        headers = [("www-authenticate", challenge), ("dpop-nonce", "n")]
        assert len(await asked(kind, lambda *_, headers=headers: (401, headers, b""), own=own)) == 1


async def test_a_client_secret_never_goes_elsewhere(kind: str) -> None:
    if kind.endswith("-async"):
        return  # `fetch_token_async` makes the same request
    module, sent = module_of(kind), list[Sent]()
    for status in REDIRECTS:
        sent.clear()
        transport = answered_by(kind, sending_to("https://evil.example/token", status), sent)
        with (
            module.Client(transport=transport, follow_redirects=True, trust_env=False) as client,
            pytest.raises(TokenRequestError),
        ):
            fetch_token(
                client, f"{HOME}/token", ClientCredentials(), key=KEY, client_id="c", client_secret="s3cr3t"
            )
        assert [request.url for request in sent] == [f"{HOME}/token"]
    secret = base64.b64encode(b"c:s3cr3t").decode()
    assert sent[0].headers["authorization"] == f"Basic {secret}"
    unused = answered_by(kind, sending_to("https://evil.example/token", 302), sent)
    with module.Client(transport=unused) as client, pytest.raises(ConfigurationError):
        fetch_token(client, "http://api.example.com/token", ClientCredentials(), key=KEY, client_id="c")
    assert len(sent) == 1


async def test_an_unbound_token_never_passes_as_a_bound_one(kind: str) -> None:
    if kind.endswith("-async"):
        return  # `fetch_token_async` reads the same answer
    for token_type in ("Bearer", "", None, ["DPoP"], "DPoP\n", "dpop bearer"):
        body = json.dumps({"access_token": "t", "token_type": token_type}).encode()
        transport = answered_by(kind, lambda *_, body=body: (200, {}, body), [])
        with (
            module_of(kind).Client(transport=transport) as client,
            pytest.raises(TokenRequestError, match="did not bind the token"),
        ):
            fetch_token(client, f"{HOME}/token", ClientCredentials(), key=KEY, client_id="c")
