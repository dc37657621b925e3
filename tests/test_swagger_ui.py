"""The page that signs: how and where it is served; tests/servers/test_docs_page.py uses it in a browser."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.fastapi import DocsLogin, swagger_ui

HOSTILE = "</title><script>alert(1)</script>\"'&"
LOGIN = DocsLogin(
    authorization_endpoint="https://auth.example.com/authorize?tenant=1",
    token_endpoint="https://auth.example.com/token",
    client_id="docs",
    issuer="https://auth.example.com",
    scopes=["notes:read", "notes:write"],
    resource="https://api.example.com",
)


def client(app: FastAPI, **options: Any) -> TestClient:
    return TestClient(app, base_url="https://api.example.com", **options)


def settings_of(text: str) -> dict[str, Any]:
    found = re.search(r'data-settings="([^"]*)"', text)
    assert found is not None
    return dict(json.loads(html.unescape(found[1])))


def policy_of(answer: Any) -> dict[str, list[str]]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return {name: values for name, *values in (directive.split() for directive in directives)}


def test_the_page_takes_the_place_of_fastapis_own() -> None:
    app = FastAPI()
    swagger_ui(app)
    answer = client(app).get("/docs")
    assert answer.status_code == 200
    assert "data-settings=" in answer.text
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        file = client(app).get(f"/docs/{name}")
        assert (file.status_code, file.headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert f'"/docs/{name}"' in answer.text
    assert "/docs" not in client(app).get("/openapi.json").json()["paths"]


def test_the_policy_lets_run_what_was_named_and_nothing_else() -> None:
    app = FastAPI(
        servers=[
            {"url": "https://eu.example.com/v1"},
            {"url": "/v2"},
            {"url": "https://{region}.example.com"},
        ]
    )
    script = "https://cdn.example.com/ui.js?v=1"
    swagger_ui(app, login=LOGIN, swagger_js_url=script, swagger_css_url="/ui.css")
    answer = client(app).get("/docs")
    assert policy_of(answer) == {
        "default-src": ["'none'"],
        "script-src": ["'self'", "https://cdn.example.com/ui.js"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:", "https://fastapi.tiangolo.com/img/favicon.png"],
        "connect-src": ["'self'", "https://eu.example.com", "https://auth.example.com"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert settings_of(answer.text)["origins"] == ["https://eu.example.com"]
    # No script and no style stands in the page itself.
    assert re.findall(r"<script(?! src=| type=\"module\" src=)|<style| style=| on\w+=", answer.text) == []


def test_origins_are_written_as_a_browser_writes_them() -> None:
    """The page compares them with the origin of each request."""
    urls = (
        "https://EU.Example.com:443/v1",
        "http://localhost:80",
        "https://us.example.com:8443/",
        "https://[x]",
    )
    app = FastAPI(servers=[{"url": url} for url in urls])
    swagger_ui(app)
    origins = ["http://localhost", "https://eu.example.com", "https://us.example.com:8443"]
    answer = client(app).get("/docs")
    assert settings_of(answer.text)["origins"] == origins
    assert policy_of(answer)["connect-src"] == ["'self'", *origins]


def test_the_page_knows_how_to_get_a_token() -> None:
    app = FastAPI()
    swagger_ui(app, login=LOGIN)
    assert settings_of(client(app).get("/docs").text)["login"] == {
        "authorizationEndpoint": "https://auth.example.com/authorize?tenant=1",
        "tokenEndpoint": "https://auth.example.com/token",
        "clientId": "docs",
        "issuer": "https://auth.example.com",
        "parameters": {"scope": "notes:read notes:write", "resource": "https://api.example.com"},
    }
    plain = FastAPI()
    swagger_ui(plain)
    assert settings_of(client(plain).get("/docs").text)["login"] is None


def test_every_configured_value_is_escaped() -> None:
    app = FastAPI(title=HOSTILE)
    swagger_ui(app, swagger_ui_parameters={"filter": HOSTILE})
    text = client(app).get("/docs").text
    assert "<script>alert" not in text
    assert settings_of(text)["parameters"]["filter"] == HOSTILE
    assert settings_of(text)["parameters"]["layout"] == "BaseLayout"


def test_parameters_may_be_whatever_fastapi_writes_as_json() -> None:
    app = FastAPI()
    swagger_ui(app, swagger_ui_parameters={"supportedSubmitMethods": frozenset({"get"}), "url": Path("/a")})
    parameters = settings_of(client(app).get("/docs").text)["parameters"]
    assert (parameters["supportedSubmitMethods"], parameters["url"]) == (["get"], "/a")


def test_the_page_may_be_at_another_path_and_behind_a_root_path() -> None:
    app = FastAPI(docs_url=None)
    swagger_ui(app, path="/")
    assert client(app).get("/page.js").status_code == 200
    assert '"/page.js"' in client(app).get("/").text
    behind = FastAPI(openapi_url="/schema.json")
    swagger_ui(behind, path="/help/")
    text = client(behind, root_path="/v1").get("/help/").text
    assert settings_of(text)["openapiUrl"] == "/v1/schema.json"
    assert '"/v1/help/page.js"' in text


def test_a_route_of_the_applications_own_is_left_alone() -> None:
    app = FastAPI()

    @app.get("/help")
    async def help_text() -> str:
        return "mine"

    swagger_ui(app, path="/help")
    assert client(app).get("/help").json() == "mine"
    assert client(app).get("/docs").status_code == 200


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="swagger_ui takes a FastAPI application first"):
        swagger_ui(object())  # type: ignore[arg-type]
    for path in ("docs", "", 1):
        with pytest.raises(ConfigurationError, match="path takes a path that starts with a slash"):
            swagger_ui(FastAPI(), path=path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="this application has none"):
        swagger_ui(FastAPI(openapi_url=None))
    with pytest.raises(ConfigurationError, match="login takes a DocsLogin"):
        swagger_ui(FastAPI(), login={"client_id": "docs"})  # type: ignore[arg-type]
    for name in ("swagger_js_url", "swagger_css_url", "swagger_favicon_url"):
        for url in ("/ui.js; script-src *", "/ui.js,x", "", 1, '/a"b', "//cdn.example.com/ui.js"):
            wrong: dict[str, Any] = {name: url}
            with pytest.raises(ConfigurationError, match=f"{name} takes the URL of a file"):
                swagger_ui(FastAPI(), **wrong)
    for parameters in ([("filter", True)], {"filter": float("nan")}, {"filter": object()}):
        with pytest.raises(ConfigurationError, match="swagger_ui_parameters takes a mapping"):
            swagger_ui(FastAPI(), swagger_ui_parameters=parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"authorization_endpoint": "http://auth.example.com/authorize"},
            "authorization_endpoint takes an https URL",
        ),
        ({"token_endpoint": "/token"}, "token_endpoint takes an https URL"),
        ({"token_endpoint": 1}, "token_endpoint takes an https URL"),
        ({"token_endpoint": "https://user@auth.example.com/token"}, "token_endpoint takes an https URL"),
        ({"client_id": ""}, "client_id takes a non-empty string"),
        ({"client_id": ("docs",)}, "client_id takes a non-empty string"),
        ({"issuer": b"https://auth.example.com"}, "issuer takes the iss of the authorization response"),
        ({"resource": ("https://api.example.com",)}, "resource takes the URL of an API"),
        ({"scopes": "notes:read"}, "scopes takes a sequence"),
    ],
)
def test_a_login_with_wrong_options_is_refused(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {
        "authorization_endpoint": "https://auth.example.com/authorize",
        "token_endpoint": "https://auth.example.com/token",
        "client_id": "docs",
    }
    with pytest.raises(ConfigurationError, match=message):
        DocsLogin(**options | changes)


def test_plain_http_is_for_named_hosts() -> None:
    login = DocsLogin(
        authorization_endpoint="http://auth/authorize",
        token_endpoint="http://auth/token",
        client_id="docs",
        insecure_http_hosts=("auth",),
    )
    app = FastAPI()
    swagger_ui(app, login=login)
    assert "http://auth" in policy_of(client(app).get("/docs"))["connect-src"]
