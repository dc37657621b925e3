"""A third-party client and authorization server, with our resource server."""

from collections.abc import Generator

import pytest
import requests
import requests_oauth2client

from dpop_middleware import DPoPPolicy
from tests.support.node import NodePeer, oidc_provider
from tests.support.peers import RESOURCE, NodeClient, PythonClient, Served, protected

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def issuer(pytestconfig: pytest.Config) -> Generator[str]:
    with oidc_provider(pytestconfig) as found:
        yield found.issuer


@pytest.fixture(params=["off", "required"])
def served(issuer: str, request: pytest.FixtureRequest) -> Generator[Served]:
    with protected(DPoPPolicy(nonce=request.param), issuer=issuer) as found:
        yield found


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519"])
def test_openid_client_gets_a_token_and_calls_the_api(
    node: NodePeer, issuer: str, served: Served, algorithm: str
) -> None:
    client = NodeClient(node, "openid-client", algorithm=algorithm, issuer=issuer)
    token = client.token(resource=RESOURCE, scope="notes:read")
    assert token["token_type"].lower() == "dpop"
    for method, body in (("GET", None), ("POST", "text")):
        answer = client.call(token["access_token"], method, f"{served.origin}/notes/a%2Fb?q=1", body)
        assert (answer.status, answer.json()["sub"], answer.json()["body"]) == (200, "machine", body or "")
    thief = NodeClient(node, "openid-client").call(token["access_token"], "GET", f"{served.origin}/notes")
    assert (thief.status, thief.read) == (401, [("dpop", "invalid_token")])


def test_requests_oauth2client_gets_a_token_and_calls_the_api(issuer: str, served: Served) -> None:
    with requests.Session() as session:
        session.trust_env = False
        asking = requests_oauth2client.OAuth2Client.from_discovery_endpoint(
            issuer=issuer,
            client_id="machine",
            client_secret="s3cret:/+",
            dpop_bound_access_tokens=True,
            session=session,
            testing=True,
        )
        token = asking.client_credentials(scope="notes:read", resource=RESOURCE)
    assert isinstance(token, requests_oauth2client.DPoPToken)
    client = PythonClient(token.dpop_key)
    for method, body in (("GET", None), ("POST", "text")):
        answer = client.call(token.access_token, method, f"{served.origin}/notes/a%2Fb?q=1", body)
        assert (answer.status, answer.json()["sub"], answer.json()["body"]) == (200, "machine", body or "")
