"""Access tokens that are signed JWTs (RFC 9068): the steps of a verification, in their order."""

import copy
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

from dpop_middleware import _options as options
from dpop_middleware._log import shown, warn_of_plain_http
from dpop_middleware._request.request import MAX_TOKEN_SIZE
from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware._runtime import system_time
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.policy import SUPPORTED_ALGORITHMS, checked_algorithms
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW, AccessToken, token_hash
from dpop_middleware.tokens.cache import (
    MAX_CACHED_BYTES,
    MAX_CACHED_TOKENS,
    TAIL,
    BoundedCache,
    VerifiedToken,
    size_of,
)
from dpop_middleware.tokens.claims import (
    checked_required_claims,
    checked_token_types,
    claim_rules,
    judge_claims,
)
from dpop_middleware.tokens.fetch import Fetch
from dpop_middleware.tokens.issuer_keys import FetchOptions, issuer_keys
from dpop_middleware.tokens.jwks import VerificationKey
from dpop_middleware.tokens.remote_key_source import Lifetimes
from dpop_middleware.tokens.signed_token import (
    SignedToken,
    SigningKeys,
    not_a_jwt,
    parse_signed_token,
)

__all__ = ["JWTAccessTokenVerifier"]

_DAY = 86400.0
# Payloads up to this size may be read before the signature is verified: parsing them costs less than that.
_SHORT = 5461
_SIMPLE = 100
_STRUCTURE = (b"{", b"[", b",", b"\\")


