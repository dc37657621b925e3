"""The resource server as its users hold it: configured once, asked for a verdict on each request."""

import copy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, overload

from dpop_middleware.challenges import ErrorResponse, error_response, nonce_headers
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.events import EventSink, Reporter
from dpop_middleware.known_clients import MAX_KNOWN_BYTES, MAX_KNOWN_CLIENTS, KnownClients
from dpop_middleware.lifecycle import aclose_parts, open_part
from dpop_middleware.nonces import NonceProvider, check_nonces, nonces_for
from dpop_middleware.once import RequestMemory
from dpop_middleware.policy import DPoPPolicy, PolicyFamily, provides
from dpop_middleware.replay.store import ReplayKeyspace, ReplayStore
from dpop_middleware.request import ResourceRequest
from dpop_middleware.requirements import Requirements
from dpop_middleware.secure_url import checked_hosts, checked_url
from dpop_middleware.target import PublicURLs
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.options import checked_clock, checked_names, warn_of_plain_http
from dpop_middleware.verdicts import Authentication, VerifiedRequest
from dpop_middleware.verification import RequestVerification

__all__ = ["ResourceServer"]

_NOTHING_REQUIRED = Requirements()


class ResourceServer:
    """Judges requests to a protected resource by RFC 9449 sections 4.3 and 7.

    - `issuer`: the authorization server's issuer identifier (RFC 8414), or else `verifier`: your own
      `AccessTokenVerifier`. Exactly one of the two.
    - `resource`: this API's resource identifier, an https URL (RFC 9728).
    - `replay_store`: where presented proofs are remembered. `MemoryReplayStore()` is for a single process.
    - `audience`: what a token's `aud` must name, one of several; `resource` by default. With `issuer` only.
    - `jwks`: a JWK Set, or its https URL; discovered from the issuer's metadata by default. With `issuer`
      only.
    - `public_url`: the URL or URLs by which clients call the API; the origin of `resource` by default. List
      only hosts that end at this application.
    - `policy`: see `DPoPPolicy`. `nonces`: issues and checks nonces, where the policy asks for them.
    - `clock`: returns seconds since the epoch.
    - `on_event`: is called, synchronously, with an `events.AuthenticationEvent` for each decision.
    - `insecure_http_hosts`: hosts that may be reached and addressed by plain http, besides loopback ones.
    - `max_known_clients`, `max_known_bytes`: how many clients' proof headers are remembered, 0 for none.

    Raises ConfigurationError. A proof covers method and URL: the query, the other header fields and the body
    of a request are not protected by it.
    """

    @overload
    def __init__(
        self,
        *,
        issuer: str,
        resource: str,
        replay_store: ReplayStore,
        audience: str | Sequence[str] | None = None,
        jwks: Mapping[str, Any] | str | None = None,
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = ...,
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = ...,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        max_known_clients: int = ...,
        max_known_bytes: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        verifier: AccessTokenVerifier,
        resource: str,
        replay_store: ReplayStore,
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = ...,
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = ...,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        max_known_clients: int = ...,
        max_known_bytes: int = ...,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 - configuration is keyword-only and flat
        self,
        *,
        issuer: str | None = None,
        verifier: AccessTokenVerifier | None = None,
        resource: str,
        replay_store: ReplayStore,
        audience: str | Sequence[str] | None = None,
        jwks: Mapping[str, Any] | str | None = None,
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = DPoPPolicy(),
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = time.time,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        max_known_clients: int = MAX_KNOWN_CLIENTS,
        max_known_bytes: int = MAX_KNOWN_BYTES,
    ) -> None:
        origin = checked_url("resource", resource, insecure_http_hosts=insecure_http_hosts).origin
        one = resource if audience is None else audience
        audiences = checked_names("audience", (one,) if isinstance(one, str) else one)
        if not isinstance(policy, DPoPPolicy):
            raise ConfigurationError("policy takes a DPoPPolicy: DPoPPolicy(nonce='required')")
        checked_clock(clock)
        self._resource = resource
        if verifier is None:
            if issuer is None:
                raise ConfigurationError(
                    "ResourceServer takes exactly one of issuer and verifier: none is given"
                )
            verifier = JWTAccessTokenVerifier(
                issuer=issuer,
                audience=audiences,
                jwks=jwks,
                clock_skew=policy.clock_skew,
                clock=clock,
                insecure_http_hosts=insecure_http_hosts,
            )
        elif not provides(verifier, "verify"):
            raise ConfigurationError("verifier takes an AccessTokenVerifier: JWTAccessTokenVerifier(…)")
        elif issuer is not None or audience is not None or jwks is not None:
            raise ConfigurationError(
                "issuer, audience and jwks make a verifier: leave them out, or leave out verifier"
            )
        else:
            # A verifier that is made here has said so.
            warn_of_plain_http(checked_hosts(insecure_http_hosts))
        self._verification = RequestVerification(
            verifier=verifier,
            store=replay_store,
            keyspace=ReplayKeyspace("resource server", resource, *sorted(set(audiences))),
            public_urls=PublicURLs(
                origin if public_url is None else public_url, insecure_http_hosts=insecure_http_hosts
            ),
            nonces=nonces_for(nonces, purpose="resource server", server=resource),
            clock=clock,
            known_clients=KnownClients(max_clients=max_known_clients, max_bytes=max_known_bytes),
        )
        self._reporter = Reporter(on_event)
        check_nonces(policy, self._verification.nonces)
        self._policy = policy
        self._family = PolicyFamily(policy)

    @property
    def policy(self) -> DPoPPolicy:
        """The policy by which this server judges."""
        return self._policy

    @property
    def resource(self) -> str:
        """The resource identifier (RFC 9728)."""
        return self._resource

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose access tokens are accepted."""
        return self._verification.verifier.issuers

    @property
    def issues_nonces(self) -> bool:
        """Whether a response of this server or a sibling may carry a nonce."""
        return self._verification.nonces is not None

    def with_policy(self, **changes: Any) -> "ResourceServer":
        """Return the same server, with its caches, store and verifier, under a changed policy.

        `changes` are fields of `DPoPPolicy`. Behind the middleware such a server can only be stricter than
        the middleware's own. Make siblings before the first request, the same ones in every worker: a proof
        is remembered for as long as the policies that exist could accept it. Raises ConfigurationError.
        """
        try:
            policy = replace(self._policy, **changes)
        except TypeError as error:
            raise ConfigurationError(f"with_policy takes fields of DPoPPolicy: {error}") from error
        check_nonces(policy, self._verification.nonces)
        self._family.add(policy)
        sibling = copy.copy(self)
        sibling._policy = policy
        return sibling

    def is_sibling_of(self, other: "ResourceServer") -> bool:
        """Whether the two are one server under two policies."""
        return self._family is other._family

    async def authenticate(
        self,
        request: ResourceRequest,
        *,
        scopes: Collection[str] = (),
        requirements: Requirements = _NOTHING_REQUIRED,
        memory: RequestMemory | None = None,
    ) -> VerifiedRequest:
        """Judge one request; `scopes` must all be granted by its token.

        `requirements` are what else the route asks of the token. With a `memory`, a request that this
        server or a sibling judged before isn't verified again; what is judged again are its scopes, and a
        policy that differs.

        Raises `errors.DPoPError`, which `error_response` renders. A proof is used up by the first call that
        succeeds without a memory.
        """
        if scopes:
            requirements = requirements.with_scopes(scopes)
        started = time.perf_counter()
        if memory is None:
            authentication, recalled = await self._verify(request, started), False
        else:
            authentication, recalled = await self._verify_once(request, started, memory)
        try:
            verified = self._authorize(authentication, requirements)
        except DPoPError as error:
            self._reporter.failed(error, request, duration=time.perf_counter() - started)
            raise
        if not recalled and self._reporter.wants_acceptance:
            self._reporter.accepted(
                request,
                scheme=authentication.scheme,
                jkt=authentication.access_token.jkt,
                client_id=authentication.access_token.client_id,
                duration=time.perf_counter() - started,
            )
        return verified

    def error_response(self, error: DPoPError) -> ErrorResponse:
        """Return the response to an error that `authenticate` raised (RFC 9449 section 7.1)."""
        return error_response(error, self._policy)

    def seconds_left(self, access_token: AccessToken) -> float:
        """Return for how many seconds `access_token` is still good.

        That is until it expires; for a token that was let in after that, until `clock_skew` is used up.
        """
        left = access_token.expires_at - self._verification.clock()
        return left if left > 0 else max(0.0, left + self._policy.clock_skew)

    async def open(self) -> None:
        """Let the replay store look at its server now, in the background; requests connect without this."""
        await open_part(self._verification.store)

    async def aclose(self) -> None:
        """Close the verifier and the replay store; both connect again if they are used again."""
        await aclose_parts(self._verification.verifier, self._verification.store)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _verify(self, request: ResourceRequest, started: float) -> Authentication:
        try:
            return await self._verification.verify(request, self._policy, self._family)
        except DPoPError as error:
            self._reporter.failed(error, request, duration=time.perf_counter() - started)
            raise

    async def _verify_once(
        self, request: ResourceRequest, started: float, memory: RequestMemory
    ) -> tuple[Authentication, bool]:
        """Return the evidence, and whether `memory` had it already; what it recalls is not reported again."""
        async with memory.lock:
            authentication = memory.recall(self._family, request, self._policy)
            if authentication is not None:
                return authentication, True
            try:
                authentication = await self._verify(request, started)
            except DPoPError as error:
                memory.remember(self._family, request, self._policy, error)
                raise
            memory.remember(self._family, request, self._policy, authentication)
            return authentication, False

    def _authorize(self, authentication: Authentication, requirements: Requirements) -> VerifiedRequest:
        token = authentication.access_token
        try:
            if authentication.policy is not self._policy:
                self._verification.judge_again(authentication, self._policy)
            requirements.check(token, now=authentication.now)
            nonce = None
            if authentication.proof is not None:
                nonce = self._verification.next_nonce(authentication.nonce, self._policy, authentication.now)
        except DPoPError as error:
            error.scheme, error.jkt, error.client_id = authentication.scheme, token.jkt, token.client_id
            if authentication.proof is not None and error.nonce is None:
                error.nonce = self._verification.offered_nonce(
                    authentication.nonce, self._policy, authentication.now
                )
            raise
        return VerifiedRequest(token, authentication.proof, nonce_headers(nonce) if nonce else ())
