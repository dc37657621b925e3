"""The result of each check for one request, offline: for developers, never for the client.

The same code judges the request as in a server, here with an empty replay store: `verification`, or
`TokenEndpoint` for a token request. Checks are made in the order of `Check`, so the check that failed shows
which ones were not reached. `later_checks` judges those separately.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dpop_middleware._judge.remote import remoteness
from dpop_middleware._judge.request import RequestVerification
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._proof.proof import parse_claims, parse_header, split_proof
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest, credentials, one_proof
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.authorization_server import CHECKS as CHECKS_OF_A_TOKEN_REQUEST
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.cli.findings import Explanation, Finding, FindingState, findings_of
from dpop_middleware.cli.later_checks import (
    Verdicts,
    judge_proof_later,
    judge_token_later,
    judge_use_later,
    verified_later,
)
from dpop_middleware.errors import ConfigurationError, DPoPError, Scheme, Unavailable
from dpop_middleware.nonces import NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayKeyspace
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import ClaimRules

__all__ = ["Explanation", "Finding", "FindingState", "explain"]

_URL: Final = re.compile(r"([A-Za-z]+://[^/?#]*)([^?#]*)")
_NOTHING_REQUIRED: Final = Requirements()


async def explain(
    *,
    method: str,
    url: str,
    proofs: tuple[str, ...],
    authorization: tuple[str, ...] | None,
    verifier: AccessTokenVerifier,
    rules: ClaimRules | None = None,
    asks: bool = False,
    unknown: Mapping[Check, str] = MappingProxyType({}),
    nonces: NonceProvider | None = None,
    policy: DPoPPolicy = DPoPPolicy(),
    requirements: Requirements = _NOTHING_REQUIRED,
    now: float,
) -> Explanation:
    """Judge one request as a server at `url` would, and return the result of each check.

    - `method`, `url`: of the request, the URL absolute and as clients call it.
    - `proofs`: the values of its `DPoP` header fields.
    - `authorization`: the values of its `Authorization` fields, None for a token request, which is judged as
      at a token endpoint (RFC 9449 section 5).
    - `verifier`: of the access token, not called without one; `asks`: whether it asks another server;
      `rules`: those for a JWT's claims, which judge them if the verifier doesn't reach them.
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
        authorization=authorization or (),
        dpop=proofs,
    )
    checks, token, error, status = CHECKS_OF_A_JWT, None, None, None
    urls = PublicURLs(origin, insecure_http_hosts=hosts)
    scheme, presented = _credentials(authorization or ())
    if authorization is None:
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
                public_urls=urls,
                nonces=nonces,
            ),
            clock=lambda: now,
            policies=(policy,),
        )
        is_remote = remoteness(verifier)
        if scheme == "Bearer":
            checks = _checks_of_bearer(policy)
        elif presented is not None and is_remote is not None and is_remote(presented):
            checks = CHECKS_OF_AN_OPAQUE_TOKEN
        token, error = await _judged(verification, request, policy, requirements, now)
        status = None if error is None else error.status
    says = _read(proofs, policy)
    unknown = dict(unknown) | _not_judged(nonces, policy, requirements)
    later = Verdicts()
    if error is not None:
        if scheme is not None and presented is not None:
            seen = not asks and not isinstance(error, Unavailable)
            token = await verified_later(later, presented, verifier, checks) if seen else None
            if token is None and rules is not None:
                token = judge_token_later(later, presented, rules=rules, now=now)
            if token is not None:
                judge_use_later(later, token, scheme=scheme, requirements=requirements, now=now)
        judge_proof_later(
            later,
            proofs,
            method=method,
            target_uri=_target_uri(urls, request),
            access_token=presented,
            token=token,
            policy=policy,
            nonces=nonces,
            now=now,
        )
    return Explanation(
        findings=findings_of(request, checks, error, says, token, unknown, later.of),
        error=error,
        status=status,
    )


async def _judged(
    verification: RequestVerification,
    request: ResourceRequest,
    policy: DPoPPolicy,
    requirements: Requirements,
    now: float,
) -> tuple[AccessToken | None, DPoPError | None]:
    """Return the token of a request, if it is valid, and the error of a resource server."""
    judged = await verification.judge(request, policy)
    if isinstance(judged, DPoPError):
        return None, judged
    try:
        requirements.check(judged.access_token, now=now)
    except DPoPError as error:
        return judged.access_token, error
    return judged.access_token, None


def _credentials(authorization: tuple[str, ...]) -> tuple[Scheme, str] | tuple[None, None]:
    try:
        return credentials(authorization)
    except DPoPError:
        return None, None


def _target_uri(urls: PublicURLs, request: ResourceRequest) -> str | None:
    try:
        return urls.target_uri(urls.origin_form(request))
    except DPoPError:
        return None


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
