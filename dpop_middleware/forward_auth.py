"""Protection at a gateway, which asks about each request before it passes it on.

nginx calls that `auth_request`, Traefik `forwardAuth`, Caddy `forward_auth`, Envoy `ext_authz`.
"""

import copy
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, get_args
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from dpop_middleware._adapter.answers import send_refusal, send_startup_failed
from dpop_middleware._adapter.connection import check_scope_type, checked_resource_server
from dpop_middleware._adapter.question import RESERVED, NotBelieved, asked
from dpop_middleware._judge.requirements import NO_CLAIMS, Predicate, Requirements
from dpop_middleware._judge.verdicts import ErrorResponse, VerifiedRequest
from dpop_middleware._log import LOG, RateLimit
from dpop_middleware._options import choice, field_name, refused
from dpop_middleware._runtime import check_event_loop
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["IDENTITY_HEADERS", "ForwardAuth", "Identity"]

Identity = Literal["identity", "subject", "client_id", "issuer", "scope", "jkt"]

IDENTITY_HEADERS: Final[Mapping[str, Identity]] = MappingProxyType(
    {
        "X-Auth-Identity": "identity",
        "X-Auth-Client-ID": "client_id",
        "X-Auth-Issuer": "issuer",
        "X-Auth-Scope": "scope",
    }
)
"""The header fields of an acceptance, and the value of the access token in each."""

_NO_IDENTITY: Final = frozenset(
    {"cache-control", "content-type", "dpop-nonce", "host", "retry-after", "www-authenticate"}
)
_ONLY_THE_GATEWAY: Final = b'{"error_description": "only the gateway may ask"}'
_NOT_THE_GATEWAY: Final = ErrorResponse(
    403,
    (
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("content-length", str(len(_ONLY_THE_GATEWAY))),
    ),
    _ONLY_THE_GATEWAY,
)
# Characters that are not encoded in a field; a percent sign is, so that two names never become one.
_KEPT: Final = "".join(chr(octet) for octet in range(0x21, 0x7F) if chr(octet) != "%")


