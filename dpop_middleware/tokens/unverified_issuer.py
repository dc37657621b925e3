"""Which issuer a JWT says it is from, before anything is verified: to choose who verifies it, and no more.

Whoever verifies the token compares its `iss` again, after the signature. So a sender who makes us read
another `iss` than the one at the top gains nothing, and the payload is searched at C speed, not parsed.
"""

import json
import re
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, base64url, compact
from dpop_middleware.tokens.signed_token import MAX_TOKEN_SIZE, not_a_jwt

__all__ = ["unverified_issuer"]

# Within a string of JSON each quote has a backslash before it, so this is a member, at whatever depth.
_ISS: Final = re.compile(rb'"iss"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")')
# Possessive, and one without an end is taken to the end: no sender makes it look at an octet twice.
_STRING: Final = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
_URL: Final = re.compile(r"[\x21-\x7e]{1,512}")
# Where a payload names several issuers, in `act` for instance, so many strings, escapes and issuers are seen.
_MOST_QUOTES: Final = 1000
_MOST_ESCAPES: Final = 300
_MOST_ISSUERS: Final = 8


def unverified_issuer(token: str) -> str:
    """Return what `token` has in `iss`, unverified; raises InvalidToken.

    Not checked: the signature, and whether this is the `iss` at the top where the payload has no other one.
    """
    if len(token) > MAX_TOKEN_SIZE:
        raise not_a_jwt()
    try:
        payload = base64url.decode(compact.split(token).payload)
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
