"""examples/fastapi_scopes, run as documented."""

import httpx2

from tests.support.examples import running_example


def test_each_route_requires_its_own_scopes() -> None:
    with (
        running_example("fastapi_scopes") as example,
        httpx2.Client(base_url=example.origin, trust_env=False) as client,
    ):
        writer = example.auth(["notes:read", "notes:write"])
        assert client.post("/notes", params={"text": "buy milk"}, auth=writer).status_code == 201
        assert client.get("/notes", auth=writer).json() == ["buy milk"]
        reader = example.auth(["notes:read"], sub="bob")
        assert client.get("/notes", auth=reader).json() == []
        refused = client.post("/notes", params={"text": "sell milk"}, auth=reader)
        assert refused.status_code == 403
        assert refused.json()["error"] == "insufficient_scope"
        assert 'scope="notes:write"' in refused.headers["www-authenticate"]
        document = client.get("/openapi.json").json()
        (scheme,) = document["components"]["securitySchemes"].values()
        assert (scheme["type"], scheme["scheme"]) == ("http", "dpop")
        assert list(document["paths"]["/notes"]["post"]["security"][0]) == ["DPoP"]
