"""How a server of this example reports its decision: each check with a tick, a cross, or neither.

Only an example does so. A real server tells its clients an error code and a fixed sentence; what it expected
and what it found go to its own log.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from dpop_middleware.checks import CHECKS_OF_A_JWT, Check
from dpop_middleware.errors import DPoPError
from dpop_middleware.events import AuthenticationEvent, hint_for

HEADER: Final = "flow-decision"
LONGEST_VALUE = 200

EXPLANATIONS: Final[Mapping[Check, str]] = {
    Check.TARGET: "The request's own path can be read in one way only.",
    Check.AUTHORIZATION: "There is one Authorization field, with an access token.",
    Check.ONE_HEADER: "There is exactly one DPoP field.",
    Check.TOKEN_FORMAT: "The access token is a signed JWT.",
    Check.TOKEN_TYP: "Its typ says that it is an access token: at+jwt.",
    Check.TOKEN_ALG: "Its algorithm is an asymmetric one that is accepted here.",
    Check.TOKEN_KEY: "The issuer has published the key that it names.",
    Check.TOKEN_SIGNATURE: "The issuer signed it.",
    Check.TOKEN_CLAIMS: "It has all claims that RFC 9068 asks for.",
    Check.TOKEN_ISS: "It comes from the issuer that this API trusts.",
    Check.TOKEN_AUD: "It is meant for this API.",
    Check.TOKEN_TIME: "It has not expired.",
    Check.BINDING: "The scheme fits the token: a bound token comes with DPoP, never as Bearer.",
    Check.FORMAT: "The proof is a signed JWT.",
    Check.TYP: "Its typ is dpop+jwt.",
    Check.CRIT: "It uses no JOSE extension that the server doesn't know.",
    Check.ALG: "Its algorithm is an asymmetric one that is accepted here.",
    Check.JWK: "Its header holds an acceptable public key, and no private part.",
    Check.JKT: "That key's thumbprint is the one that the token, or the grant, is bound to.",
    Check.CLAIMS: "Its payload is a JSON object whose claims have their types.",
    Check.HTM: "It was made for this method.",
    Check.HTU: "It was made for this URL.",
    Check.ATH: "It was made for this access token: ath is the token's hash.",
    Check.SIGNATURE: "Its signature verifies with the key in its header.",
    Check.IAT: "It was made just now.",
    Check.NONCE: "It holds the nonce that the server gave out.",
    Check.JTI: "It was never used before.",
    Check.SCOPE: "The token grants what the route needs.",
    Check.AUTHENTICATION: "The user logged in as recently and as strongly as the route needs.",
}


def check_list(
    checks: Iterable[Check], *, failed: Check | None, not_asked: Collection[Check]
) -> list[tuple[str, str]]:
    """Return each of `checks`, in their order, with its state: what follows `failed` was not reached."""
    reached = True
    states: list[tuple[str, str]] = []
    for check in checks:
        if not reached:
            state = "not reached"
        elif check == failed:
            state, reached = "failed", False
        else:
            state = "not asked" if check in not_asked else "passed"
        states.append((check.value, state))
    return states


def of_event(event: AuthenticationEvent, *, not_asked: Collection[Check]) -> str:
    """Return the header value for a decision of the API."""
    return json.dumps(
        {
            "outcome": event.outcome,
            "check": event.check,
            "reason": event.reason,
            "expected": _shown(event.expected),
            "actual": _shown(event.actual),
            "hint": event.hint,
            "checks": check_list(CHECKS_OF_A_JWT, failed=event.check, not_asked=not_asked),
        }
    )


def of_token_request(error: DPoPError | None, *, checks: Iterable[Check]) -> str:
    """Return the header value for a decision of the token endpoint, whose policy asks for no nonce."""
    failed = None if error is None else error.check
    return json.dumps(
        {
            "outcome": "accepted" if error is None else "refused",
            "check": failed,
            "reason": "every check passed" if error is None else error.description,
            "expected": None if error is None else _shown(error.expected),
            "actual": None if error is None else _shown(error.actual),
            "hint": None if error is None else hint_for(error),
            "checks": check_list(checks, failed=failed, not_asked={Check.NONCE}),
        }
    )


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) and value.isascii() else ascii(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
