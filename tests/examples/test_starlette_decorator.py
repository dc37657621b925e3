"""examples/starlette_decorator, run as documented."""

import time

import httpx2

from tests.support.examples import running_example


def test_the_decorator_protects_only_what_it_decorates() -> None:
    with (
        running_example("starlette_decorator") as example,
        httpx2.Client(base_url=example.origin, trust_env=False) as client,
    ):
        assert client.get("/notes").json() == []
        assert client.post("/notes", content="hello").status_code == 401
        writer = example.auth(["notes:write"], sub="alice")
        assert client.post("/notes", content="hello", auth=writer).json() == ["hello (alice)"]
        refused = client.delete("/notes", auth=writer)
        assert refused.json()["error"] == "insufficient_user_authentication"
        assert 'max_age="300"' in refused.headers["www-authenticate"]
        assert client.get("/notes").json() == ["hello (alice)"]
        just_logged_in = example.auth(["notes:write"], sub="alice", auth_time=int(time.time()))
        assert client.delete("/notes", auth=just_logged_in).json() == []
