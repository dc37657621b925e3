"""The issuer that a token names: found in its payload, unverified, and looked up where it isn't configured.

The payload is searched at C speed, not parsed. Look-ups (of tenants) are bounded, cached and shared:

    cached and young                        -> its verifier
    cached and old                          -> looked up again; its verifier isn't used before the result
    unknown to the resolver, a moment ago   -> None
    not asked about yet                     -> looked up
    too many of these                       -> 503; where most were made up, a bounded number of them,
                                               and then as if it were unknown

The sender of a token chooses which issuer it names. So names are bounded in length, unknown names have a
cache of their own, which evicts no tenant, and the look-ups of made-up names per second are bounded. Those of
tenants aren't: after a deploy, all tenants come at once.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dpop_middleware._options import provides, shown
from dpop_middleware._request.request import MAX_TOKEN_SIZE
from dpop_middleware._runtime import begin, is_cancellation
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.tokens.access_token import AccessTokenVerifier
from dpop_middleware.tokens.admission import Admission, WaitingRoom
from dpop_middleware.tokens.cache import BoundedCache
from dpop_middleware.tokens.optional_members import issuers_of
from dpop_middleware.tokens.signed_token import not_a_jwt

__all__ = [
    "LOOKUPS",
    "MAX_UNKNOWN",
    "IssuerResolver",
    "Limits",
    "ResolvedIssuers",
    "unverified_issuer",
]

IssuerResolver = Callable[[str], Awaitable[AccessTokenVerifier | None]]
"""Returns the verifier for an issuer that a token names, None for one that isn't trusted."""

LOOKUPS: Final = 100
"""How many look-ups of unknown issuers there may be at once, and then per second."""

MAX_UNKNOWN: Final = 10_000
"""How many issuers that aren't trusted are remembered."""

_UNKNOWN_BYTES: Final = 4 * 1024 * 1024
_UNBOUNDED: Final = 2**62

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


def unverified_issuer(token: str) -> str:
    """Return the `iss` of `token`, unverified; raises InvalidToken.

    Not checked: the signature, and whether this is the `iss` at the top where the payload has no other one.
    """
    if len(token) > MAX_TOKEN_SIZE:
        raise not_a_jwt()
    try:
        payload = base64url.decode(strict.split(token).payload)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """For how long, in seconds, and for how many issuers results are kept."""

    max_issuers: int
    lifetime: float
    unknown_lifetime: float
    timeout: float


class _Resolved(NamedTuple):
    found: AccessTokenVerifier
    prepared: AccessTokenVerifier
    until: float


class _Failed(NamedTuple):
    cause: BaseException


class ResolvedIssuers:
    """The verifiers that a resolver returned, each prepared once."""

    def __init__(
        self,
        resolver: IssuerResolver,
        prepare: Callable[[AccessTokenVerifier], AccessTokenVerifier],
        limits: Limits,
    ) -> None:
        self._resolver = resolver
        self._prepare = prepare
        self._limits = limits
        self._held: BoundedCache[str, _Resolved] = BoundedCache(
            max_entries=limits.max_issuers, max_bytes=_UNBOUNDED
        )
        self._unknown: BoundedCache[str, float] = BoundedCache(
            max_entries=MAX_UNKNOWN, max_bytes=_UNKNOWN_BYTES
        )
        self._flights: dict[
            tuple[asyncio.AbstractEventLoop, str], asyncio.Task[AccessTokenVerifier | _Failed | None]
        ] = {}
        self._room = WaitingRoom()
        self._admission = Admission(per_second=LOOKUPS)

    async def verifier(self, issuer: str) -> AccessTokenVerifier | None:
        """Return the verifier for `issuer`, None for one that isn't trusted.

        Raises `errors.Unavailable` where that can't be known now.
        """
        now = time.monotonic()
        held = self._held.get(issuer)
        if held is not None and now < held.until:
            return held.prepared
        if held is None:
            if self._is_unknown(issuer, now):
                return None
            if not self._is_being_looked_up(issuer) and self._admission.pause(now) > 0:
                self._check_may_be_unavailable(None, now)
                return None
        with self._room.place() as has_place:
            outcome = await asyncio.shield(self._flight(issuer)) if has_place else _Failed(TimeoutError())
        if not isinstance(outcome, _Failed):
            return outcome
        if held is not None:
            # All of a tenant's clients get 503, however many they are.
            raise _not_known(outcome.cause) from outcome.cause
        self._check_may_be_unavailable(outcome.cause, now)
        return None

    def would_ask(self, issuer: str) -> bool:
        """Whether the resolver is asked about `issuer` now, or was and hasn't answered yet."""
        now, held = time.monotonic(), self._held.get(issuer)
        if held is not None:
            return now >= held.until
        may_ask = not self._admission.is_spent(now) or self._is_being_looked_up(issuer)
        return may_ask and not self._is_unknown(issuer, now)

    def held(self, issuer: str) -> AccessTokenVerifier | None:
        """Return the verifier that the resolver returned for `issuer`, however long ago; None without one."""
        held = self._held.get(issuer)
        return None if held is None else held.prepared

    def _is_unknown(self, issuer: str, now: float) -> bool:
        until = self._unknown.get(issuer)
        return until is not None and now < until

    def _is_being_looked_up(self, issuer: str) -> bool:
        return (asyncio.get_running_loop(), issuer) in self._flights

    def _check_may_be_unavailable(self, cause: BaseException | None, now: float) -> None:
        """Raise Unavailable for an unknown issuer, unless most were made up and there were too many."""
        if self._admission.may_be_unavailable(now):
            raise _not_known(cause) from cause

    def _flight(self, issuer: str) -> "asyncio.Task[AccessTokenVerifier | _Failed | None]":
        loop = asyncio.get_running_loop()
        key = (loop, issuer)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = begin(self._look_up(issuer), name="dpop issuer")
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _look_up(self, issuer: str) -> AccessTokenVerifier | _Failed | None:
        held = self._held.get(issuer)
        try:
            async with asyncio.timeout(self._limits.timeout):
                found = _checked(await self._resolver(issuer), issuer)
        except (Exception, asyncio.CancelledError) as error:  # then nothing is verified
            if is_cancellation(error):
                raise
            return _Failed(error)
        now = time.monotonic()
        if held is None:
            self._admission.answered(now, active=found is not None)
        if found is None:
            self._held.discard(issuer)
            self._unknown.put(issuer, now + self._limits.unknown_lifetime, size=len(issuer))
            return None
        is_same = held is not None and held.found is found
        prepared = held.prepared if held is not None and is_same else self._prepare(found)
        self._held.put(issuer, _Resolved(found, prepared, now + self._limits.lifetime), size=0)
        return prepared


def _checked(found: AccessTokenVerifier | None, issuer: str) -> AccessTokenVerifier | None:
    if found is not None and (not provides(found, "verify") or issuer not in issuers_of(found)):
        raise ConfigurationError(f"the resolver returned {shown(found)}, which is no verifier for {issuer!r}")
    return found


def _not_known(cause: BaseException | None) -> Unavailable:
    return Unavailable(
        "the issuer of the access token can't be looked up now",
        check=Check.TOKEN_ISS,
        actual=None if cause is None else type(cause).__name__,
    )
