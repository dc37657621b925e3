"""FastAPI's page for trying out an API, with requests that are signed in the browser."""

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.docs import swagger_ui_default_parameters
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dpop_middleware import _options as options
from dpop_middleware._request.public_urls import absolute_form
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._request.uri import URIError
from dpop_middleware.errors import ConfigurationError

__all__ = ["DocsLogin", "swagger_ui"]

_CDN: Final = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5"
_OF_A_URL: Final = re.compile(r"[^\s;,'\"<>\\]+")
_FILES: Final = {"page.js": "text/javascript", "page.css": "text/css"}
_HEADERS: Final = {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{css}">
<link rel="stylesheet" href="{here}/page.css">
<link rel="icon" href="{icon}">
</head>
<body>
<section id="dpop" aria-labelledby="dpop-title" data-settings="{settings}">
<h2 id="dpop-title">Signed requests (DPoP)</h2>
<p>The key of this page has the thumbprint <code id="dpop-jkt">…</code>.
<button type="button" id="dpop-renew">Make a new one</button></p>
<form id="dpop-form">
<label for="dpop-token">Access token that is bound to it</label>
<input id="dpop-token" type="password" autocomplete="off" spellcheck="false">
<button type="submit">Use it</button>
<button type="button" id="dpop-login" hidden>Get one from the authorization server</button>
</form>
<p id="dpop-status" role="status"></p>
</section>
<div id="swagger-ui"></div>
<script src="{js}"></script>
<script type="module" src="{here}/page.js"></script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocsLogin:
    """How the page of `swagger_ui` gets a token itself: by authorization code and PKCE, as a public client.

    - `authorization_endpoint`, `token_endpoint`: https URLs; the second must allow the page's origin (CORS).
    - `client_id`: a client whose redirect URI is that of the page.
    - `issuer`: the required `iss` of the authorization response (RFC 9207), None for any.
    - `scopes`, `resource` (RFC 8707): those that are requested.
    - `insecure_http_hosts`: hosts whose endpoints may be plain http, besides loopback ones.

    Raises ConfigurationError.
    """

    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    issuer: str | None = None
    scopes: Collection[str] = ()
    resource: str | None = None
    insecure_http_hosts: Collection[str] = ()

    def __post_init__(self) -> None:
        for name in ("authorization_endpoint", "token_endpoint"):
            url = getattr(self, name)
            origin = _origin(url) if isinstance(url, str) else None
            checked_url(name, origin or url, insecure_http_hosts=self.insecure_http_hosts)
        options.credential("client_id", self.client_id)
        if self.issuer is not None:
            options.text("issuer", self.issuer, "the iss of the authorization response")
        options.tokens("scopes", self.scopes)
        if self.resource is not None:
            options.text("resource", self.resource, "the URL of an API")

    def settings(self) -> dict[str, object]:
        """Return the settings that the page needs."""
        asked = {"scope": " ".join(self.scopes), "resource": self.resource}
        return {
            "authorizationEndpoint": self.authorization_endpoint,
            "tokenEndpoint": self.token_endpoint,
            "clientId": self.client_id,
            "issuer": self.issuer,
            "parameters": {name: value for name, value in asked.items() if value},
        }


def swagger_ui(
    app: FastAPI,
    *,
    path: str = "/docs",
    login: DocsLogin | None = None,
    swagger_js_url: str = f"{_CDN}/swagger-ui-bundle.js",
    swagger_css_url: str = f"{_CDN}/swagger-ui.css",
    swagger_favicon_url: str = "https://fastapi.tiangolo.com/img/favicon.png",
    swagger_ui_parameters: Mapping[str, Any] | None = None,
) -> None:
    """Serve Swagger UI at `path`, with each "Try it out" signed by a key of the browser (RFC 9449).

    The page makes an ES256 key whose private half can't be read, shows its thumbprint, takes an access token
    that is bound to it, and sends a new proof with each request, with the nonces that the server sends. Token
    and proofs go to the page's own origin and to those of `app.servers` only.

    - `path`: where FastAPI's own page is replaced. Behind `DPoPMiddleware` the path of the page, those below
      it and that of the schema must be public.
    - `login`: how the page gets a token itself; None if users paste one.
    - `swagger_js_url`, `swagger_css_url`, `swagger_favicon_url`, `swagger_ui_parameters`: as in FastAPI's
      `get_swagger_ui_html`. A script from another server could use the key: serve Swagger UI's files
      yourself.

    The page's `Content-Security-Policy` lets no other script run. Raises ConfigurationError.
    """
    options.part("swagger_ui", app, "a FastAPI application first", fits=isinstance(app, FastAPI))
    options.path("path", path, such_as="/docs")
    if app.openapi_url is None:
        raise ConfigurationError("swagger_ui shows the schema at openapi_url, and this application has none")
    options.part("login", login, "a DocsLogin", fits=login is None or isinstance(login, DocsLogin))
    servers = [str(server.get("url", "")) for server in app.servers]
    origins = sorted({origin for server in servers if (origin := _origin(server)) is not None})
    policy = _content_security_policy(
        script=_source("swagger_js_url", swagger_js_url),
        style=_source("swagger_css_url", swagger_css_url),
        image=_source("swagger_favicon_url", swagger_favicon_url),
        connect=(*origins, None if login is None else _origin(login.token_endpoint)),
    )
    headers = {"Content-Security-Policy": policy, **_HEADERS}
    parameters = _parameters({} if swagger_ui_parameters is None else swagger_ui_parameters)

    async def page(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        settings = {
            "openapiUrl": f"{root}{app.openapi_url}",
            "origins": origins,
            "parameters": parameters,
            "login": None if login is None else login.settings(),
        }
        text = _PAGE.format(
            title=escape(f"{app.title} - Swagger UI"),
            css=escape(swagger_css_url),
            js=escape(swagger_js_url),
            icon=escape(swagger_favicon_url),
            here=escape(f"{root}{path.rstrip('/')}"),
            settings=escape(json.dumps(settings)),
        )
        return HTMLResponse(text, headers=headers)

    routes = app.router.routes
    routes[:] = [one for one in routes if not _is_fastapis_own(one, path)]
    app.add_route(path, page, include_in_schema=False)
    for name in _FILES:
        app.add_route(f"{path.rstrip('/')}/{name}", _serving(name, headers), include_in_schema=False)


def _parameters(given: object) -> dict[str, Any]:
    """Return Swagger UI's parameters as JSON has them: those that are `given`, and the usual ones."""
    takes = "a mapping that can be written as JSON"
    if not isinstance(given, Mapping):
        raise options.refused("swagger_ui_parameters", takes, given)
    try:
        parameters: dict[str, Any] = jsonable_encoder({**swagger_ui_default_parameters, **given})
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise options.refused("swagger_ui_parameters", takes, given) from error
    return parameters


def _serving(name: str, headers: Mapping[str, str]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that serves one of the page's files."""
    content = resources.files(__name__).joinpath(name).read_bytes()

    async def file(request: Request) -> Response:  # noqa: ARG001 - each file is public
        return Response(content, media_type=_FILES[name], headers=headers)

    return file


def _is_fastapis_own(route: object, path: str) -> bool:
    """Whether `route` is the page that FastAPI itself serves at `path`."""
    return getattr(route, "path", None) == path and getattr(route, "name", None) == "swagger_ui_html"


def _content_security_policy(
    *, script: str | None, style: str | None, image: str | None, connect: Collection[str | None]
) -> str:
    """Return a policy that allows these sources and the page's own origin, and no other script."""
    return "; ".join(
        (
            "default-src 'none'",
            _directive("script-src", script),
            _directive("style-src", style),
            _directive("img-src", "data:", image),
            _directive("connect-src", *connect),
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
    )


def _directive(name: str, *sources: str | None) -> str:
    """Return a directive of the Content-Security-Policy that allows the page's own origin and `sources`."""
    return " ".join((name, "'self'", *(one for one in dict.fromkeys(sources) if one is not None)))


def _source(name: str, url: str) -> str | None:
    """Return the Content-Security-Policy's source for a file's URL, None for one of the page's own origin."""
    if not isinstance(url, str) or not _OF_A_URL.fullmatch(url) or url.startswith("//"):
        raise options.refused(name, "the URL of a file", url)
    return url.partition("?")[0] if _origin(url) else None


def _origin(url: str) -> str | None:
    """Return the origin of an absolute URL in normal form, None for a relative one and for a template."""
    try:
        found = absolute_form(url.partition("#")[0])
    except URIError:
        return None
    return None if found is None else found[0]
