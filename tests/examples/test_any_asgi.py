"""examples/any_asgi, run as documented."""

import httpx2

from tests.support.examples import running_example


def test_any_asgi_application_is_protected_around_its_public_path() -> None:
    with (
        running_example("any_asgi") as example,
        httpx2.Client(base_url=example.origin, trust_env=False) as client,
    ):
        assert client.get("/health").text == "in good health"
        assert client.get("/notes").status_code == 401
        auth = example.auth(sub="alice")
        for _ in range(2):  # a new proof each time
            assert client.get("/notes", auth=auth).text == "notes of alice"
        stolen = {"Authorization": f"Bearer {example.issuer.token(jkt=auth.key.jkt)}"}
        assert client.get("/notes", headers=stolen).json()["error"] == "invalid_token"
