"""An error becomes a response: the one place that writes challenges (RFC 9449 section 7.1).

Everything in a header value is of our own making: fixed descriptions, configured names, issued nonces. The
descriptions of somebody else's verifier or store are cleaned first.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    Unavailable,
)
from dpop_middleware.policy import DPoPPolicy

__all__ = ["ErrorResponse", "Headers", "error_response", "nonce_headers"]

Headers = tuple[tuple[str, str], ...]

_CHALLENGED = frozenset({400, 401, 403})
# RFC 6750 section 3: what an error_description may not hold, and what would end its quoted string.
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What to answer: status, header fields in order (a name may come more than once), and a JSON body."""

    status: int
    headers: Headers
    body: bytes


def nonce_headers(nonce: str) -> Headers:
    """Return the fields that hand a nonce to the client, in a response that no cache keeps (section 8.2)."""
    return (("dpop-nonce", nonce), ("cache-control", "no-store"))


def _error_parameters(error: DPoPError) -> list[tuple[str, str]]:
    if error.code is None:
        return []
    parameters = [
        ("error", error.code),
        ("error_description", _NOT_IN_DESCRIPTION.sub("?", error.description)),
    ]
    if isinstance(error, InsufficientScope):
        parameters.append(("scope", " ".join(error.scopes)))
    if isinstance(error, InsufficientUserAuthentication):
        if error.acr_values:
            parameters.append(("acr_values", " ".join(error.acr_values)))
        if error.max_age is not None:
            parameters.append(("max_age", str(error.max_age)))
    return parameters


def _challenge(scheme: str, parameters: Collection[tuple[str, str]]) -> str:
    return " ".join((scheme, ", ".join(f'{name}="{value}"' for name, value in parameters))).rstrip()


def _challenges(error: DPoPError, policy: DPoPPolicy) -> list[str]:
    parameters = _error_parameters(error)
    algorithms = ("algs", " ".join(policy.algorithms))
    if not policy.accept_bearer:
        return [_challenge("DPoP", [*parameters, algorithms])]
    bearer = _challenge("Bearer", parameters if error.scheme in ("Bearer", None) else [])
    dpop = _challenge("DPoP", [*(parameters if error.scheme in ("DPoP", None) else []), algorithms])
    # Some clients look only at the beginning of what the lines are folded into.
    return [dpop, bearer] if error.scheme == "DPoP" else [bearer, dpop]


def error_response(error: DPoPError, policy: DPoPPolicy) -> ErrorResponse:
    """Return the response to `error` (RFC 9449 sections 7.1 and 7.2, RFC 6750 section 3).

    The error stands on the challenge of the scheme that was used, on both when that can't be told, and on
    neither without credentials. Where Bearer is accepted, each has a line of its own, that of the used scheme
    first.
    """
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    if error.status in _CHALLENGED:
        headers += [("www-authenticate", challenge) for challenge in _challenges(error, policy)]
    if error.nonce is not None:
        headers.append(("dpop-nonce", error.nonce))
    if isinstance(error, Unavailable):
        headers.append(("retry-after", str(error.retry_after)))
    content = {"error": error.code} if error.code is not None else {}
    body = json.dumps(content | {"error_description": error.description}).encode()
    return ErrorResponse(error.status, (*headers, ("content-length", str(len(body)))), body)