class ForwardAuth:
    """Answers a gateway's questions about its clients' requests, as an ASGI application (RFC 9449 section 7).

        app = ForwardAuth(api, secret=os.environ["FORWARD_AUTH_SECRET"])

    - `resource_server`: the judge; it is opened and closed with the application's lifespan. Its proofs are
      remembered separately here: an application behind the gateway may verify each request again, with the
      same store. Scheme and host come from its `public_url`, the path is as the client sent it.
    - `secret`: the secret that only the gateway knows and sends in `secret_header`: at least 32 characters,
      or several while it is replaced. Or `private_listener`: True says that only the gateway can reach this
      application. Exactly one of the two.
    - `method_header`, `uri_header`: the fields in which the gateway sends the method and the URI of the
      request. None for both: the gateway's own request has them, as with Envoy; then nothing else may answer
      at this listener, since any 200 lets a request pass. `host_header`: the field in which it sends the
      host.
    - `identity_headers`: the fields of an acceptance, and the value of each: `identity`, `subject`,
      `client_id`, `issuer`, `scope`, `jkt`. All are always there, empty where the token has no such value.
      Characters other than visible ASCII are percent-encoded, and so is a percent sign.
    - `scopes`, `any_of`, `claims`: the authorization that every request needs, as in `requires_dpop`.
    - `unavailable_status`: the status where the verdict can't be known, with `Retry-After`: 403, since nginx
      turns 503 into 500, and Envoy may let the request pass; 503 for Traefik and Caddy.

    The answer is 200, or else 401 (400 becomes 401), 403 or `unavailable_status`, with all challenges in one
    field. 403 without a challenge, and a WARNING, where the question isn't trusted: a configured field is
    missing, comes twice or is malformed, or the secret is wrong. A question with over 256 header fields is
    refused as the request that it is about; the secret must be among the first 512. The question's path and
    body aren't read. `OPTIONS` is authenticated like any method. Not checked: what the gateway does with an
    answer. Raises ConfigurationError.
    """

    def __init__(
        self,
        resource_server: ResourceServer,
        *,
        secret: str | Sequence[str] | None = None,
        private_listener: bool = False,
        secret_header: str = "X-Forward-Auth-Secret",
        method_header: str | None = "X-Original-Method",
        uri_header: str | None = "X-Original-URI",
        host_header: str = "Host",
        identity_headers: Mapping[str, Identity] = IDENTITY_HEADERS,
        scopes: Collection[str] = (),
        any_of: Collection[str] = (),
        claims: Mapping[str, Predicate] = NO_CLAIMS,
        unavailable_status: Literal[403, 503] = 403,
    ) -> None:
        checked_resource_server(resource_server)
        if unavailable_status not in (403, 503):
            raise refused("unavailable_status", "403 or 503", unavailable_status)
        self._question = asked(
            method_header=method_header,
            uri_header=uri_header,
            host_header=host_header,
            secret_header=secret_header,
            secret=secret,
            private_listener=private_listener,
        )
        self._identity_headers = _identity_headers(identity_headers)
        self._requirements = Requirements(scopes=scopes, any_of=any_of, claims=claims)
        self._statuses = {400: 401, 503: int(unavailable_status)}
        self._limit = RateLimit()
        self.resource_server = copy.copy(resource_server)
        self.resource_server.verification = resource_server.verification.at_gateway()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question."""
        if scope.get("type") == "lifespan":
            await self._live(receive, send)
            return
        check_scope_type(scope)
        answer = await self._answer(scope) if scope["type"] == "http" else _NOT_THE_GATEWAY
        if isinstance(answer, ErrorResponse):
            await send_refusal(answer, scope, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self._accepted(answer)})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            check_event_loop()
        except ConfigurationError as error:
            await send_startup_failed(error, send)
            return
        try:
            await self.resource_server.open()
        except BaseException as error:
            await send_startup_failed(error, send)
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.resource_server.aclose()
        finally:
            await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope) -> ErrorResponse | VerifiedRequest:
        try:
            request = self._question.request(scope)
        except NotBelieved as reason:
            self._warn(reason)
            return _NOT_THE_GATEWAY
        try:
            evidence = await self.resource_server.verify(request)
            return self.resource_server.authorize(evidence, self._requirements)
        except DPoPError as error:
            return self._refused(self.resource_server.error_response(error, request))

    def _refused(self, response: ErrorResponse) -> ErrorResponse:
        challenges = [value for name, value in response.headers if name == "www-authenticate"]
        headers = tuple(field for field in response.headers if field[0] != "www-authenticate")
        if challenges:
            headers += (("www-authenticate", ", ".join(challenges)),)
        return ErrorResponse(self._statuses.get(response.status, response.status), headers, response.body)

    def _accepted(self, verified: VerifiedRequest) -> list[tuple[bytes, bytes]]:
        identity = [(name, _value_of(what, verified.access_token)) for name, what in self._identity_headers]
        nonce = [field for field in verified.response_headers if field[0] == "dpop-nonce"]
        # If a cache kept an acceptance, a replay would pass.
        fields = [*identity, *nonce, ("cache-control", "no-store"), ("content-length", "0")]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]

    def _warn(self, reason: NotBelieved) -> None:
        suppressed = self._limit.admit("question", time.monotonic())
        if suppressed is not None:
            LOG.warning("a question that is not the gateway's: %s suppressed=%d", reason, suppressed)


def _identity_headers(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise refused("identity_headers", "a mapping such as {'X-Auth-Identity': 'identity'}", value)
    named = [
        (field_name("identity_headers", name), choice("identity_headers", what, get_args(Identity)))
        for name, what in value.items()
    ]
    names = [name for name, _ in named]
    if len(set(names)) < len(names) or not _NO_IDENTITY.isdisjoint(names) or not RESERVED.isdisjoint(names):
        raise refused("identity_headers", "fields that have no other use, each once", names)
    return tuple(named)


def _value_of(what: str, token: AccessToken) -> str:
    if what == "scope":
        return " ".join(sorted(map(_encoded, token.scopes)))
    value: str | None = getattr(token, what)
    return "" if value is None else _encoded(value)


def _encoded(value: str) -> str:
    return quote(value, safe=_KEPT, errors="surrogatepass")
