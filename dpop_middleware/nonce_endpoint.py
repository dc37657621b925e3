"""A nonce before the first request, for clients that want to avoid a 401 (RFC 9449 section 8.2).

It is also the nonce endpoint of OpenID for Verifiable Credential Issuance 1.0, section 7.
"""

import inspect
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dpop_middleware import _options as options
from dpop_middleware._adapter.answers import error_response, raw_headers
from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.starlette import refusal

__all__ = ["nonce_route"]


def nonce_route(
    resource_server: ResourceServer,
    path: str = "/nonce",
    *,
    c_nonce: Callable[[], str] | Callable[[], Awaitable[str]] | None = None,
) -> Route:
    """Return a route that sends a nonce of `resource_server` to every client, in `DPoP-Nonce`.

        app = Starlette(routes=[nonce_route(api, c_nonce=new_challenge)])

    It answers POST, without credentials, with JSON that no cache may keep; the request's body isn't read.
    Under `DPoPMiddleware` name `path` in `public_paths`.

    - `c_nonce`: a function without arguments that returns the challenge for a wallet's key proofs, the
      member `c_nonce` of the answer (OpenID4VCI section 7.2). It may be async; a sync one must not block.
      The credential endpoint must check the challenge later. Without `c_nonce`, the answer is `{}`.

    Where no nonce can be issued, the answer is 503. Raises ConfigurationError, also for a server without
    `nonces`.
    """
    checked_resource_server(resource_server)
    options.part(
        "c_nonce", c_nonce, "a function that returns a string", fits=c_nonce is None or callable(c_nonce)
    )
    options.path("path", path, such_as="/nonce")
    if not resource_server.issues_nonces:
        raise ConfigurationError("nonce_route needs nonces=HMACNonceProvider(secret) in ResourceServer")

    async def nonce(request: Request) -> Response:
        try:
            headers = resource_server.nonce_headers()
        except Unavailable as error:
            return refusal(error_response(resource_server, error, request.scope))
        content: dict[str, str] = {}
        if c_nonce is not None:
            challenge = c_nonce()
            content["c_nonce"] = _text(await challenge if inspect.isawaitable(challenge) else challenge)
        response = JSONResponse(content)
        response.raw_headers.extend(raw_headers(headers))
        return response

    return Route(path, nonce, methods=["POST"])


def _text(challenge: object) -> str:
    """Return a challenge; its error has only the type, since a challenge is for one wallet."""
    if isinstance(challenge, str) and challenge:
        return challenge
    raise ConfigurationError(
        f"c_nonce takes a function that returns a non-empty string: it returned a {type(challenge).__name__}"
    )
