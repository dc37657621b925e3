"""DPoP as a FastAPI security dependency."""

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, overload

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.websockets import WebSocket

from dpop_middleware._adapter.answers import (
    can_deny,
    error_response,
    exception_headers,
    holding,
    send_refusal,
)
from dpop_middleware._adapter.connection import (
    Connection,
    check_scope_type,
    checked_resource_server,
    has_credentials,
)
from dpop_middleware._judge.requirements import NO_CLAIMS, Predicate, Requirements
from dpop_middleware._judge.verdicts import ErrorResponse
from dpop_middleware._options import flag, text
from dpop_middleware.errors import DPoPError
from dpop_middleware.nonces import undelivered_nonces
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.starlette import refusal
from dpop_middleware.tokens.access_token import AccessToken

try:
    from fastapi import HTTPException, WebSocketException
    from fastapi.openapi.models import HTTPBase
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase

    from dpop_middleware._swagger_ui import DocsLogin, swagger_ui
except ImportError as error:
    raise ImportError(
        "dpop_middleware.fastapi needs FastAPI, which is not installed: "
        "in a checkout of dpop_middleware, python -m pip install '.[fastapi]'"
    ) from error

__all__ = [
    "DPoPHTTPException",
    "DPoPSecurity",
    "DocsLogin",
    "dpop_exception_handler",
    "refusal_responses",
    "swagger_ui",
]


# Where FastAPI keeps the exit stack that ends when the endpoint has returned (`Depends(scope="function")`). A
# dependency with `yield` would cost every request more. If it isn't found, each dependency reports its own
# acceptance.
_ENDS_WITH_THE_ENDPOINT = "fastapi_function_astack"


class DPoPHTTPException(HTTPException):
    """A refusal, raised by `DPoPSecurity` for FastAPI to render.

    `error` is the cause and `response` the answer that the middleware would give. Without
    `dpop_exception_handler` FastAPI answers with the same status and header fields, but its own body.
    """

    def __init__(self, error: DPoPError, response: ErrorResponse) -> None:
        super().__init__(response.status, error.description, exception_headers(response))
        self.error = error
        self.response = response


@overload
async def dpop_exception_handler(connection: Request, exception: Exception) -> Response: ...


@overload
async def dpop_exception_handler(connection: WebSocket, exception: Exception) -> None: ...


async def dpop_exception_handler(connection: HTTPConnection, exception: Exception) -> Response | None:
    """Answer a `DPoPHTTPException` as the middleware does; raises any other exception again.

    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    """
    if not isinstance(exception, DPoPHTTPException):
        raise exception
    if isinstance(connection, WebSocket):
        await send_refusal(exception.response, connection.scope, connection.send)
        return None
    return refusal(exception.response)


def refusal_responses() -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI should say of refused requests: `FastAPI(responses=refusal_responses())`.

    The bodies are those of `dpop_exception_handler`. For an application, a router or one route.
    """
    members = {"error": {"type": "string"}, "error_description": {"type": "string"}}
    body = {"schema": {"type": "object", "properties": members, "required": ["error_description"]}}

    def response(description: str, header: str) -> dict[str, Any]:
        headers = {header: {"schema": {"type": "string"}}}
        return {"description": description, "headers": headers, "content": {"application/json": body}}

    return {
        400: response("The request is malformed or ambiguous (RFC 6750)", "WWW-Authenticate"),
        401: response("Access token or DPoP proof is missing or wrong (RFC 9449)", "WWW-Authenticate"),
        403: response("The access token doesn't allow this (RFC 6750)", "WWW-Authenticate"),
        503: response("The request can't be judged now", "Retry-After"),
    }


class DPoPSecurity(SecurityBase):
    """A security dependency that gives the verified access token of the request.

        dpop = DPoPSecurity(api)

        @app.get("/notes")
        async def notes(token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]): ...

    - `resource_server`: the judge; a `with_policy` of the middleware's own works too.
    - `any_of`, `claims`: as in `requires_dpop`: one of several scopes, and functions of claims.
    - `acr_values`, `max_age` (seconds): how and when the user must have authenticated (RFC 9470).
    - `required`: False returns None for a request without `Authorization`; bad credentials are still refused.
      To say so in OpenAPI, set `openapi_extra={"security": [{}]}` at the route.
    - `scheme_name`, `description`: for OpenAPI.

    The instance is the key for `app.dependency_overrides`. A dependency can't put a nonce on every response:
    with a nonce policy it needs `DPoPMiddleware` around the application. Otherwise opening the server raises
    ConfigurationError, or without a lifespan the first use. Raises `DPoPHTTPException` for every request that
    `ResourceServer.authenticate` refuses.
    """

    def __init__(
        self,
        resource_server: ResourceServer,
        *,
        any_of: Collection[str] = (),
        claims: Mapping[str, Predicate] = NO_CLAIMS,
        acr_values: Collection[str] = (),
        max_age: int | None = None,
        required: bool = True,
        scheme_name: str = "DPoP",
        description: str | None = "A DPoP-bound access token and a DPoP proof (RFC 9449)",
    ) -> None:
        checked_resource_server(resource_server, option="DPoPSecurity", takes="a ResourceServer first")
        if description is not None:
            text("description", description, "a text for OpenAPI")
        self.model = HTTPBase(scheme="dpop", description=description)
        self.scheme_name = text("scheme_name", scheme_name, "a name for OpenAPI, such as 'DPoP'", least=1)
        self._required = flag("required", required)
        self._resource_server = resource_server
        if resource_server.policy.nonce != "off":
            resource_server.verification.needs_middleware = True
        self._requirements = Requirements(
            any_of=any_of, claims=claims, acr_values=acr_values, max_age=max_age
        )

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes
    ) -> AccessToken | None:
        """Authenticate the request, at most once, and return its access token.

        Raises `DPoPHTTPException`, or WebSocketException for a handshake that the server can only close.
        """
        check_scope_type(connection.scope)
        self._check_nonces_are_delivered(connection)
        if self._resource_server.reporter.wants_acceptance:
            _hold_acceptances(connection)
        if not self._required and not has_credentials(connection.scope):
            return None
        requirements = self._requirements.with_scopes(tuple(security_scopes.scopes))
        try:
            verified = await Connection.of(connection.scope).authenticate(
                self._resource_server, connection.scope, requirements
            )
        except DPoPError as error:
            if isinstance(connection, WebSocket) and not can_deny(connection.scope):
                raise WebSocketException(WS_1008_POLICY_VIOLATION) from error
            response = error_response(self._resource_server, error, connection.scope)
            raise DPoPHTTPException(error, response) from error
        return verified.access_token

    def _check_nonces_are_delivered(self, connection: HTTPConnection) -> None:
        if self._resource_server.policy.nonce == "off":
            return
        around = Connection.of(connection.scope).middleware
        if not any(server.is_sibling_of(self._resource_server) for server in around):
            raise undelivered_nonces()


def _hold_acceptances(connection: HTTPConnection) -> None:
    """Report no acceptance until the endpoint has returned, or has accepted its WebSocket.

    The last of several dependencies may still refuse the request.
    """
    stack = connection.scope.get(_ENDS_WITH_THE_ENDPOINT)
    if not isinstance(stack, AsyncExitStack):
        return
    reporting = stack.enter_context(holding(Connection.of(connection.scope)))
    if isinstance(connection, WebSocket):
        # The endpoint gets the same object.
        same: Any = connection
        same.send = reporting(same.send)
