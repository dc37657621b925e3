"""Our resource server, under uvicorn, called by third-party clients."""

from collections.abc import Callable, Generator

import pytest

from dpop_middleware import DPoPPolicy
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from tests.support.node import NodePeer
from tests.support.peers import NPM_CLIENTS, Client, NodeClient, PythonClient, Served, protected

pytestmark = pytest.mark.slow

PYTHON_CLIENT = "requests-oauth2client"
# Algorithms for which they make no keys.
LACKS = {"openid-client": (), "@atproto/oauth-client": ("EdDSA", "Ed25519"), PYTHON_CLIENT: ("Ed25519",)}

NewClient = Callable[[str], Client]


@pytest.fixture(params=[*NPM_CLIENTS, PYTHON_CLIENT])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_client(request: pytest.FixtureRequest, kind: str) -> NewClient:
    """Makes clients of one kind, each with a new key for an algorithm."""
    if kind == PYTHON_CLIENT:
        return PythonClient.generate
    node: NodePeer = request.getfixturevalue("node")
    return lambda algorithm: NodeClient(node, kind, algorithm=algorithm)


@pytest.fixture
def client(new_client: NewClient) -> Client:
    return new_client("ES256")


@pytest.fixture(scope="module")
def plain() -> Generator[Served]:
    with protected() as served:
        yield served


@pytest.fixture(scope="module")
def requiring() -> Generator[Served]:
    """A server that requires nonces."""
    with protected(DPoPPolicy(nonce="required")) as served:
        yield served


@pytest.mark.parametrize("algorithm", SUPPORTED_ALGORITHMS)
def test_every_algorithm_of_the_client_is_accepted(
    new_client: NewClient, kind: str, algorithm: str, plain: Served
) -> None:
    if algorithm in LACKS[kind]:
        pytest.skip(f"{kind} makes no keys for {algorithm}")
    client = new_client(algorithm)
    answer = client.call(plain.token(client.jkt), "GET", f"{plain.origin}/notes")
    assert (answer.status, answer.json().get("sub")) == (200, "user123"), answer


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?",
        "/notes",
        "/notes?q=a%20b&x=%2F&y=ü#part",
        "/notes/a%2Fb%20c;v=1/caf%C3%A9,(x)!$&'*+=:@?q",
        "/notes/caf%c3%a9/%7Eann/~ann/%41",
        "/straße/小 x",
        "/notes//twice/",
        "/a/./b/../c",
        '/[x]|{y}"^`\\z',
    ],
)
def test_every_target_is_accepted(client: Client, method: str, target: str, plain: Served) -> None:
    body = None if method in ("GET", "DELETE") else "a=1&b=ü"
    answer = client.call(plain.token(client.jkt), method, plain.origin + target, body)
    assert (answer.status, answer.json().get("method")) == (200, method), answer
    assert answer.json()["body"] == (body or "")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_client_learns_and_renews_its_nonce(client: Client, method: str, requiring: Served) -> None:
    token, url = requiring.token(client.jkt), f"{requiring.origin}/notes/a%2Fb?q=1"
    body = None if method == "GET" else "some text"

    def statuses() -> list[int]:
        before = len(requiring.statuses)
        answer = client.call(token, method, url, body)
        assert (answer.status, answer.json().get("body")) == (200, body or "")
        return requiring.statuses[before:]

    # The first request learns the nonce, the next ones use it, until it is stale.
    assert statuses() == [401, 200]
    assert statuses() == [200]
    requiring.ahead += 400
    assert statuses() == [401, 200]
    assert statuses() == [200]


def test_the_client_learns_a_nonce_where_bearer_is_accepted_too(client: Client) -> None:
    with protected(DPoPPolicy(nonce="required", accept_bearer=True)) as served:
        token, url = served.token(client.jkt), f"{served.origin}/notes"
        assert client.call(token, "GET", url).status == 200
        assert client.call(token, "GET", url).status == 200
        assert served.statuses == [401, 200, 200]


def test_a_nonce_helps_a_client_whose_clock_differs(client: Client) -> None:
    with protected(DPoPPolicy(nonce="fallback")) as served:
        token, url = served.token(client.jkt), f"{served.origin}/notes"
        assert client.call(token, "GET", url).status == 200
        served.ahead = 400
        assert client.call(token, "GET", url).status == 200
        assert client.call(token, "GET", url).status == 200
        assert served.statuses[-1] == 200


class TestChallenges:
    """openid-client reports how it reads them."""

    @pytest.fixture
    def client(self, node: NodePeer) -> NodeClient:
        return NodeClient(node, "openid-client")

    def test_the_challenge_for_a_stolen_token_is_read(self, client: NodeClient, plain: Served) -> None:
        thief = NodeClient(client.peer, "openid-client")
        answer = thief.call(plain.token(client.jkt), "GET", plain.origin)
        assert answer.status == 401
        assert answer.read == [("dpop", "invalid_token")]

    def test_the_challenge_for_a_missing_scope_is_read(self, client: NodeClient, plain: Served) -> None:
        answer = client.call(plain.token(client.jkt), "POST", f"{plain.origin}/write", "text")
        assert answer.status == 403
        assert answer.read == [("dpop", "insufficient_scope")]
        assert answer.challenges is not None
        assert answer.challenges[0]["parameters"]["scope"] == "notes:write"
        assert answer.challenges[0]["parameters"]["algs"] == " ".join(SUPPORTED_ALGORITHMS)

    def test_both_challenges_are_read(self, client: NodeClient) -> None:
        with protected(DPoPPolicy(accept_bearer=True)) as served:
            answer = client.call("unknown", "GET", served.origin)
        assert answer.read is not None
        assert sorted(answer.read) == [("bearer", None), ("dpop", "invalid_token")]
