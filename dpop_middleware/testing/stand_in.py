"""A resource server like the production one, but one that trusts a test issuer: for tests only."""

# The configuration of a server and its verifier is private to them; it is copied here and nowhere else.
# pyright: reportPrivateUsage=false

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from dpop_middleware._judge.request import RequestVerification
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.events import EventSink, Reporter
from dpop_middleware.profiles import KNOWN, RFC9068, Profile
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier

__all__ = ["audiences_of", "profile_of", "stand_in"]


def audiences_of(production: ResourceServer) -> tuple[str, ...]:
    """Return the values that a token's `aud` may name; the resource identifier where they aren't known."""
    verifier = production.verification.verifier
    if isinstance(verifier, JWTAccessTokenVerifier):
        return tuple(sorted(verifier._rules.audiences))
    return (production.resource,)


def profile_of(production: ResourceServer) -> Profile:
    """Return the shape of the tokens that `production` accepts; RFC 9068 where it isn't known."""
    verifier = production.verification.verifier
    if not isinstance(verifier, JWTAccessTokenVerifier):
        return RFC9068
    rules = verifier._rules
    shape = Profile(
        name="of the verifier",
        token_types=verifier._token_types,
        scope_claims=rules.scope_claims,
        client_id_claims=rules.client_id_claims,
        required_claims=rules.required,
    )
    # A known one says more of what its issuer writes than a verifier has to know.
    return next((known for known in KNOWN if known.options == shape.options), shape)


def stand_in(
    production: ResourceServer,
    *,
    issuer: str,
    jwks: Mapping[str, Any],
    clock: Callable[[], float],
    on_event: EventSink | None,
) -> ResourceServer:
    """Return a new server with `production`'s configuration, and a verifier, store and caches of its own."""
    if not isinstance(production, ResourceServer):
        raise ConfigurationError("resource_server takes the production ResourceServer")
    server = copy.copy(production)
    theirs = production.verification
    verifier = _verifier(production, issuer=issuer, jwks=jwks, clock=clock)
    server._token_clock_skew = verifier.clock_skew
    server.verification = RequestVerification(
        verifier=verifier,
        proofs=replace(theirs.proofs, store=MemoryReplayStore(max_share=1)),
        clock=clock,
        policies=theirs.policies,
    )
    server._reporter = Reporter(on_event)
    return server


def _verifier(
    production: ResourceServer, *, issuer: str, jwks: Mapping[str, Any], clock: Callable[[], float]
) -> JWTAccessTokenVerifier:
    audience = audiences_of(production)
    host = urlsplit(issuer).hostname
    hosts = (host,) if issuer.startswith("http:") and host is not None else ()
    theirs = production.verification.verifier
    if not isinstance(theirs, JWTAccessTokenVerifier):
        return JWTAccessTokenVerifier(
            issuer=issuer, audience=audience, jwks=jwks, clock=clock, insecure_http_hosts=hosts
        )
    return JWTAccessTokenVerifier(
        issuer=issuer,
        audience=audience,
        jwks=jwks,
        algorithms=theirs._algorithms,
        token_types=theirs._token_types,
        scope_claims=theirs._rules.scope_claims,
        client_id_claims=theirs._rules.client_id_claims,
        required_claims=theirs._rules.required,
        clock_skew=theirs.clock_skew,
        clock=clock,
        insecure_http_hosts=hosts,
    )
