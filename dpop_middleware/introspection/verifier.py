"""Access tokens that only their issuer can read: the options of a verifier, and the order of its steps.

cached verdict -> one question for all requests with the token -> answer -> verdict
"""

import asyncio
import secrets
import ssl
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from dpop_middleware import _options as options
from dpop_middleware._log import warn_of_plain_http
from dpop_middleware._request.secure_url import checked_endpoint, checked_hosts
from dpop_middleware._runtime import system_time
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.introspection._answer import (
    AnswerRules,
    SignedAnswers,
    judge_answer,
    read_answer,
    required_of_an_answer,
)
from dpop_middleware.introspection._endpoint import Answer, Endpoint, EndpointOptions
from dpop_middleware.introspection._questions import IntrospectionHealth, NoAnswer, Outlook, Questions
from dpop_middleware.introspection._verdicts import Verdict, Verdicts, digest_of
from dpop_middleware.introspection.client_authentication import BoundToken, ClientAuthentication
from dpop_middleware.policy import SUPPORTED_ALGORITHMS, checked_algorithms
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW, AccessToken
from dpop_middleware.tokens.admission import Admission
from dpop_middleware.tokens.cache import MAX_CACHED_BYTES
from dpop_middleware.tokens.claims import claim_rules
from dpop_middleware.tokens.connections import checked_proxy, checked_ssl_context
from dpop_middleware.tokens.issuer_keys import FetchOptions, check_issuer, issuer_keys
from dpop_middleware.tokens.remote_key_source import Lifetimes

__all__ = ["IntrospectionHealth", "IntrospectionVerifier"]

_JSON: Final = "application/json"
_LONGEST_LIFETIME: Final = 3600.0
# For this many seconds after an answer the endpoint counts as working.
_RECENT: Final = 10.0
_CANNOT_BE_KNOWN: Final = "the access token can't be looked up now"


