"""Verifiers that consist of others: one for each kind of token, or one for each issuer.

    token -> three segments, or not -> the verifier of its kind
    token -> the `iss` that it names, unverified -> that issuer's verifier -> its keys, audience and rules

A token is verified by one of them, whatever comes of it. No verifier ever has the keys of another issuer, so
a key of A can't sign a token of B, whatever its `kid`. The verifier compares `iss` again, after the
signature. So a sender gains nothing by a payload in which another `iss` is found than the one at the top.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dpop_middleware import _options as options
from dpop_middleware._runtime import aclose_parts, open_parts
from dpop_middleware.errors import ConfigurationError, InvalidToken
from dpop_middleware.health import PartHealth, health_of_each
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW, AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import another_issuer
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.named_issuers import IssuerResolver, Limits, ResolvedIssuers, unverified_issuer
from dpop_middleware.tokens.optional_members import (
    asks_another_server,
    audiences_of,
    check_members,
    clock_skew_of,
    issuers_of,
    key_ages_of_all,
    may_ask_another_server,
)
from dpop_middleware.tokens.signed_token import has_three_segments

__all__ = ["BothHealth", "IssuersHealth", "JWTOrOpaqueVerifier", "MultiIssuerVerifier"]


class _Several:
    """What several verifiers promise together: what each of them does."""

    def __init__(self, verifiers: tuple[AccessTokenVerifier, ...]) -> None:
        self._verifiers = verifiers
        self._clock_skew = min(map(clock_skew_of, verifiers), default=TOKEN_CLOCK_SKEW)
        # `is_remote` says it of one token.
        self.remote = bool([one for one in verifiers if may_ask_another_server(one)])

    @property
    def audiences(self) -> frozenset[str]:
        """The identifiers of this resource server that tokens of each verifier may name."""
        known = list(map(audiences_of, self._verifiers))
        return frozenset.intersection(*known) if known else frozenset()

    @property
    def clock_skew(self) -> float:
        """Seconds for which every verifier accepts a token after its expiry."""
        return self._clock_skew

    def key_ages(self) -> tuple[tuple[str, float], ...]:
        """Return each issuer of signed tokens, and for how many seconds its keys have been held."""
        return key_ages_of_all(self._verifiers)

    async def open(self) -> None:
        """Open every verifier: those for JWTs begin to fetch their keys."""
        await open_parts(*self._verifiers)

    async def aclose(self) -> None:
        """Close every verifier, even if closing one of them fails."""
        await aclose_parts(*self._verifiers)


def _among_several(verifier: AccessTokenVerifier) -> AccessTokenVerifier:
    """Return a verifier whose tokens name their issuer, where `verifier` supports that; else `verifier`."""
    return verifier.among_several() if isinstance(verifier, JWTAccessTokenVerifier) else verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class BothHealth:
    """The current state of two verifiers: `ok` when both are; `error` is what is wrong, or None."""

    ok: bool
    jwt: PartHealth
    opaque: PartHealth
    error: str | None = None


class JWTOrOpaqueVerifier(_Several):
    """Verifies tokens of both kinds, each by its own verifier.

    - `jwt`: for tokens of three segments with dots between, whatever their content: a token that it refuses
      stays refused.
    - `opaque`: for all others, an `introspection.IntrospectionVerifier` for instance.

    The issuers of both are accepted. Where they differ, `identity` names the issuer: user "1" of one issuer
    is not user "1" of another. Proofs are remembered for as long as those of opaque tokens. Raises
    ConfigurationError.
    """

    def __init__(self, *, jwt: AccessTokenVerifier, opaque: AccessTokenVerifier) -> None:
        takes = "an AccessTokenVerifier"
        options.part("jwt", jwt, takes, fits=options.provides(jwt, "verify"))
        self._opaque = options.part("opaque", opaque, takes, fits=options.provides(opaque, "verify"))
        # A class derived from them may decrypt tokens first.
        knows_jwts_only = type(opaque) in (JWTAccessTokenVerifier, MultiIssuerVerifier)
        takes = "a verifier of opaque tokens, such as IntrospectionVerifier(…)"
        options.part("opaque", opaque, takes, fits=not knows_jwts_only)
        check_members(jwt)
        check_members(opaque)
        self._names_issuer = len(issuers_of(jwt)) != 1 or issuers_of(jwt) != issuers_of(opaque)
        self._jwt = _among_several(jwt) if self._names_issuer else jwt
        super().__init__((self._jwt, self._opaque))

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of both kinds of token, each once."""
        return tuple(dict.fromkeys(issuers_of(self._jwt) + issuers_of(self._opaque)))

    def is_remote(self, token: str) -> bool:
        """Whether another server is asked about this token."""
        return asks_another_server(self._of(token), token)

    async def verify(self, token: str) -> AccessToken:
        """Verify one token by the verifier of its kind only, and raise what that raises."""
        verified = await self._of(token).verify(token)
        if self._names_issuer and not verified.names_issuer:
            return replace(verified, names_issuer=True)
        return verified

    async def health(self) -> BothHealth:
        """Return the state of both, within 1.5 seconds."""
        jwt, opaque = await health_of_each(self._verifiers)
        errors = [one.error for one in (jwt, opaque) if one.error is not None]
        return BothHealth(ok=jwt.ok and opaque.ok, jwt=jwt, opaque=opaque, error="; ".join(errors) or None)

    def _of(self, token: str) -> AccessTokenVerifier:
        return self._jwt if has_three_segments(token) else self._opaque


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuersHealth:
    """The current state of several issuers: `ok` while tokens of one of them can be verified.

    `issuers` has the state of each verifier, by the first issuer that it names. `error` names those whose
    tokens can't be verified now, None where there are none.
    """

    ok: bool
    issuers: tuple[tuple[str, PartHealth], ...]
    error: str | None = None