class JWTAccessTokenVerifier:
    """Verifies the JWT access tokens of one issuer (RFC 9068 section 4).

    - `issuer`: the issuer identifier, an https URL; `iss` must equal it.
    - `audience`: one or several identifiers of this resource server; `aud` must hold one of them.
    - `jwks`: the issuer's JWK Set (a mapping) or its https URL; None discovers the URL from the issuer's
      metadata (RFC 8414, then OpenID Connect Discovery) at each fetch.
    - `algorithms`: the JWS algorithms that a token may use.
    - `token_types`: what the header's `typ` may name, in any case, with or without `application/` (RFC 7515
      section 4.1.9). For issuers that differ from RFC 9068 add `"JWT"`, or None for a token without `typ`;
      then other JWTs of the issuer, such as ID tokens, differ by their audience only.
    - `scope_claims`: the claims that hold scopes, as a string with spaces between or as an array.
    - `client_id_claims`: the claims to read the client's identifier from; the first one present counts.
    - `required_claims`: the claims that a token must have. Name fewer for an issuer that leaves some out;
      `iss`, `exp` and `aud` must stay.
    - `clock_skew`: seconds by which the issuer's clock may be ahead of or behind this server's.
    - `clock`: returns seconds since the epoch.
    - `insecure_http_hosts`: hosts that may be reached by plain http besides the loopback ones.
    - `max_cached_tokens`: how many verified tokens are remembered, each with its client's key, 0 for none.
      Each takes about 4.4 KB.
    - `max_cached_bytes`: how many bytes they may take in total.
    - `jwks_lifetime`: seconds after which fetched keys are fetched again; caching headers don't count.
    - `jwks_max_age`: seconds, at most a day, for which fetched keys are used while the issuer is down.
    - `jwks_cooldown`: seconds, at least 1, in which at most two fetches are made for keys that tokens name
      and the set lacks; such a key is remembered as missing for half of it. With more than 1.5, some requests
      are answered 503 while keys rotate.
    - `jwks_timeout`: seconds within which one fetch, discovery included, must end. `jwks_patience`: seconds
      for which a request waits for it.
    - `ssl_context`: for private CAs; it must check certificates and host names.
    - `jwks_proxy`: the http URL of an egress proxy for https URLs, or `"environment"` for `HTTPS_PROXY` and
      `NO_PROXY`; None uses none, whatever the environment says.
    - `jwks_headers`: header fields for the origin of `jwks`, or of `issuer` where `jwks` is None.
    - `fetch`: an async function from a URL to bytes, which fetches in place of these three. Its time and the
      size of its answer are bounded; it isn't checked that it checks certificates.

    It isn't checked whether a token was revoked. Raises ConfigurationError.
    """

    expiry_is_final = True
    """The `exp` of a signed token never changes."""

    def __init__(  # noqa: PLR0913 - configuration is keyword-only and flat
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks: Mapping[str, Any] | str | None = None,
        algorithms: Sequence[str] = SUPPORTED_ALGORITHMS,
        token_types: Sequence[str | None] = ("at+jwt", "application/at+jwt"),
        scope_claims: Sequence[str] = ("scope",),
        client_id_claims: Sequence[str] = ("client_id",),
        required_claims: Sequence[str] = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti"),
        clock_skew: float = TOKEN_CLOCK_SKEW,
        clock: Callable[[], float] = system_time,
        insecure_http_hosts: Collection[str] = (),
        max_cached_tokens: int = MAX_CACHED_TOKENS,
        max_cached_bytes: int = MAX_CACHED_BYTES,
        jwks_lifetime: float = 300,
        jwks_max_age: float = _DAY,
        jwks_cooldown: float = 1,
        jwks_timeout: float = 5,
        jwks_patience: float = 1,
        ssl_context: ssl.SSLContext | None = None,
        jwks_proxy: str | None = None,
        jwks_headers: Mapping[str, str] | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        hosts = checked_hosts(insecure_http_hosts)
        checked_url("issuer", issuer, insecure_http_hosts=hosts)
        self._algorithms = checked_algorithms(algorithms)
        self._token_types = checked_token_types(token_types)
        self._clock = options.clock(clock)
        self._rules = claim_rules(
            issuer=issuer,
            audience=audience,
            required=checked_required_claims(required_claims),
            scope_claims=scope_claims,
            client_id_claims=client_id_claims,
            clock_skew=clock_skew,
        )
        self._cache_bounds = {
            "max_entries": options.whole_number("max_cached_tokens", max_cached_tokens),
            "max_bytes": options.whole_number("max_cached_bytes", max_cached_bytes),
        }
        self._cache: BoundedCache[str, VerifiedToken] = BoundedCache(**self._cache_bounds)
        lifetime = options.seconds("jwks_lifetime", jwks_lifetime, minimum=1, maximum=_DAY)
        lifetimes = Lifetimes(
            lifetime=lifetime,
            max_age=options.seconds("jwks_max_age", jwks_max_age, minimum=lifetime, maximum=_DAY),
            cooldown=options.seconds("jwks_cooldown", jwks_cooldown, minimum=1, maximum=_DAY),
            timeout=options.seconds("jwks_timeout", jwks_timeout, minimum=0.1, maximum=60),
            patience=options.seconds("jwks_patience", jwks_patience, minimum=0.1, maximum=60),
        )
        fetch_options = FetchOptions(
            proxy=jwks_proxy, headers=jwks_headers, ssl_context=ssl_context, fetch=fetch
        )
        if isinstance(jwks, Mapping):
            fetch_options.check_none_is_set()
        self._signing_keys = SigningKeys()
        self._source = issuer_keys(
            jwks,
            issuer=issuer,
            lifetimes=lifetimes,
            clock=clock,
            insecure_http_hosts=hosts,
            fetch_options=fetch_options,
        )
        warn_of_plain_http(hosts)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self._rules.issuer,)

    @property
    def audiences(self) -> frozenset[str]:
        """The identifiers of this resource server: `aud` must hold one of them."""
        return self._rules.audiences

    @property
    def clock_skew(self) -> float:
        """Seconds for which a token is accepted after its `exp`, and before its `nbf` and `iat`."""
        return self._rules.clock_skew

    def among_several(self) -> Self:
        """Return a verifier with the same keys for a server of several issuers.

        The `identity` of its tokens names the issuer.
        """
        sibling = self._sibling()
        sibling._rules = self._rules._replace(names_issuer=True)
        return sibling

    def accepting_type(self, typ: str | None) -> Self:
        """Return a verifier with the same keys that accepts one more `typ`; None stands for no `typ`.

        Raises ConfigurationError for any other value.
        """
        sibling = self._sibling()
        sibling._token_types = checked_token_types((*self._token_types, typ))
        return sibling

    def _sibling(self) -> Self:
        sibling = copy.copy(self)
        sibling._cache = BoundedCache(**self._cache_bounds)
        return sibling

    async def verify(self, token: str) -> AccessToken:
        """Verify the signature and the claims of one token (RFC 9068 section 4).

        A token that was verified before costs a lookup; its times and its key are judged again.

        Raises `errors.InvalidToken` when it isn't valid here and `errors.Unavailable` when the issuer's keys
        can't be fetched within `jwks_patience`. It isn't checked who presents the token: compare `jkt` with
        the key of the proof.
        """
        if len(token) > MAX_TOKEN_SIZE or not token.isascii():
            raise not_a_jwt()
        since = time.monotonic()
        known = self._cache.get(token[-TAIL:])
        if known is not None and known.token_hash == token_hash(token):
            keys = self._source.current() or await self._source.load()
            if known.usable(keys, now=self._clock(), clock_skew=self._rules.clock_skew):
                return known.access_token
            self._cache.discard(token[-TAIL:])
        signed = parse_signed_token(token, token_types=self._token_types, algorithms=self._algorithms)
        key = await self._signer(signed, token, since)
        payload = signed.payload
        verified = judge_claims(
            payload,
            rules=self._rules,
            now=self._clock(),
            key_identity=key.identity,
            token_hash=token_hash(token),
        )
        self._cache.put(token[-TAIL:], verified, size=size_of(verified.access_token))
        return verified.access_token

    def key_ages(self) -> tuple[tuple[str, float], ...]:
        """Return the issuer and for how many seconds its keys have been held; empty without fetched ones."""
        age = self._source.age()
        return () if age is None else ((self._rules.issuer, age),)

    async def open(self) -> None:
        """Begin to fetch the issuer's keys in the background, and log errors."""
        self._source.open()

    async def health(self) -> IssuerKeysHealth:
        """Return the state of the issuer's keys, for readiness probes; waits for `jwks_patience` at most."""
        return await self._source.health()

    async def aclose(self) -> None:
        """Wait for a fetch under way, for a second at most; the verifier may be used again."""
        await self._source.aclose()

    async def _signer(self, signed: SignedToken, token: str, since: float) -> VerificationKey:
        """Return the issuer's key that signed the token, which came at `since`.

        Where the token names no key of the set, the set may be old, and a newer one is requested. None is
        requested after a bad signature under a key that the token names: a new key has a new name (OpenID
        Connect Core 10.1.1), and forged signatures must not cause fetches.
        """
        keys = self._source.current()
        if keys is None:
            self._check_worth_waiting(signed)
            keys = await self._source.load()
        candidates = keys.candidates(kid=signed.kid, algorithm=signed.algorithm.name)
        search = self._signing_keys.search(signed)
        key = search.among(candidates.keys)
        wanted = ""
        while key is None and self._source.renewable and not (candidates.named and candidates.keys):
            self._check_worth_waiting(signed)
            wanted = wanted or (token_hash(token) if candidates.keys else _name_of_key(signed))
            newer = await self._source.newer_than(keys, since=since, wanted=wanted)
            if newer is keys:
                break
            keys = newer
            candidates = keys.candidates(kid=signed.kid, algorithm=signed.algorithm.name)
            key = search.among(candidates.keys)
        if key is not None:
            return key
        if not candidates.keys:
            raise InvalidToken(
                "the issuer has no key that fits the access token",
                check=Check.TOKEN_KEY,
                expected=signed.algorithm.name,
                actual=keys.why_not(signed.kid) or shown(signed.kid),
            )
        raise search.failure(candidates.keys)

    def _check_worth_waiting(self, signed: SignedToken) -> None:
        """Raise InvalidToken for a token that no key could make acceptable, where that is cheap to find out.

        No request waits and nothing is fetched for a token of another issuer, or one that has expired.
        """
        if len(signed.encoded_payload) > _SHORT:
            return
        payload = signed.payload
        if sum(map(payload.count, _STRUCTURE)) <= _SIMPLE:
            judge_claims(payload, rules=self._rules, now=self._clock())


def _name_of_key(signed: SignedToken) -> str:
    """Return the digest to look for: the same for all tokens that name the same key."""
    return token_hash(ascii(f"{signed.algorithm.name} {signed.kid}"))
