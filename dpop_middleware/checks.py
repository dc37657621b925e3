"""The checks that one request passes, named and in the order in which they are made."""

from enum import StrEnum
from typing import Final

__all__ = ["CHECKS_OF_AN_OPAQUE_TOKEN", "CHECKS_OF_A_JWT", "UNSIGNED_CHECKS_OF_A_PROOF", "Check", "Reason"]


class Check(StrEnum):
    """One check of a request to a protected resource (RFC 9449 sections 4.3 and 7)."""

    AUTHORIZATION = "authorization"
    TARGET = "target"
    ONE_HEADER = "one_header"
    TOKEN_FORMAT = "token_format"
    TOKEN_TYP = "token_typ"
    TOKEN_ALG = "token_alg"
    TOKEN_KEY = "token_key"
    TOKEN_SIGNATURE = "token_signature"
    TOKEN_ACTIVE = "token_active"
    TOKEN_CLAIMS = "token_claims"
    TOKEN_ISS = "token_iss"
    TOKEN_AUD = "token_aud"
    TOKEN_TIME = "token_time"
    BINDING = "binding"
    FORMAT = "format"
    TYP = "typ"
    CRIT = "crit"
    ALG = "alg"
    JWK = "jwk"
    JKT = "jkt"
    CLAIMS = "claims"
    HTM = "htm"
    HTU = "htu"
    ATH = "ath"
    SIGNATURE = "signature"
    IAT = "iat"
    NONCE = "nonce"
    JTI = "jti"
    SCOPE = "scope"
    AUTHENTICATION = "authentication"


CHECKS_OF_A_JWT: Final[tuple[Check, ...]] = tuple(check for check in Check if check is not Check.TOKEN_ACTIVE)
"""The checks of a request whose access token is a signed JWT, in order."""

_OF_THE_REQUEST: Final = (Check.AUTHORIZATION, Check.TARGET, Check.ONE_HEADER)
_OF_AN_ANSWER: Final = (
    Check.TOKEN_FORMAT,
    Check.TOKEN_ACTIVE,
    Check.TOKEN_CLAIMS,
    Check.TOKEN_ISS,
    Check.TOKEN_AUD,
    Check.TOKEN_TIME,
    Check.BINDING,
    Check.JKT,
)
_AT_THE_END: Final = (Check.JTI, Check.SCOPE, Check.AUTHENTICATION)

UNSIGNED_CHECKS_OF_A_PROOF: Final[tuple[Check, ...]] = (
    Check.FORMAT,
    Check.TYP,
    Check.CRIT,
    Check.ALG,
    Check.JWK,
    Check.CLAIMS,
    Check.HTM,
    Check.HTU,
)
"""The checks of a proof that come before its signature, in order; none of them needs the access token."""

CHECKS_OF_AN_OPAQUE_TOKEN: Final[tuple[Check, ...]] = (
    *_OF_THE_REQUEST,
    *UNSIGNED_CHECKS_OF_A_PROOF,
    Check.ATH,
    Check.IAT,
    Check.NONCE,
    Check.SIGNATURE,
    *_OF_AN_ANSWER,
    *_AT_THE_END,
)
"""The checks, in order, of a request whose access token another server judges: the proof comes first."""


class Reason(StrEnum):
    """Why a check failed, where the check alone doesn't say what to do about it; for hints."""

    NOT_BASE64URL = "not_base64url"
    NOT_JSON = "not_json"
    PRIVATE_KEY = "private_key"
    TOO_MANY = "too_many"
    UNKNOWN_TICKET = "unknown_ticket"
    UNLISTED_PAGE = "unlisted_page"