class MultiIssuerVerifier(_Several):
    """Verifies the JWT access tokens of several issuers, each by a verifier of its own (RFC 9068 section 4).

    - `verifiers`: one for each issuer, with its audience, keys and rules: `JWTAccessTokenVerifier(…)` or
      `profiles.OKTA.verifier(…)`. A token is verified by that of its `iss`, never by another.
    - `resolver`: `async def (issuer) -> AccessTokenVerifier | None`, for tenants: it is called with any other
      issuer that a token names. That name is untrusted: look it up among the issuers that you trust, build no
      URL from it, and return None for all others. Return the same verifier each time, which holds the keys.
      You must close the verifiers that it returns.
    - `max_resolved`: how many issuers' verifiers are kept.
    - `resolved_lifetime`: seconds after which the resolver is asked again about a known issuer: until then an
      issuer that you removed is still trusted. `unknown_lifetime`: the same for an unknown one.
    - `resolver_timeout`: seconds within which the resolver must answer; after that, requests are answered
      503.

    `identity` of these tokens names the issuer: user "1" of one issuer is not user "1" of another. At most
    100 unknown issuers are looked up at once, and of made-up ones 100 per second; the excess is answered 503,
    and 401 where there are too many of those and most were made up. It isn't checked whether an issuer may
    speak for a user of another. Raises ConfigurationError.
    """

    def __init__(
        self,
        verifiers: Iterable[AccessTokenVerifier] = (),
        *,
        resolver: IssuerResolver | None = None,
        max_resolved: int = 1000,
        resolved_lifetime: float = 300,
        unknown_lifetime: float = 5,
        resolver_timeout: float = 1,
    ) -> None:
        self._by_issuer: dict[str, AccessTokenVerifier] = {}
        self._first_issuers: list[str] = []
        given = tuple(map(_among_several, _checked(verifiers)))
        for verifier in given:
            check_members(verifier)
            issuers = options.names("the verifier's issuers", issuers_of(verifier))
            self._first_issuers.append(issuers[0])
            for issuer in issuers:
                if issuer in self._by_issuer:
                    raise ConfigurationError(f"verifiers takes one for each issuer, not two for {issuer!r}")
                self._by_issuer[issuer] = verifier
        if resolver is None and not given:
            raise ConfigurationError("MultiIssuerVerifier takes verifiers or a resolver: neither is given")
        if resolver is not None:
            takes = "an asynchronous function of an issuer"
            options.part("resolver", resolver, takes, fits=options.is_asynchronous(resolver))
        limits = Limits(
            max_issuers=options.whole_number("max_resolved", max_resolved, minimum=1),
            lifetime=options.seconds("resolved_lifetime", resolved_lifetime, minimum=1, maximum=86400),
            unknown_lifetime=options.seconds("unknown_lifetime", unknown_lifetime, minimum=0, maximum=86400),
            timeout=options.seconds("resolver_timeout", resolver_timeout, minimum=0.1, maximum=10),
        )
        self._resolved = None if resolver is None else ResolvedIssuers(resolver, _among_several, limits)
        super().__init__(given)
        # A class with a `verify` of its own must say this itself.
        self.expiry_is_final = resolver is None and all(
            type(one) in (MultiIssuerVerifier, JWTAccessTokenVerifier) for one in (self, *given)
        )
        # A verifier that the resolver returns may ask another server.
        self.remote = self.remote or resolver is not None

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of the given verifiers; those that the resolver knows can't be listed."""
        return tuple(self._by_issuer)

    def is_remote(self, token: str) -> bool:
        """Whether another server is asked about this token, or the resolver about its issuer."""
        if not self.remote:
            return False
        try:
            issuer = unverified_issuer(token)
        except InvalidToken:
            return False
        verifier = self._by_issuer.get(issuer)
        if verifier is None and self._resolved is not None:
            if self._resolved.would_ask(issuer):
                return True
            verifier = self._resolved.held(issuer)
        return verifier is not None and asks_another_server(verifier, token)

    async def verify(self, token: str) -> AccessToken:
        """Verify one token by the verifier of the issuer that it names.

        Raises `errors.InvalidToken` and `errors.Unavailable`, as that verifier does.
        """
        issuer = unverified_issuer(token)
        verifier = self._by_issuer.get(issuer)
        if verifier is None and self._resolved is not None:
            verifier = await self._resolved.verifier(issuer)
        if verifier is None:
            resolvable = () if self._resolved is None else ("an issuer that the resolver knows",)
            raise another_issuer(issuer, (*self.issuers, *resolvable))
        verified = await verifier.verify(token)
        if verified.issuer != issuer:
            raise another_issuer(verified.issuer, issuer)
        return verified if verified.names_issuer else replace(verified, names_issuer=True)

    async def health(self) -> IssuersHealth:
        """Return the state of the given verifiers, within 1.5 seconds."""
        parts = await health_of_each(self._verifiers)
        issuers = tuple(zip(self._first_issuers, parts, strict=True))
        failing = [issuer for issuer, part in issuers if not part.ok]
        return IssuersHealth(
            ok=len(failing) < len(issuers) or not issuers,
            issuers=issuers,
            error=f"no token of {', '.join(failing)} can be verified" if failing else None,
        )


def _checked(verifiers: object) -> tuple[AccessTokenVerifier, ...]:
    listed: tuple[Any, ...] | None = tuple(verifiers) if isinstance(verifiers, Iterable) else None
    if listed is None or not all(options.provides(one, "verify") for one in listed):
        raise options.refused("verifiers", "a sequence of AccessTokenVerifiers", verifiers)
    return listed
