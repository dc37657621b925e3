"""The resource server: it is configured once, and gives a verdict on each request."""

import copy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, overload

from dpop_middleware import _options as options
from dpop_middleware._judge import verdicts
from dpop_middleware._judge.request import RequestVerification
from dpop_middleware._judge.requirements import NOTHING_REQUIRED, Requirements
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._runtime import Deferred, aclose_parts, open_parts, system_time
from dpop_middleware.errors import DPoPError
from dpop_middleware.events import EventSink, Reporter
from dpop_middleware.health import HealthCheck, ServerHealth
from dpop_middleware.nonces import NonceProvider, check_nonces, nonces_for
from dpop_middleware.policy import DPoPPolicy, checked_policy
from dpop_middleware.profiles import Profile, configured_verifier
from dpop_middleware.replay.store import ReplayKeyspace, ReplayStore
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.optional_members import audiences_of, check_members, clock_skew_of, issuers_of

if TYPE_CHECKING:
    from dpop_middleware import _resource_metadata
else:
    _resource_metadata = Deferred("dpop_middleware._resource_metadata")

__all__ = ["ResourceServer"]


class ResourceServer:
    """Judges requests to a protected resource by RFC 9449 sections 4.3 and 7.

    - `issuer`: the authorization server's issuer identifier (RFC 8414), or else `verifier`: your own
      `AccessTokenVerifier`. Exactly one of the two.
    - `resource`: this API's resource identifier, an https URL (RFC 9728).
    - `replay_store`: where presented proofs are remembered. `MemoryReplayStore()` is for a single process.
    - `replay_namespace`: servers with the same text and the same store share the proofs that are remembered,
      and their nonces. Two servers that must each judge one request, such as a gateway and the API behind it,
      need two; then only one of them may use nonces, since a proof has a single one (`ForwardAuth` is made
      for this). No other option matters here.
    - `audience`: the value, or one of several, that a token's `aud` must contain; `resource` by default.
    - `jwks`: a JWK Set, or its https URL; discovered from the issuer's metadata by default.
    - `token_clock_skew`: seconds, 0 to 300, by which the issuer's clock may differ from the server's, 15 by
      default: a token is accepted for this time after it expired.
    - `profile`: the form of the issuer's tokens, such as `profiles.KEYCLOAK`; RFC 9068 by default.
    - `public_url`: the URL or URLs by which clients call the API; the origin of `resource` by default. List
      only hosts that end at this application. Of several hosts `Host` selects one; several prefixes of one
      host are distinguished by the path, or by the server's root path where a proxy strips them.
    - `policy`: see `DPoPPolicy`. `nonces`: issues and checks nonces, where the policy asks for them.
    - `clock`: returns seconds since the epoch. `metadata`: published for clients (RFC 9728).
    - `on_event`: is called, synchronously, with an `events.AuthenticationEvent` for each decision.
    - `insecure_http_hosts`: hosts that may be reached and addressed by plain http, besides loopback ones.
    - `max_cached_tokens`, `max_cached_bytes`: how many verified tokens are remembered, each with its client's
      key, and how many bytes they may take; 0 for none. 10,000 and 64 MiB by default.

    A `verifier` has its own `audience`, `jwks`, `token_clock_skew`, `profile` and caches: set them only with
    `issuer`. Raises ConfigurationError. A proof covers method and URL, not the query, other header fields or
    the body.
    """

    @overload
    def __init__(
        self,
        *,
        issuer: str,
        resource: str,
        replay_store: ReplayStore,
        replay_namespace: str = "",
        audience: str | Sequence[str] | None = None,
        jwks: Mapping[str, Any] | str | None = None,
        token_clock_skew: float | None = None,
        max_cached_tokens: int | None = None,
        max_cached_bytes: int | None = None,
        profile: Profile | None = None,
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = ...,
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = ...,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        metadata: "_resource_metadata.ResourceMetadata | None" = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        verifier: AccessTokenVerifier,
        resource: str,
        replay_store: ReplayStore,
        replay_namespace: str = "",
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = ...,
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = ...,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        metadata: "_resource_metadata.ResourceMetadata | None" = None,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 - configuration is keyword-only and flat
        self,
        *,
        issuer: str | None = None,
        verifier: AccessTokenVerifier | None = None,
        resource: str,
        replay_store: ReplayStore,
        replay_namespace: str = "",
        audience: str | Sequence[str] | None = None,
        jwks: Mapping[str, Any] | str | None = None,
        token_clock_skew: float | None = None,
        max_cached_tokens: int | None = None,
        max_cached_bytes: int | None = None,
        profile: Profile | None = None,
        public_url: str | Sequence[str] | None = None,
        policy: DPoPPolicy = DPoPPolicy(),
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = system_time,
        on_event: EventSink | None = None,
        insecure_http_hosts: Collection[str] = (),
        metadata: "_resource_metadata.ResourceMetadata | None" = None,
    ) -> None:
        hosts = insecure_http_hosts
        origin = checked_url("resource", resource, insecure_http_hosts=hosts).origin
        checked_policy(policy)
        options.clock(clock)
        urls = PublicURLs(origin if public_url is None else public_url, insecure_http_hosts=hosts)
        self._resource = resource
        made = {
            "audience": audience,
            "jwks": jwks,
            "profile": profile,
            "token_clock_skew": token_clock_skew,
            "max_cached_tokens": max_cached_tokens,
            "max_cached_bytes": max_cached_bytes,
        }
        verifier = configured_verifier(
            verifier, issuer=issuer, resource=resource, given=made, clock=clock, insecure_http_hosts=hosts
        )
        check_members(verifier)
        self.published_metadata: _resource_metadata.PublishedMetadata | None = None
        if metadata is not None:
            self.published_metadata = _resource_metadata.published(
                metadata, resource, origin=origin, urls=urls, audiences=audiences_of(verifier)
            )
        self._token_clock_skew = clock_skew_of(verifier)
        self.verification = RequestVerification(
            verifier=verifier,
            proofs=ProofVerification(
                store=replay_store,
                keyspace=ReplayKeyspace(options.namespace("replay_namespace", replay_namespace)),
                public_urls=urls,
                nonces=nonces_for(nonces, purpose="resource server", namespace=replay_namespace),
            ),
            clock=clock,
            policies=(policy,),
        )
        self.issues_nonces = self.verification.proofs.nonces is not None  # a sibling's response may have one
        self._health = HealthCheck(verifier=verifier, store=replay_store)
        self.reporter = Reporter(on_event)
        check_nonces(policy, self.verification.proofs.nonces)
        self._policy = policy

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
        return issuers_of(self.verification.verifier)

    def with_policy(self, **changes: Any) -> "ResourceServer":
        """Return the same server, with its caches, store and verifier, under a changed policy.

        `changes` are fields of `DPoPPolicy`. Behind the middleware such a server can only be stricter than
        the middleware's own. Make siblings before the first request, the same ones in every worker: a proof
        is remembered for as long as any existing policy could accept it. Raises ConfigurationError.
        """
        for name in changes.keys() - DPoPPolicy.__dataclass_fields__.keys():
            raise options.refused("with_policy", "fields of DPoPPolicy", name)
        policy = replace(self._policy, **changes)
        check_nonces(policy, self.verification.proofs.nonces)
        self.verification.add(policy)
        sibling = copy.copy(self)
        sibling._policy = policy
        return sibling

    def is_sibling_of(self, other: "ResourceServer") -> bool:
        """Whether both are the same server with different policies."""
        return self.verification is other.verification

    async def authenticate(
        self, request: ResourceRequest, *, scopes: Collection[str] = ()
    ) -> verdicts.VerifiedRequest:
        """Do `verify`, then `authorize`; the token must grant all `scopes`. Raises `errors.DPoPError`."""
        requirements = Requirements(scopes=scopes) if scopes else NOTHING_REQUIRED
        return self.authorize(await self.verify(request), requirements)

    async def verify(self, request: ResourceRequest) -> verdicts.Authentication:
        """Verify the access token and the proof of one request, and mark the proof as used.

        Returns the evidence, which can be given to `authorize` several times; scopes are not checked. Raises
        `errors.DPoPError`. A second call with the same request is a replay.
        """
        started = time.perf_counter()
        judged = await self.verification.judge(request, self._policy, started=started)
        if isinstance(judged, DPoPError):
            self.report(judged, request, started=started)
            try:
                raise judged
            finally:
                del judged  # its traceback holds this frame
        return judged

    def report(self, error: DPoPError, request: ResourceRequest, *, started: float) -> None:
        """Report a refusal to `on_event` and to the log; `started` is from `time.perf_counter`."""
        self.reporter.failed(error, request, duration=time.perf_counter() - started)

    def authorize(
        self,
        authentication: verdicts.Authentication,
        requirements: Requirements = NOTHING_REQUIRED,
        *,
        recalled: bool = False,
        reports: bool = True,
    ) -> verdicts.VerifiedRequest:
        """Judge whether a verified request has what a route requires.

        - `authentication`: the evidence that `verify` returned, here or at a sibling. If it was verified
          under another policy, this policy judges it too; the replay store isn't asked again.
        - `requirements`: what the route requires of the token.
        - `recalled`: whether the request was authorized before, so that its acceptance was reported already;
          `reports`: whether an acceptance is reported here, not by the caller.

        Raises `errors.DPoPError`.
        """
        started = time.perf_counter() if recalled else authentication.started
        try:
            verified = self.verification.authorize(authentication, requirements, self._policy)
        except DPoPError as error:
            self.report(error, authentication.request, started=started)
            raise
        if reports and not recalled and self.reporter.wants_acceptance:
            self.reporter.accepted(authentication, duration=time.perf_counter() - started)
        return verified

    def error_response(
        self, error: DPoPError, request: ResourceRequest | None = None
    ) -> verdicts.ErrorResponse:
        """Return the response to `error` (RFC 9449 section 7.1); `request` selects one of several hosts."""
        return verdicts.error_response(error, self._policy, metadata=self.published_metadata, request=request)

    def nonce_headers(self) -> verdicts.Headers:
        """Return the fields that send a nonce to a client that has shown no proof (RFC 9449 section 8.2).

        For a response without a verdict. This server accepts the nonce. Raises `errors.Unavailable` if none
        can be issued now, and ConfigurationError for a server without `nonces`.
        """
        return verdicts.nonce_headers(self.verification.proofs.first_nonce(self.verification.clock()))

    def seconds_left(self, access_token: AccessToken) -> float:
        """Return the seconds until `access_token` expires, then those until the clock skew has passed."""
        left = access_token.expires_at - self.verification.clock()
        return left if left > 0 else max(0.0, left + self._token_clock_skew)

    async def open(self) -> None:
        """Fetch the issuer's keys and let the store check its server, in the background.

        Problems are logged. Raises ConfigurationError for a dependency with nonces and no middleware.
        """
        self.verification.check_nonce_delivery()
        await open_parts(self.verification.verifier, self.verification.proofs.store)

    async def health(self) -> ServerHealth:
        """Return the health of keys and store, at most a second old, within two seconds; never raises."""
        return await self._health.health()

    async def aclose(self) -> None:
        """Close the verifier and the replay store; both connect again if they are used again."""
        await aclose_parts(self.verification.verifier, self.verification.proofs.store)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()
