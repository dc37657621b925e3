"""The result of each check for one request, offline: for developers, never for the client.

The same code judges the request as in a server, here with an empty replay store: `RequestVerification`, or
`TokenEndpoint` for a token request. Checks are made in the order of `Check`, so the check that failed shows
which ones were not reached. `later_checks` judges those separately.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from dpop_middleware._judge.remote import proof_first
from dpop_middleware._judge.request import RequestVerification
from dpop_middleware._judge.requirements import NOTHING_REQUIRED, Requirements
from dpop_middleware._proof.proof import parse_claims, parse_header, split_proof
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest, credentials, one_proof
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.authorization_server import CHECKS as CHECKS_OF_A_TOKEN_REQUEST
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.cli.findings import Explanation, findings_of
from dpop_middleware.cli.later_checks import (
    JudgedChecks,
    judge_proof_later,
    judge_token_later,
    judge_use_later,
    verified_later,
)
from dpop_middleware.cli.token_judge import TokenJudge
from dpop_middleware.errors import ConfigurationError, DPoPError, Scheme, Unavailable
from dpop_middleware.nonces import NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayKeyspace
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["explain"]

_URL: Final = re.compile(r"([A-Za-z]+://[^/?#]*)([^?#]*)")


async def explain(
    *,
    method: str,
    url: str,
    proofs: tuple[str, ...],
    authorization: tuple[str, ...] | None,
    judge: TokenJudge,
    nonces: NonceProvider | None = None,
    policy: DPoPPolicy = DPoPPolicy(),
    requirements: Requirements = NOTHING_REQUIRED,
    now: float,
) -> Explanation:
    """Judge one request as a server at `url` would, and return the result of each check.

    - `method`, `url`: of the request, the URL absolute and as clients call it.
    - `proofs`: the values of its `DPoP` header fields.
    - `authorization`: the values of its `Authorization` fields, None for a token request, which is judged as
      at a token endpoint (RFC 9449 section 5).
    - `judge`: of the access token; its verifier isn't called without one.
    - `nonces`, `policy`, `requirements`: what the server requires; `now`: seconds since the epoch.

    Not checked: whether the proof was used before, which only the server's store knows. Raises
    ConfigurationError for a URL that isn't absolute.
    """
    origin, raw_path = _origin_and_path(url)
    request = ResourceRequest(
        method=method,
        raw_path=raw_path,
        hosts=(),
        authorization=authorization or (),
        dpop=proofs,
    )
    server = _Server(
        origin=origin,
        judge=judge,
        nonces=nonces,
        policy=policy,
        requirements=requirements,
        now=now,
    )
    carried: tuple[Scheme, str] | None = None
    token = None
    if authorization is None:
        checks: tuple[Check, ...] = CHECKS_OF_A_TOKEN_REQUEST
        error, status = await _refused_token_request(server, request)
    else:
        with suppress(DPoPError):
            carried = credentials(authorization)
        checks = _checks_of(server, carried)
        token, error = await _judged(server, request)
        status = None if error is None else error.status
    later = JudgedChecks()
    if error is not None:
        token = await _judged_later(later, server, request, carried, error, checks)
    findings = findings_of(
        request,
        checks,
        error,
        reading=_read(proofs, policy),
        token=token,
        unknown=dict(judge.unknown) | _not_judged(nonces, policy, requirements),
        later=later.of,
    )
    return Explanation(findings=findings, error=error, status=status)


class _Server(NamedTuple):
    """The server that is imitated; its values are arguments of `explain`, `origin` is that of the URL."""

    origin: str
    judge: TokenJudge
    nonces: NonceProvider | None
    policy: DPoPPolicy
    requirements: Requirements
    now: float

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host of the URL, which may be called by plain http here."""
        return (parse_base_url(self.origin).host,)

    def public_urls(self) -> PublicURLs:
        """Return the URLs of a resource server at the origin."""
        return PublicURLs(self.origin, insecure_http_hosts=self.hosts)

    def proofs(self) -> ProofVerification:
        """Return the judge of proofs of a resource server, whose replay store is empty."""
        return ProofVerification(
            store=MemoryReplayStore(),
            keyspace=ReplayKeyspace(""),
            public_urls=self.public_urls(),
            nonces=self.nonces,
        )

    def verification(self) -> RequestVerification:
        """Return the judge of a resource server."""
        return RequestVerification(
            verifier=self.judge.verifier,
            proofs=self.proofs(),
            clock=lambda: self.now,
            policies=(self.policy,),
        )


async def _refused_token_request(
    server: _Server, request: ResourceRequest
) -> tuple[DPoPError | None, int | None]:
    """Return the error of a token endpoint and its status, None for both where it accepts the proof."""
    endpoint = TokenEndpoint(
        url=server.origin + request.raw_path,
        replay_store=MemoryReplayStore(),
        policy=server.policy,
        nonces=server.nonces,
        clock=lambda: server.now,
        insecure_http_hosts=server.hosts,
    )
    try:
        await endpoint.verify(request)
    except DPoPError as error:
        return error, endpoint.error_response(error).status
    return None, None