class IntrospectionVerifier:
    """Asks the issuer what an access token stands for (RFC 7662, RFC 9449 section 6.2).

    - `issuer`: the issuer identifier, an https URL. An answer's `iss`, if it has one, must equal it.
    - `audience`: one or several identifiers of this resource server; `aud` must hold one of them.
    - `client_authentication`: how this server authenticates: `ClientSecretBasic`, `ClientSecretPost`,
      `PrivateKeyJWT` or `BoundToken`.
    - `endpoint`: the introspection endpoint's https URL; None takes it from the issuer's metadata (RFC 8414).
    - `accept_missing_audience`: accept a token without `aud`, for an endpoint that calls only tokens for this
      client active. An `aud` that is present must still fit.
    - `required_claims`: what else an answer must say. Without `token_type`, some servers' refresh tokens pass
      as access tokens; without `exp`, a token ends when the endpoint says so.
    - `scope_claims`, `client_id_claims`: as for `JWTAccessTokenVerifier`.
    - `signed_answers`: accept only answers that the issuer signed for this server (RFC 9701), by a key of
      `jwks` (a JWK Set, its https URL, or None for discovery) and one of `algorithms`. Encrypted answers
      aren't supported.
    - `clock_skew`: seconds by which the issuer's clock may differ from this server's. `clock`: returns
      seconds since the epoch.
    - `active_lifetime`: seconds for which an answer "active" counts, until `exp` at most: a revoked token is
      still accepted that long. `inactive_lifetime`: seconds for which "not active" counts.
    - `timeout`: seconds within which one question must be answered; `patience`: seconds for which a request
      waits.
    - `max_connections`: how many connections each event loop keeps, at least 2; unknown tokens have half.
    - `max_unknown_per_second`: how many questions per second may be about tokens that turn out to be made up.
    - `max_cached_tokens`, `max_cached_bytes`: how many active tokens are remembered.
    - `insecure_http_hosts`: hosts that may be reached by plain http, besides loopback ones.
    - `ssl_context`: for private CAs or a client certificate; it must check certificates and host names.
    - `proxy`: the http URL of an egress proxy for https URLs, or `"environment"`, as for
      `JWTAccessTokenVerifier(jwks_proxy=…)`.

    Redirects aren't followed. Raises ConfigurationError.
    """

    remote = True
    """The endpoint is asked only for requests whose proof is good; `is_remote` says it of one token."""

    def __init__(  # noqa: PLR0913 - configuration is keyword-only and flat
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        client_authentication: ClientAuthentication,
        endpoint: str | None = None,
        accept_missing_audience: bool = False,
        required_claims: Sequence[str] = ("exp", "token_type"),
        scope_claims: Sequence[str] = ("scope",),
        client_id_claims: Sequence[str] = ("client_id",),
        signed_answers: bool = False,
        jwks: Mapping[str, Any] | str | None = None,
        algorithms: Sequence[str] = SUPPORTED_ALGORITHMS,
        clock_skew: float = TOKEN_CLOCK_SKEW,
        clock: Callable[[], float] = system_time,
        active_lifetime: float = 30,
        inactive_lifetime: float = 5,
        timeout: float = 2,
        patience: float = 1,
        max_connections: int = 20,
        max_unknown_per_second: int = 50,
        max_cached_tokens: int = 10_000,
        max_cached_bytes: int = MAX_CACHED_BYTES,
        insecure_http_hosts: Collection[str] = (),
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        hosts = checked_hosts(insecure_http_hosts)
        check_issuer(issuer, insecure_http_hosts=hosts)
        if not isinstance(client_authentication, ClientAuthentication):
            raise ConfigurationError(
                "client_authentication takes a ClientSecretBasic, ClientSecretPost, PrivateKeyJWT or "
                f"BoundToken, not a {type(client_authentication).__name__}"
            )
        if endpoint is not None:
            checked_endpoint("endpoint", endpoint, insecure_http_hosts=hosts)
        self._clock = options.clock(clock)
        self._rules = AnswerRules(
            claims=claim_rules(
                issuer=issuer,
                audience=audience,
                required=required_of_an_answer(required_claims),
                scope_claims=scope_claims,
                client_id_claims=client_id_claims,
                clock_skew=clock_skew,
            ),
            accept_missing_audience=options.flag("accept_missing_audience", accept_missing_audience),
        )
        self._timeout = options.seconds("timeout", timeout, minimum=0.1, maximum=60)
        self._patience = options.seconds("patience", patience, minimum=0.1, maximum=60)
        context, through = checked_ssl_context(ssl_context), checked_proxy("proxy", proxy)
        self._signed: SignedAnswers | None = None
        if options.flag("signed_answers", signed_answers):
            named = (
                () if isinstance(client_authentication, BoundToken) else (client_authentication.client_id,)
            )
            self._signed = SignedAnswers(
                keys=issuer_keys(
                    jwks,
                    issuer=issuer,
                    lifetimes=Lifetimes(patience=self._patience),
                    clock=clock,
                    insecure_http_hosts=hosts,
                    fetch_options=FetchOptions(ssl_context=context, proxy=proxy),
                ),
                issuer=issuer,
                audiences=self.audiences.union(named),
                algorithms=checked_algorithms(algorithms),
                clock_skew=clock_skew,
                clock=clock,
            )
        elif jwks is not None:
            raise ConfigurationError("jwks is for answers that are signed: set signed_answers=True too")
        lifetime = partial(options.seconds, minimum=0, maximum=_LONGEST_LIFETIME)
        self._verdicts = Verdicts(
            active_lifetime=lifetime("active_lifetime", active_lifetime),
            inactive_lifetime=lifetime("inactive_lifetime", inactive_lifetime),
            max_tokens=options.whole_number("max_cached_tokens", max_cached_tokens),
            max_bytes=options.whole_number("max_cached_bytes", max_cached_bytes),
            clock=clock,
        )
        self._admission = Admission(
            per_second=options.whole_number("max_unknown_per_second", max_unknown_per_second, minimum=1)
        )
        self._outlook = Outlook()
        self._endpoint = EndpointOptions(
            issuer=issuer,
            url=endpoint,
            authentication=client_authentication,
            accept=_JSON if self._signed is None else self._signed.media_type,
            clock=clock,
            insecure_http_hosts=hosts,
            ssl_context=context or ssl.create_default_context(),
            max_connections=options.whole_number("max_connections", max_connections, minimum=2),
            proxy=through,
        )
        self._questions = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Questions]()
        warn_of_plain_http(hosts)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self._rules.claims.issuer,)

    @property
    def audiences(self) -> frozenset[str]:
        """The identifiers of this resource server: `aud` must hold one of them."""
        return self._rules.claims.audiences

    @property
    def clock_skew(self) -> float:
        """Seconds for which a token is accepted after its `exp`, and before its `nbf` and `iat`."""
        return self._rules.claims.clock_skew

    def is_remote(self, token: str) -> bool:
        """Whether the endpoint is asked about this token now.

        False where an earlier answer counts, where the token is malformed, where too many tokens wait already
        and where the endpoint has failed: then `verify` answers at once.
        """
        digest = digest_of(token)
        return digest is not None and self._verdicts.get(digest) is None and self._asking().would_ask(digest)

    async def verify(self, token: str) -> AccessToken:
        """Return what a token stands for, from an answer that is recent enough or from a new one.

        Raises `errors.InvalidToken` when it isn't active or isn't for this server, and `errors.Unavailable`
        when that can't be known now, after at most `patience` seconds. It isn't checked who presents the
        token: compare `jkt` with the key of the proof.
        """
        digest = digest_of(token)
        if digest is None:
            raise InvalidToken("the access token is too long, or isn't ASCII", check=Check.TOKEN_FORMAT)
        verdict: Verdict | NoAnswer | None = self._verdicts.get(digest)
        if verdict is None:
            verdict = await self._asking().ask(token, digest)
        if isinstance(verdict, NoAnswer):
            raise self._unknown(verdict)
        return verdict.access_token()

    async def open(self) -> None:
        """Begin to find the endpoint, and to fetch keys for signed answers; errors are logged."""
        if self._signed is not None:
            self._signed.keys.open()
        self._asking().open()

    async def health(self) -> IntrospectionHealth:
        """Return the endpoint's state, for readiness probes; it waits for `patience` at most.

        If it gave no usable answer in the last ten seconds, it is asked about a token that nobody issued.
        """
        questions = self._asking()
        error: str | None = None
        if time.monotonic() - self._outlook.answered > _RECENT or self._outlook.error is not None:
            error = await questions.probe(secrets.token_urlsafe(32))
        keys = None if self._signed is None else await self._signed.keys.health()
        age = time.monotonic() - self._outlook.answered
        return IntrospectionHealth(
            ok=error is None and (keys is None or keys.ok),
            endpoint=questions.url,
            age=age if age < float("inf") else None,
            error=error or (None if keys is None else keys.error),
            keys=keys,
        )

    async def aclose(self) -> None:
        """Cancel the questions of this event loop, close its connections; the verifier may be used again."""
        questions = self._questions.pop(asyncio.get_running_loop(), None)
        if questions is not None:
            await questions.aclose()
        if self._signed is not None:
            await self._signed.keys.aclose()

    def _asking(self) -> Questions:
        loop = asyncio.get_running_loop()
        questions = self._questions.get(loop)
        if questions is None:
            self._forget_closed_loops()
            questions = self._questions[loop] = Questions(
                Endpoint(self._endpoint),
                self._judge,
                verdicts=self._verdicts,
                admission=self._admission,
                outlook=self._outlook,
                places=self._endpoint.max_connections // 2,
                timeout=self._timeout,
                patience=self._patience,
            )
        return questions

    def _forget_closed_loops(self) -> None:
        """Let go of connections of loops that ended without `aclose`: each holds its loop, and so itself."""
        loops = [loop for known in self._questions.keyrefs() if (loop := known()) is not None]
        for closed in [loop for loop in loops if loop.is_closed()]:
            self._questions.pop(closed, None)

    async def _judge(self, answer: Answer) -> AccessToken:
        said = await read_answer(
            answer.media_type, answer.body, accept=self._endpoint.accept, signed=self._signed
        )
        return judge_answer(said, rules=self._rules, now=self._clock())

    def _unknown(self, why: NoAnswer) -> Unavailable | InvalidToken:
        if why.of_made_up and not self._admission.may_be_unavailable(time.monotonic()):
            return InvalidToken(_CANNOT_BE_KNOWN, check=Check.TOKEN_ACTIVE, actual=why.reason)
        return Unavailable(
            _CANNOT_BE_KNOWN, retry_after=why.retry_after, check=Check.TOKEN_ACTIVE, actual=why.reason
        )
