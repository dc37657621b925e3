"""The checks that one request passes, named and in the order in which they are made."""

from enum import StrEnum

__all__ = ["Check", "Reason"]


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


class Reason(StrEnum):
    """Why a check failed, where the check alone doesn't tell what to do about it; for hints."""

    NOT_BASE64URL = "not_base64url"
    NOT_JSON = "not_json"
    PRIVATE_KEY = "private_key"