async def _judged(server: _Server, request: ResourceRequest) -> tuple[AccessToken | None, DPoPError | None]:
    """Return the token of a request, if it is valid, and the error of a resource server."""
    judged = await server.verification().judge(request, server.policy)
    if isinstance(judged, DPoPError):
        return None, judged
    try:
        server.requirements.check(judged.access_token, now=server.now)
    except DPoPError as error:
        return judged.access_token, error
    return judged.access_token, None


async def _judged_later(
    later: JudgedChecks,
    server: _Server,
    request: ResourceRequest,
    carried: tuple[Scheme, str] | None,
    error: DPoPError,
    checks: tuple[Check, ...],
) -> AccessToken | None:
    """Judge what the server doesn't reach after `error`; return the token, None where it isn't known."""
    token = access_token = None
    useless_after = math.inf
    if carried is not None:
        scheme, access_token = carried
        if not server.judge.asks and not isinstance(error, Unavailable):
            token = await verified_later(later, access_token, server.judge.verifier, checks)
        if token is None and server.judge.rules is not None:
            token = judge_token_later(later, access_token, rules=server.judge.rules, now=server.now)
        if token is not None:
            judge_use_later(later, token, scheme=scheme, requirements=server.requirements, now=server.now)
        expires_at = -math.inf if token is None else token.expires_at
        useless_after = server.verification().useless_after(expires_at, server.now)
    urls, target_uri = server.public_urls(), None
    with suppress(DPoPError):
        target_uri = urls.target_uri(urls.origin_form(request))
    judge_proof_later(
        later,
        request,
        target_uri=target_uri,
        access_token=access_token,
        token=token,
        policy=server.policy,
        verification=server.proofs(),
        useless_after=useless_after,
        now=server.now,
    )
    return token


def _checks_of(server: _Server, carried: tuple[Scheme, str] | None) -> tuple[Check, ...]:
    """Return the checks of a request to a protected resource, in order."""
    if carried is None:
        return CHECKS_OF_A_JWT
    scheme, access_token = carried
    if scheme == "Bearer":
        return _checks_of_bearer(server.policy)
    first = proof_first(server.judge.verifier)
    if first is not None and first.is_remote(access_token):
        return CHECKS_OF_AN_OPAQUE_TOKEN
    return CHECKS_OF_A_JWT


def _checks_of_bearer(policy: DPoPPolicy) -> tuple[Check, ...]:
    """The checks of a Bearer request: whether Bearer is accepted at all comes before its token is parsed."""
    of_the_token = tuple(check for check in CHECKS_OF_A_JWT if check.startswith("token_"))
    middle = (*of_the_token, Check.BINDING) if policy.accept_bearer else (Check.BINDING, *of_the_token)
    return (Check.AUTHORIZATION, Check.TARGET, *middle, Check.SCOPE, Check.AUTHENTICATION)


def _origin_and_path(url: str) -> tuple[str, str]:
    match = _URL.match(url)
    try:
        if match is not None:
            return parse_base_url(match[1]).origin, match[2] or "/"
    except URIError as error:
        raise ConfigurationError(f"the URL can't be used: {error}") from error
    raise ConfigurationError("the URL must be absolute, such as https://api.example.com/notes")


def _read(proofs: tuple[str, ...], policy: DPoPPolicy) -> Mapping[Check, object]:
    """Return the values in a proof, as far as it can be parsed."""
    try:
        jws = split_proof(one_proof(proofs, policy.algorithms))
        header = parse_header(jws.header, policy.algorithms)
    except DPoPError:
        return {}
    says: dict[Check, object] = {
        Check.TYP: "dpop+jwt",
        Check.ALG: header.algorithm.name,
        Check.JWK: header.algorithm.crv or header.algorithm.kty,
        Check.JKT: header.jkt,
    }
    try:
        proof = parse_claims(jws.payload, header)
    except DPoPError:
        return says
    claims = {Check.HTM: proof.htm, Check.HTU: proof.htu, Check.IAT: proof.iat}
    return says | claims | {Check.ATH: proof.ath, Check.NONCE: proof.nonce, Check.JTI: proof.jti}


def _not_judged(
    nonces: NonceProvider | None, policy: DPoPPolicy, requirements: Requirements
) -> dict[Check, str]:
    reasons = {
        Check.JTI: "only the server's replay store knows whether the proof was used before",
        Check.AUTHENTICATION: "a route must require it",
    }
    if nonces is None or policy.nonce == "off":
        reasons[Check.NONCE] = "the server's nonce is not given"
    elif policy.iat_limit_with_nonce is None:
        reasons[Check.IAT] = "the nonce decides"
    if not requirements.scopes:
        reasons[Check.SCOPE] = "no scope is required"
    return reasons
