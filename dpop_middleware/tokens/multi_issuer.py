"""Access tokens of several issuers: only the `iss` of a token says which verifier verifies it.

    token -> the `iss` that it names, unverified -> that issuer's verifier -> its keys, audience and rules

No verifier ever has the keys of another issuer, so a key of A can't sign a token of B, whatever its `kid`.
The verifier compares `iss` again, after the signature. So a sender gains nothing by a payload in which
another `iss` is found than the one at the top. The payload is searched at C speed, not parsed.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from dpop_middleware import _options as options
from dpop_middleware._request.request import MAX_TOKEN_SIZE
from dpop_middleware._runtime import aclose_parts, open_parts
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidToken
from dpop_middleware.health import PartHealth, health_of_each
from dpop_middleware.jose import JOSEError, base64url, compact
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW, AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import another_issuer
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.optional_members import (
    asks_another_server,
    audiences_of_all,
    check_members,
    clock_skew_of,
    key_ages_of_all,
    may_ask_another_server,
)
from dpop_middleware.tokens.resolved_issuers import IssuerResolver, Limits, ResolvedIssuers
from dpop_middleware.tokens.signed_token import not_a_jwt

__all__ = ["IssuersHealth", "MultiIssuerVerifier", "unverified_issuer"]

# Within a JSON string each quote has a backslash before it, so this finds only members, at any depth.
# A name has at most 512 characters, 128 of them escaped: one that has more of either isn't read to its end.
_ISS: Final = re.compile(rb'"iss"\s*:\s*("[^"\\]{0,512}+(?:\\.[^"\\]{0,517}+){0,128}+")')
# Possessive, and a string without an end is taken to the end of the payload: no octet is read twice.
_STRING: Final = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
_URL: Final = re.compile(r"[\x21-\x7e]{1,512}")
# Limits for a payload that names several issuers, in `act` for instance.
_MOST_QUOTES: Final = 1000
_MOST_ESCAPES: Final = 300
_MOST_ISSUERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuersHealth:
    """The current state of several issuers: `ok` while tokens of one of them can be verified.

    `issuers` has the state of each verifier, by the first issuer that it names. `error` names those whose
    tokens can't be verified now, None where there are none.
    """

    ok: bool
    issuers: tuple[tuple[str, PartHealth], ...]
    error: str | None = None


class MultiIssuerVerifier:
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
        self._verifiers = tuple(_among_several(verifier) for verifier in _checked(verifiers))
        for verifier in self._verifiers:
            check_members(verifier)
            for issuer in options.names("the verifier's issuers", verifier.issuers):
                if issuer in self._by_issuer:
                    raise ConfigurationError(f"verifiers takes one for each issuer, not two for {issuer!r}")
                self._by_issuer[issuer] = verifier
        if resolver is None and not self._verifiers:
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
        self._clock_skew = min(map(clock_skew_of, self._verifiers), default=TOKEN_CLOCK_SKEW)
        # A class with a `verify` of its own must say this itself.
        self.expiry_is_final = resolver is None and all(
            type(one) in (MultiIssuerVerifier, JWTAccessTokenVerifier) for one in (self, *self._verifiers)
        )
        # A verifier that the resolver returns may ask another server; `is_remote` says it of one token.
        asking = [verifier for verifier in self._verifiers if may_ask_another_server(verifier)]
        self.remote = bool(asking) or resolver is not None

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of the given verifiers; those that the resolver knows can't be listed."""
        return tuple(self._by_issuer)

    @property
    def audiences(self) -> frozenset[str]:
        """The identifiers of this resource server that tokens of every given issuer may name."""
        return audiences_of_all(self._verifiers)

    @property
    def clock_skew(self) -> float:
        """Seconds for which every verifier accepts a token after its expiry."""
        return self._clock_skew

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
            raise another_issuer(issuer, self.issuers)
        verified = await verifier.verify(token)
        if verified.issuer != issuer:
            raise another_issuer(verified.issuer, issuer)
        return verified if verified.names_issuer else replace(verified, names_issuer=True)

    def key_ages(self) -> tuple[tuple[str, float], ...]:
        """Return each issuer of the given verifiers, and for how many seconds its keys have been held."""
        return key_ages_of_all(self._verifiers)

    async def open(self) -> None:
        """Open every given verifier: those for JWTs begin to fetch their keys."""
        await open_parts(*self._verifiers)

    async def health(self) -> IssuersHealth:
        """Return the state of the given verifiers, within 1.5 seconds."""
        parts = await health_of_each(self._verifiers)
        issuers = tuple((one.issuers[0], part) for one, part in zip(self._verifiers, parts, strict=True))
        failing = [issuer for issuer, part in issuers if not part.ok]
        return IssuersHealth(
            ok=len(failing) < len(issuers) or not issuers,
            issuers=issuers,
            error=f"no token of {', '.join(failing)} can be verified" if failing else None,
        )

    async def aclose(self) -> None:
        """Close every given verifier, even if closing one of them fails."""
        await aclose_parts(*self._verifiers)


def _checked(verifiers: object) -> tuple[AccessTokenVerifier, ...]:
    listed: tuple[Any, ...] | None = tuple(verifiers) if isinstance(verifiers, Iterable) else None
    if listed is None or not all(options.provides(one, "verify") for one in listed):
        raise options.refused("verifiers", "a sequence of AccessTokenVerifiers", verifiers)
    return listed


def _among_several(verifier: AccessTokenVerifier) -> AccessTokenVerifier:
    """Return a verifier whose tokens name their issuer, where `verifier` supports that; else `verifier`."""
    return verifier.among_several() if isinstance(verifier, JWTAccessTokenVerifier) else verifier


def unverified_issuer(token: str) -> str:
    """Return the `iss` of `token`, unverified; raises InvalidToken.

    Not checked: the signature, and whether this is the `iss` at the top where the payload has no other one.
    """
    if len(token) > MAX_TOKEN_SIZE:
        raise not_a_jwt()
    try:
        payload = base64url.decode(compact.split(token).payload)
    except JOSEError as error:
        raise not_a_jwt(error.description) from error
    issuer = _named(payload)
    if issuer is None or not _URL.fullmatch(issuer):
        raise InvalidToken(
            "the access token doesn't say which issuer it is from",
            check=Check.TOKEN_CLAIMS,
            expected="iss",
            actual="no issuer, or more than one",
        )
    return issuer


def _named(payload: bytes) -> str | None:
    if payload.count(b'"iss"') > _MOST_ISSUERS:
        return None
    found = set(_ISS.findall(payload))
    if len(found) == 1:
        return _text(found.pop())
    if payload.count(b'"') > _MOST_QUOTES or payload.count(b"\\") > _MOST_ESCAPES:
        return None
    depth = seen = 0
    for named in _ISS.finditer(payload):
        between = _STRING.sub(b"", payload[seen : named.start()])
        depth += sum(map(between.count, (b"{", b"["))) - sum(map(between.count, (b"}", b"]")))
        if depth == 1:
            return _text(named[1])
        seen = named.end()
    return None


def _text(quoted: bytes) -> str | None:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return None
