"""The result of each check for one request, offline: for the person who debugs, never for the client.

The same code judges the request as in a server, here with an empty replay store: `verification`, or
`TokenEndpoint` for a token request. Checks are made in the order of `Check`, so the check that failed shows
which ones were not reached.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._judge.remote import remoteness
from dpop_middleware._judge.request import RequestVerification
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._proof.proof import parse_claims, parse_header, split_proof
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest, one_proof
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.authorization_server import CHECKS as CHECKS_OF_A_TOKEN_REQUEST
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.nonces import NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayKeyspace
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier

__all__ = ["Explanation", "Finding", "FindingState", "explain"]

_URL: Final = re.compile(r"([A-Za-z]+://[^/?#]*)([^?#]*)")
_NOTHING_REQUIRED: Final = Requirements()


class FindingState(StrEnum):
    """The result of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not reached"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check of one request.

    - `expected`, `actual`: the values that it compared, not escaped: escape them before you print them.
    - `hint`: the likely cause of a failure, or the reason why the check was not judged.
    """

    check: Check
    outcome: FindingState
    expected: object = None
    actual: object = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Every check that the server makes, in order, and the answer that it would send.

    `error` is None for an accepted request; otherwise `status` is the HTTP status of the refusal.
    """

    findings: tuple[Finding, ...]
    error: DPoPError | None
    status: int | None


async def explain(
    *,
    method: str,
    url: str,
    proofs: tuple[str, ...],
    access_token: str | None,
    verifier: AccessTokenVerifier,
    unknown: Mapping[Check, str] = MappingProxyType({}),
    nonces: NonceProvider | None = None,
    policy: DPoPPolicy = DPoPPolicy(),
    requirements: Requirements = _NOTHING_REQUIRED,
    now: float,
) -> Explanation:
    """Judge one DPoP request as a server at `url` would, and return the result of each check.

    - `method`, `url`: of the request, the URL absolute and as clients call it.
    - `proofs`: the values of its `DPoP` header fields.
    - `access_token`: None for a token request, which is judged as a token endpoint does (RFC 9449 section 5).
    - `verifier`: of the access token; not called without one.
    - `unknown`: checks that `verifier` can't make here, and why.
    - `nonces`, `policy`, `requirements`: what the server requires; `now`: seconds since the epoch.

    Not checked: whether the proof was used before, which only the server's store knows. Raises
    ConfigurationError for a URL that isn't absolute.
    """
    origin, raw_path = _origin_and_path(url)
    hosts = (parse_base_url(origin).host,)
    request = ResourceRequest(
        method=method,
        raw_path=raw_path,
        hosts=(),
        authorization=() if access_token is None else (f"DPoP {access_token}",),
        dpop=proofs,
    )
    checks, token, error, status = CHECKS_OF_A_JWT, None, None, None
    if access_token is None:
        checks = CHECKS_OF_A_TOKEN_REQUEST
        endpoint = TokenEndpoint(
            url=origin + raw_path,
            replay_store=MemoryReplayStore(),
            policy=policy,
            nonces=nonces,
            clock=lambda: now,
            insecure_http_hosts=hosts,
        )
        try:
            await endpoint.verify(request)
        except DPoPError as refused:
            error, status = refused, endpoint.error_response(refused).status
    else:
        verification = RequestVerification(
            verifier=verifier,
            proofs=ProofVerification(
                store=MemoryReplayStore(),
                keyspace=ReplayKeyspace(""),
                public_urls=PublicURLs(origin, insecure_http_hosts=hosts),
                nonces=nonces,
            ),
            clock=lambda: now,
            policies=(policy,),
        )
        is_remote = remoteness(verifier)
        if is_remote is not None and is_remote(access_token):
            checks = CHECKS_OF_AN_OPAQUE_TOKEN
        try:
            token = (await verification.verify(request, policy)).access_token
            requirements.check(token, now=now)
        except DPoPError as refused:
            error, status = refused, refused.status
    says = _read(proofs, policy)
    unknown = dict(unknown) | _not_judged(nonces, policy, requirements)
    return Explanation(
        findings=_findings(request, checks, error, says, token, unknown), error=error, status=status
    )


def _origin_and_path(url: str) -> tuple[str, str]:
    match = _URL.match(url)
    try:
        if match is not None:
            return parse_base_url(match[1]).origin, match[2] or "/"
    except URIError as error:
        raise ConfigurationError(f"the URL can't be used: {error}") from error
    raise ConfigurationError("the URL must be absolute, such as https://api.example.com/notes")


def _read(proofs: tuple[str, ...], policy: DPoPPolicy) -> Mapping[Check, object]:
    """Return the values in a proof, as far as it can be read."""
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


def _findings(
    request: ResourceRequest,
    checks: tuple[Check, ...],
    error: DPoPError | None,
    reading: Mapping[Check, object],
    token: AccessToken | None,
    unknown: Mapping[Check, str],
) -> tuple[Finding, ...]:
    failed = None if error is None else error.check or Check.AUTHORIZATION
    if failed is not None and failed not in checks:
        checks = tuple(Check)
    end = len(checks) if failed is None else checks.index(failed)
    says = {**reading, **({} if token is None else _values_of(token))}
    findings = []
    for position, check in enumerate(checks):
        if error is not None and check is failed:
            finding = Finding(
                check=check,
                outcome=FindingState.FAILED,
                expected=error.expected,
                actual=error.actual,
                hint=hint_of(error, request),
            )
        elif position > end:
            finding = Finding(check=check, outcome=FindingState.NOT_REACHED)
        elif check in unknown:
            finding = Finding(
                check=check, outcome=FindingState.NOT_JUDGED, actual=says.get(check), hint=unknown[check]
            )
        else:
            finding = Finding(check=check, outcome=FindingState.PASSED, actual=says.get(check))
        findings.append(finding)
    return tuple(findings)


def _values_of(token: AccessToken) -> dict[Check, object]:
    return {
        Check.TOKEN_ISS: token.issuer,
        Check.TOKEN_AUD: token.claims.get("aud"),
        Check.TOKEN_TIME: token.expires_at,
        Check.BINDING: token.jkt,
        Check.SCOPE: tuple(sorted(token.scopes)),
    }
