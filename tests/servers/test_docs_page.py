"""FastAPI's page in a real Chromium: "Try it out" is signed, with nonces too, and nothing leaks."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Security
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dpop_middleware import AccessToken, DPoPMiddleware, HMACNonceProvider, MemoryReplayStore, ResourceServer
from dpop_middleware.fastapi import (
    DocsLogin,
    DPoPHTTPException,
    DPoPSecurity,
    dpop_exception_handler,
    swagger_ui,
)
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.testing import TestIssuer
from examples.flow import authorization_server
from tests.support.adapters import SECRET
from tests.support.servers import serving
from tests.support.webdriver import Browser, chromium, needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]

_PACKAGE = find_spec("fastapi_offline")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
FILES = Path(_PACKAGE.origin).parent / "static"
OWN_FILES: dict[str, Any] = {
    "swagger_js_url": "/static/swagger-ui-bundle.js",
    "swagger_css_url": "/static/swagger-ui.css",
    "swagger_favicon_url": "/static/favicon.png",
}
PUBLIC = ["/docs", "/docs/*", "/openapi.json", "/static/*", "/seen"]


class House:
    """An API with a page, and the requests that reached it."""

    def __init__(self) -> None:
        self.issuer = TestIssuer(audience="https://api.example.test")
        self.seen: list[dict[str, str]] = []

    def app(self, origin: str, **policy: Any) -> ASGIApp:
        api = ResourceServer(
            issuer=self.issuer.issuer,
            resource="https://api.example.test",
            public_url=origin,
            jwks=self.issuer.jwks(),
            replay_store=MemoryReplayStore(),
            nonces=HMACNonceProvider(SECRET),
            policy=DPoPPolicy(**policy),
        )
        return DPoPMiddleware(self.routes(api), api, public_paths=PUBLIC)

    def routes(self, api: ResourceServer, path: str = "/docs", **options: Any) -> FastAPI:
        dpop = DPoPSecurity(api)
        app = FastAPI(title='Notes <of> "everybody"')
        app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
        app.mount("/static", StaticFiles(directory=FILES))

        @app.get("/notes/{name}")
        async def read_note(
            name: str, token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])], request: Request
        ) -> dict[str, str | None]:
            self.seen.append(dict(request.headers))
            return {"name": name, "of": token.subject}

        @app.post("/notes")
        async def write_note(
            text: dict[str, str], token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]
        ) -> dict[str, Any]:
            return {"text": text, "of": token.subject}

        swagger_ui(app, path=path, **OWN_FILES, **options)
        return app


@contextmanager
def running(house: House, **policy: Any) -> Generator[str]:
    with serving("uvicorn-httptools", lambda origin: house.app(origin, **policy)) as origin:
        # Another name of the same machine: "localhost" is a page of its own to a browser.
        yield origin


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as one:
        yield one


def open_page(browser: Browser, url: str) -> str:
    """Open the page, wait for its operations, and return the thumbprint of its key."""
    browser.console()
    browser.open(url)
    browser.wait_for("document.querySelectorAll('.opblock').length >= 2")
    return str(
        browser.wait_for(
            "document.getElementById('dpop-jkt').textContent.length > 20 && "
            "document.getElementById('dpop-jkt').textContent"
        )
    )


def paste(browser: Browser, token: str) -> str:
    browser.script("document.getElementById('dpop-token').value = arguments[0]", token)
    browser.click("#dpop-form [type=submit]")
    return browser.text("#dpop-status")


TAB = "\ue004"


def enter(browser: Browser, selector: str, text: str) -> None:
    """Type into a field and leave it, as a person does: Swagger UI reads it then."""
    element = browser.find(selector)
    browser.command("POST", f"/element/{element}/clear")
    browser.command("POST", f"/element/{element}/value", text=text)
    browser.press(TAB)
    browser.wait_for("document.querySelector(arguments[0]).value === arguments[1]", selector, text)


def try_out(browser: Browser, operation: str, **parameters: str) -> tuple[str, str]:
    """Press "Try it out" and "Execute"; return the status and the body that the page shows."""
    block = f"[id^='operations-default-{operation}']"
    if not browser.script(f"return document.querySelector({block!r}).classList.contains('is-open')"):
        browser.click(f"{block} .opblock-summary-control")
    browser.wait_for(f"document.querySelector({f'{block} .try-out button'!r}) !== null")
    if browser.script(f"return document.querySelector({f'{block} .execute'!r}) === null"):
        browser.click(f"{block} .try-out button")
    for name, value in parameters.items():
        enter(browser, f"{block} tr[data-param-name='{name}'] input", value)
    clear = f"{block} .btn-clear"
    if browser.script("return document.querySelector(arguments[0]) !== null", clear):
        browser.click(clear)
    browser.click(f"{block} .execute")
    live = f"{block} .live-responses-table .response .response-col_"
    shown = "document.querySelector(arguments[0])?.textContent"
    status = str(browser.wait_for(shown, f"{live}status"))
    return status.split(maxsplit=1)[0][:3], str(browser.script(f"return {shown}", f"{live}description"))


@pytest.fixture(scope="module")
def house() -> House:
    return House()


@pytest.fixture(scope="module")
def origin(house: House) -> Generator[str]:
    with running(house) as origin:
        yield origin


def test_each_try_is_signed_anew(browser: Browser, house: House, origin: str) -> None:
    jkt = open_page(browser, f"{origin}/docs")
    assert browser.text("#dpop-status") == "Without a token, requests are sent unchanged."
    assert try_out(browser, "read_note", name="first")[0] == "401"
    token = house.issuer.token(jkt=jkt, sub="ann", scopes=["notes:read"])
    assert paste(browser, token) == "Each request is signed."
    for name in ("first", "second"):
        status, body = try_out(browser, "read_note", name=name)
        assert status == "200", body
        assert f'"name": "{name}"' in body
        assert '"of": "ann"' in body
    status, body = try_out(browser, "write_note")
    assert status == "200", body
    proofs = {headers["dpop"] for headers in house.seen}
    assert len(proofs) == len(house.seen) == 2
    assert complaints(browser) == []


def complaints(browser: Browser) -> list[str]:
    """The errors in the console, but for the refusals that a test causes."""
    return [
        entry["message"]
        for entry in browser.console()
        if "401 (Unauthorized)" not in entry["message"] and "404 (Not Found)" not in entry["message"]
    ]


def test_with_nonces_required_the_first_try_passes(browser: Browser, house: House) -> None:
    with running(house, nonce="required") as origin:
        jkt = open_page(browser, f"{origin}/docs")
        paste(browser, house.issuer.token(jkt=jkt, sub="ann", scopes=["notes:read"]))
        assert try_out(browser, "read_note", name="first")[0] == "200"
        browser.console()
        assert try_out(browser, "read_note", name="second")[0] == "200"
        assert browser.console() == [], "the nonce of the first answer is used at once"


def test_the_private_key_can_not_be_read_and_survives_a_reload(browser: Browser, origin: str) -> None:
    jkt = open_page(browser, f"{origin}/docs")
    exported = """
        const [done] = arguments;
        const opening = indexedDB.open(`dpop ${location.pathname}`, 1);
        opening.onsuccess = () => {
          const request = opening.result.transaction("keys").objectStore("keys").get("client");
          request.onsuccess = async () => {
            const { privateKey } = request.result;
            const copy = await crypto.subtle.exportKey("pkcs8", privateKey).catch((error) => error.name);
            done([privateKey.extractable, copy, Object.keys(localStorage), Object.keys(sessionStorage)]);
          };
        };
    """
    assert browser.command("POST", "/execute/async", script=exported, args=[]) == [
        False,
        "InvalidAccessError",
        [],
        [],
    ]
    assert open_page(browser, f"{origin}/docs") == jkt
    browser.click("#dpop-renew")
    browser.wait_for("document.getElementById('dpop-jkt').textContent !== arguments[0]", jkt)


def test_a_token_of_another_key_is_not_taken(browser: Browser, house: House, origin: str) -> None:
    open_page(browser, f"{origin}/docs")
    assert "bound to another key" in paste(browser, house.issuer.token(jkt="another", scopes=["notes:read"]))
    assert try_out(browser, "read_note", name="first")[0] == "401"
    assert paste(browser, "opaque") == "Each request is signed."
    assert try_out(browser, "read_note", name="first")[0] == "401"
    assert paste(browser, "") == "Without a token, requests are sent unchanged."


class Elsewhere:
    """The flow's authorization server and an API that trusts it, whose page is at the root."""

    def __init__(self, house: House) -> None:
        self.house = house

    @contextmanager
    def running(self) -> Generator[tuple[str, str]]:
        issuers: list[str] = []

        def api_at(origin: str) -> ASGIApp:
            pages.append(origin)
            return no_lifespan

        pages: list[str] = []
        apps: dict[str, ASGIApp] = {}

        async def lazily(scope: Any, receive: Any, send: Any) -> None:
            await apps["api"](scope, receive, send)

        async def the_issuer(scope: Any, receive: Any, send: Any) -> None:
            await apps["issuer"](scope, receive, send)

        def issuer_at(origin: str) -> ASGIApp:
            issuers.append(origin)
            apps["issuer"] = authorization_server.create_app(issuer=origin, resource=pages[0], page=pages[0])
            api = ResourceServer(issuer=origin, resource=pages[0], replay_store=MemoryReplayStore())
            login = DocsLogin(
                authorization_endpoint=f"{origin}/authorize",
                token_endpoint=f"{origin}/token",
                client_id=authorization_server.CLIENT_ID,
                issuer=origin,
            )
            apps["api"] = self.routes(api, login)
            return the_issuer

        async def no_lifespan(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                while True:
                    kind = (await receive())["type"]
                    await send({"type": f"{kind}.complete"})
                    if kind == "lifespan.shutdown":
                        return
            await lazily(scope, receive, send)

        with (
            serving("uvicorn-httptools", api_at) as page,
            serving("uvicorn-httptools", issuer_at) as issuer,
        ):
            yield page, issuer

    def routes(self, api: ResourceServer, login: DocsLogin) -> FastAPI:
        dpop = DPoPSecurity(api)
        app = FastAPI()
        app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
        app.mount("/static", StaticFiles(directory=FILES))

        @app.get("/notes/{name}")
        async def read_note(
            name: str, token: Annotated[AccessToken, Security(dpop)]
        ) -> dict[str, str | None]:
            return {"name": name, "of": token.subject}

        @app.get("/other")
        async def other() -> None: ...

        swagger_ui(app, path="/", login=login, **OWN_FILES)
        return app


def test_a_token_comes_from_the_authorization_server(browser: Browser, house: House) -> None:
    with Elsewhere(house).running() as (page, issuer):
        open_page(browser, f"{page}/")
        browser.click("#dpop-login")
        browser.find("form [value=allow]")
        assert browser.url.startswith(f"{issuer}/authorize?")
        browser.click("form [value=allow]")
        browser.wait_for("document.getElementById('dpop-status')?.textContent === 'Each request is signed.'")
        assert browser.url == f"{page}/"
        browser.wait_for("document.querySelectorAll('.opblock').length >= 2")
        status, body = try_out(browser, "read_note", name="first")
        assert (status, '"of": "user123"' in body) == ("200", True)
        assert browser.script("return Object.keys(sessionStorage)") == []
        assert complaints(browser) == []
        browser.open(f"{page}/?code=stolen&state=guessed&iss={issuer}")
        browser.wait_for(
            "document.getElementById('dpop-status')?.textContent.includes('belongs to another request')"
        )
        assert browser.url == f"{page}/"


def test_neither_token_nor_proof_goes_to_another_origin(browser: Browser, house: House) -> None:
    seen: list[dict[str, str]] = []

    async def elsewhere(request: Request) -> JSONResponse:
        seen.append(dict(request.headers))
        return JSONResponse({})

    def other_at(_: str) -> ASGIApp:
        app: Any = FastAPI()
        app.add_route("/stray", elsewhere)
        app.add_route("/moved", elsewhere)
        return CORSMiddleware(app, allow_origins=["*"], allow_headers=["*"])

    with serving("uvicorn-httptools", other_at) as other:

        def app_at(origin: str) -> ASGIApp:
            app = FastAPI()
            app.mount("/static", StaticFiles(directory=FILES))

            @app.get("/stray", openapi_extra={"servers": [{"url": other}]})
            async def stray() -> None: ...

            @app.get("/moved")
            async def moved() -> RedirectResponse:
                return RedirectResponse(f"{other}/moved")

            swagger_ui(app, **OWN_FILES)
            return app

        with serving("uvicorn-httptools", app_at) as origin:
            browser.devtools("Page.setBypassCSP", enabled=True)
            try:
                jkt = open_page(browser, f"{origin}/docs")
                paste(browser, house.issuer.token(jkt=jkt))
                assert try_out(browser, "stray")[0] == "200"
                (arrived,) = seen
                assert {"authorization", "dpop"} & set(arrived) == set()
                try_out(browser, "moved")
                assert len(seen) == 1, "a redirection is not followed with token and proof"
            finally:
                browser.devtools("Page.setBypassCSP", enabled=False)
            jkt = open_page(browser, f"{origin}/docs")
            paste(browser, house.issuer.token(jkt=jkt))
            try_out(browser, "stray")
            assert len(seen) == 1, "by the page's own policy, nothing goes elsewhere at all"
            browser.console()
