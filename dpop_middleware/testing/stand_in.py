"""A resource server like the production one, but one that trusts a test issuer: for tests only."""

# The configuration of a server and its verifier is private to them; it is copied here and nowhere else.
# pyright: reportPrivateUsage=false

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware._judge.request import RequestVerification
from dpop_middleware.events import EventSink, Reporter
from dpop_middleware.health import HealthCheck
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.profiles import KNOWN, RFC9068, Profile
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.several_verifiers import JWTOrOpaqueVerifier, MultiIssuerVerifier

__all__ = [
    "Trusted",
    "algorithms_of",
    "audiences_of",
    "names_issuer",
    "profile_of",
    "public_origin_of",
    "stand_in",
]


@dataclass(frozen=True, slots=True)
class Trusted:
    """An issuer that a stand-in trusts, and its keys."""

    issuer: str
    jwks: Mapping[str, Any]


def _for_jwts(production: ResourceServer) -> object:
    verifier = production.verification.verifier
    return verifier._jwt if isinstance(verifier, JWTOrOpaqueVerifier) else verifier


def _their_verifier(production: ResourceServer, issuer: str) -> JWTAccessTokenVerifier | None:
    """Return the verifier of `issuer`, or else the first one; None where it isn't one for JWTs."""
    verifier = _for_jwts(production)
    if isinstance(verifier, MultiIssuerVerifier):
        first = next(iter(verifier._by_issuer.values()), None)
        verifier = verifier._by_issuer.get(issuer, first)
    return verifier if isinstance(verifier, JWTAccessTokenVerifier) else None


def audiences_of(production: ResourceServer, issuer: str) -> tuple[str, ...]:
    """Return what the `aud` of a token of `issuer` may name; the resource where that isn't known."""
    verifier = _their_verifier(production, issuer)
    return (production.resource,) if verifier is None else tuple(sorted(verifier.audiences))


def algorithms_of(production: ResourceServer, issuer: str) -> tuple[str, ...]:
    """Return the algorithms with which tokens of `issuer` may be signed, ES256 first."""
    verifier = _their_verifier(production, issuer)
    return SUPPORTED_ALGORITHMS if verifier is None else verifier._algorithms


def profile_of(production: ResourceServer, issuer: str) -> Profile:
    """Return the form of the tokens of `issuer` that `production` accepts; RFC 9068 where it isn't known."""
    verifier = _their_verifier(production, issuer)
    if verifier is None:
        return RFC9068
    rules = verifier._rules
    shape = Profile(
        name="of the verifier",
        token_types=verifier._token_types,
        scope_claims=rules.scope_claims,
        client_id_claims=rules.client_id_claims,
        required_claims=rules.required,
    )
    # A known profile describes its issuer's tokens in more detail than a verifier needs.
    return next((known for known in KNOWN if known.options == shape.options), shape)


def names_issuer(production: ResourceServer) -> bool:
    """Return whether the identities of `production` name the issuer; False where that isn't known."""
    verifier = production.verification.verifier
    both = isinstance(verifier, JWTOrOpaqueVerifier) and verifier._names_issuer
    return both or isinstance(_for_jwts(production), MultiIssuerVerifier)


def public_origin_of(production: ResourceServer) -> str:
    """Return scheme and authority of the first URL by which clients call `production`."""
    return production.verification.public_urls.origins[0]


def stand_in(
    production: ResourceServer,
    *,
    trusted: Collection[Trusted],
    clock: Callable[[], float],
    on_event: EventSink | None,
) -> ResourceServer:
    """Return a new server with `production`'s configuration, and a verifier, store and caches of its own."""
    takes = "the production ResourceServer"
    checked_resource_server(production, option="TestIssuer.resource_server", takes=takes)
    server = copy.copy(production)
    theirs = production.verification
    verifiers = [_verifier(production, one, clock=clock) for one in trusted]
    several = len(verifiers) > 1 or names_issuer(production)
    verifier = MultiIssuerVerifier(verifiers) if several else verifiers[0]
    store = MemoryReplayStore(max_share=1)
    server._token_clock_skew = verifier.clock_skew
    server.verification = RequestVerification(
        verifier=verifier,
        proofs=replace(theirs.proofs, store=store),
        clock=clock,
        policies=theirs.policies,
    )
    server._health = HealthCheck(verifier=verifier, store=store)
    server.reporter = Reporter(on_event)
    return server


def _verifier(
    production: ResourceServer, trusted: Trusted, *, clock: Callable[[], float]
) -> JWTAccessTokenVerifier:
    host = urlsplit(trusted.issuer).hostname
    hosts = (host,) if trusted.issuer.startswith("http:") and host is not None else ()
    theirs = _their_verifier(production, trusted.issuer)
    rules: dict[str, Any] = {}
    if theirs is not None:
        rules = {"algorithms": theirs._algorithms, "clock_skew": theirs.clock_skew}
    return profile_of(production, trusted.issuer).verifier(
        issuer=trusted.issuer,
        audience=audiences_of(production, trusted.issuer),
        jwks=trusted.jwks,
        clock=clock,
        insecure_http_hosts=hosts,
        **rules,
    )
