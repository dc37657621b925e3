"""The results of checks that a server doesn't reach, since an earlier one failed: for `explain` only.

Each check is the server's own. If one fails, its value is replaced by a right one, and judging continues, as
far as that makes sense. A check that can't be judged in this way has no verdict here.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

from dpop_middleware._judge.requirements import Requirements, bound_to_another, check_bound, check_unbound
from dpop_middleware._proof.proof import (
    DPoPProof,
    ProofHeader,
    check_ath,
    check_htm,
    check_htu,
    check_signature,
    parse_claims,
    parse_header,
    split_proof,
)
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.request import ResourceRequest, one_proof
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, DPoPError, Scheme
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.jose.strict import CompactJWS, split
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier, token_hash
from dpop_middleware.tokens.claims import NEVER_DROPPED, ClaimRules, judge_claims

__all__ = ["JudgedChecks", "judge_proof_later", "judge_token_later", "judge_use_later", "verified_later"]

_STAND_INS: Final[Mapping[str, object]] = {"jti": "?", "htm": "?", "htu": "?", "iat": 0}
# Claims don't depend on the header; it is only part of the result.
_NO_HEADER: Final = cast("ProofHeader", SimpleNamespace(jkt="", algorithm=SimpleNamespace(name="")))


@dataclass(frozen=True, slots=True)
class JudgedChecks:
    """The checks that were judged: None for one that passed, the error for one that failed."""

    of: dict[Check, DPoPError | None] = field(default_factory=dict)

    def judge(self, check: Check, judged: Callable[[], object]) -> bool:
        """Record the result of `check`, which is the error that `judged` raises; return whether it passed."""
        try:
            judged()
        except DPoPError as error:
            self.of[error.check or check] = error
            return False
        self.of[check] = None
        return True


async def verified_later(
    judged: JudgedChecks, access_token: str, verifier: AccessTokenVerifier, checks: tuple[Check, ...]
) -> AccessToken | None:
    """Judge an access token by its verifier, which makes some of `checks` in order; return a good one.

    If its `typ` is wrong, judging continues as if it were right, with a verifier that has `accepting_type`.
    """
    try:
        token: AccessToken | None = await verifier.verify(access_token)
        failed = None
    except DPoPError as error:
        token, failed = None, error
    except Exception:  # noqa: BLE001 - a user's own verifier; the server's own verdict reports it
        return None
    made = [check for check in checks if check.startswith("token_")]
    if failed is not None:
        check = failed.check or Check.AUTHORIZATION
        made = made[: made.index(check)] if check in made else []
        judged.of[check] = failed
    judged.of.update(dict.fromkeys(made))
    if failed is None or failed.check is not Check.TOKEN_TYP or Check.TOKEN_TYP not in checks:
        return token
    lenient = _lenient(verifier, access_token)
    rest = checks[checks.index(Check.TOKEN_TYP) + 1 :]
    return None if lenient is None else await verified_later(judged, access_token, lenient, rest)


def _lenient(verifier: AccessTokenVerifier, access_token: str) -> AccessTokenVerifier | None:
    """Return a `verifier` that also accepts the `typ` of the token, None where that isn't possible."""
    accepting: Callable[[object], AccessTokenVerifier] | None = getattr(verifier, "accepting_type", None)
    if accepting is None:
        return None
    # A typ that is null counts as none here, and is still refused.
    typ = _object(split(access_token).header).get("typ")
    try:
        return accepting(typ)
    except ConfigurationError:
        return None


def judge_token_later(
    judged: JudgedChecks, access_token: str, *, rules: ClaimRules, now: float
) -> AccessToken | None:
    """Judge the claims of a JWT, unverified; return them as a token, as if they were right, if possible.

    `rules` are those of the server; `now` is in seconds since the epoch.
    """
    try:
        payload = base64url.decode(split(access_token).payload)
        claims = strict.parse_object(payload)
    except JOSEError:
        return None
    order = (Check.TOKEN_CLAIMS, Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME)
    failed: dict[Check, DPoPError] = {}
    while True:
        try:
            token = judge_claims(payload, rules=rules, now=now).access_token
        except DPoPError as error:
            check = error.check or Check.TOKEN_CLAIMS
            relaxed = None if check in failed else _relaxed(rules, check, claims)
            failed.setdefault(check, error)
            if relaxed is None:
                # The checks before it were passed.
                reached = order[: order.index(check)] if check in order else order
                judged.of.update({one: failed.get(one) for one in (*reached, check)})
                return None
            rules = relaxed
        else:
            judged.of.update({one: failed.get(one) for one in order})
            return token


def _relaxed(rules: ClaimRules, check: Check, claims: Mapping[str, Any]) -> ClaimRules | None:
    if check is Check.TOKEN_CLAIMS:
        return rules._replace(required=NEVER_DROPPED)
    if check is Check.TOKEN_ISS:
        return rules._replace(issuer=claims["iss"])
    if check is Check.TOKEN_AUD:
        named = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        return rules._replace(audiences=frozenset(named)) if named else None
    return rules._replace(clock_skew=math.inf) if check is Check.TOKEN_TIME else None


