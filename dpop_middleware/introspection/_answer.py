"""What an introspection answer says of a token, judged (RFC 7662 section 2.2, RFC 9449 section 6.2).

The claims are judged as those of a signed token are. What an answer may leave out, since the endpoint speaks
for its issuer, is filled in for that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, strict_json
from dpop_middleware.tokens.access_token import AccessToken, shown
from dpop_middleware.tokens.cache import read_only_claims
from dpop_middleware.tokens.claims import ClaimRules, judge_claims

__all__ = ["AnswerRules", "MalformedAnswer", "judge_answer", "parse_answer"]


class MalformedAnswer(Exception):
    """An answer that isn't one by RFC 7662 or RFC 9701; the message is for logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """What an active token must say. `accept_missing_audience`: it may say no `aud`."""

    claims: ClaimRules
    accept_missing_audience: bool


def parse_answer(body: bytes) -> dict[str, Any]:
    """Return the answer that is a JSON object; raises MalformedAnswer."""
    try:
        return strict_json.parse_object(body)
    except JOSEError as error:
        raise MalformedAnswer("the answer is not a JSON object") from error


def judge_answer(answer: Mapping[str, Any], *, rules: AnswerRules, now: float) -> AccessToken:
    """Return the token that an answer describes; `now` is in seconds since the epoch.

    Raises InvalidToken for a token that isn't active or isn't for us, and MalformedAnswer where the answer
    doesn't say whether it is active.
    """
    active = answer.get("active")
    if not isinstance(active, bool):
        raise MalformedAnswer("the answer doesn't say whether the token is active")
    if not active:
        raise InvalidToken("the access token is not active", check=Check.TOKEN_ACTIVE)
    filled = {"iss": rules.claims.issuer, **answer}
    if "aud" not in answer:
        if not rules.accept_missing_audience:
            raise InvalidToken(
                "the access token names no audience",
                check=Check.TOKEN_AUD,
                expected=sorted(rules.claims.audiences),
                actual="no aud (accept_missing_audience=True accepts that)",
            )
        filled["aud"] = sorted(rules.claims.audiences)
    payload = json.dumps(filled).encode()
    token = judge_claims(payload, rules=rules.claims, now=now, key_identity="").access_token
    _judge_token_type(answer)
    # The application sees what the issuer said, not what was filled in.
    return replace(token, claims=read_only_claims(json.dumps(dict(answer)).encode()))


def _judge_token_type(answer: Mapping[str, Any]) -> None:
    """A bound token's type is DPoP, if it is told (RFC 9449 section 6.2), and an unbound one's is Bearer.

    An endpoint may call other tokens active too: else a refresh token would pass for an access token.
    """
    token_type = answer.get("token_type")
    expected = "DPoP" if "cnf" in answer else "Bearer"
    if "token_type" in answer and (not isinstance(token_type, str) or token_type.lower() != expected.lower()):
        raise InvalidToken(
            "the access token is of another type",
            check=Check.BINDING,
            expected=f"token_type {expected}",
            actual=shown(token_type),
        )