def judge_use_later(
    judged: JudgedChecks, token: AccessToken, *, scheme: Scheme, requirements: Requirements, now: float
) -> None:
    """Judge whether `token` may come with `scheme`, and whether it has what the route requires."""
    if scheme == "Bearer":
        judged.judge(Check.BINDING, lambda: check_unbound(token))
    else:
        judged.judge(Check.BINDING, lambda: check_bound(token, -math.inf))
    judged.judge(Check.SCOPE, lambda: requirements.check(token, now=now))


def judge_proof_later(
    judged: JudgedChecks,
    request: ResourceRequest,
    *,
    target_uri: str | None,
    access_token: str | None,
    token: AccessToken | None,
    policy: DPoPPolicy,
    verification: ProofVerification,
    useless_after: float,
    now: float,
) -> None:
    """Judge the proof of a request, and whether it fits its token.

    - `target_uri`: of the request, in normal form; None where it is unknown.
    - `access_token`: the one that came with the proof, None at a token endpoint; `token`: its contents, None
      where they are unknown.
    - `policy`, `verification`: the server's own.
    - `useless_after`: from when on no server accepts the proof, whatever its `iat`.
    - `now`: seconds since the epoch, as `useless_after` is.
    """
    jws = _split(judged, request.dpop, policy)
    if jws is None:
        return
    header = _header(judged, jws.header, policy)
    if header is not None and token is not None and token.jkt is not None:
        fits = token.jkt == header.jkt
        judged.of[Check.JKT] = None if fits else bound_to_another(token.jkt, header.jkt)
    proof, odd = _claims(judged, jws.payload, header or _NO_HEADER)
    if proof is not None and "htm" not in odd:
        judged.judge(Check.HTM, lambda: check_htm(proof, request.method))
    if proof is not None and "htu" not in odd and target_uri is not None:
        judged.judge(Check.HTU, lambda: check_htu(proof, target_uri))
    if proof is not None and "ath" not in odd and access_token is not None:
        judged.judge(Check.ATH, lambda: check_ath(proof, token_hash(access_token)))
    if header is not None:
        judged.judge(Check.SIGNATURE, lambda: check_signature(jws, header))
    if proof is not None and odd.isdisjoint(("iat", "exp", "nbf", "nonce")):
        by_nonce = policy.nonce != "off" and (proof.nonce is not None or policy.nonce == "required")
        judged.judge(
            Check.NONCE if by_nonce else Check.IAT,
            lambda: verification.check_freshness(proof, policy, now, useless_after=useless_after),
        )


def _split(judged: JudgedChecks, proofs: tuple[str, ...], policy: DPoPPolicy) -> CompactJWS | None:
    if not judged.judge(Check.ONE_HEADER, lambda: one_proof(proofs, policy.algorithms)):
        return None
    return split_proof(proofs[0]) if judged.judge(Check.FORMAT, lambda: split_proof(proofs[0])) else None


def _header(judged: JudgedChecks, segment: str, policy: DPoPPolicy) -> ProofHeader | None:
    failed: dict[Check, DPoPError] = {}
    algorithms = tuple(policy.algorithms)
    order = (Check.TYP, Check.CRIT, Check.ALG, Check.JWK)
    while True:
        try:
            header = parse_header(segment, algorithms)
        except DPoPError as error:
            check = error.check or Check.FORMAT
            says = {} if check in (Check.FORMAT, Check.JWK) else _object(segment)
            failed.setdefault(check, error)
            if check is Check.TYP:
                segment = _segment(says | {"typ": "dpop+jwt"})
            elif check is Check.CRIT:
                segment = _segment({name: value for name, value in says.items() if name != error.actual})
            elif check is Check.ALG and isinstance(error.actual, str) and error.actual in ALGORITHMS:
                algorithms = (*algorithms, error.actual)
            elif check in order or len(failed) == 1:
                reached = order[: order.index(check)] if check in order else ()
                judged.of.update({one: failed.get(one) for one in (*reached, check)})
                return None
            else:
                return None  # the replaced values made it too long
        else:
            judged.of.update({one: failed.get(one) for one in order})
            return header


def _claims(
    judged: JudgedChecks, segment: str, header: ProofHeader
) -> tuple[DPoPProof | None, frozenset[str]]:
    """Return the claims of a proof, and the names of missing or malformed ones, which are replaced."""
    odd: set[str] = set()
    while True:
        try:
            proof = parse_claims(segment, header)
        except DPoPError as error:
            judged.of.setdefault(Check.CLAIMS, error)
            if not isinstance(error.expected, str) or error.expected in odd:
                return None, frozenset()
            odd.add(error.expected)
            says = {name: value for name, value in _object(segment).items() if name != error.expected}
            segment = _segment(
                says | {name: value for name, value in _STAND_INS.items() if name == error.expected}
            )
        else:
            judged.of.setdefault(Check.CLAIMS, None)
            return proof, frozenset(odd)


def _object(segment: str) -> dict[str, Any]:
    return strict.parse_object(base64url.decode(segment))


def _segment(says: Mapping[str, object]) -> str:
    return base64url.encode(json.dumps(says).encode())
