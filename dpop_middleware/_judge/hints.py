"""Why a proof or token failed, as a hint, for logs and for developers; never for the client."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from dpop_middleware._judge.misplaced import PROOF_AS_TOKEN, misplaced
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check, Reason
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidDPoPProof,
    InvalidToken,
    UseDPoPNonce,
)
from dpop_middleware.jose.strict import media_type
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.claims import difference

__all__ = ["hint_of"]

# 12 digits are in seconds the year 5138, in milliseconds 1973.
_MILLISECONDS = re.compile(r"\d{12,}(\.\d+)?")
_MOST_LETTERS = 2
_QUOTED = re.compile(r"""(['"])(.*?)\1""")

_OF_REASON: Mapping[Reason | None, str] = MappingProxyType(
    {
        Reason.TOO_MANY: "a flood? or clients with one mistake: see the refusals before this one",
        Reason.UNKNOWN_TICKET: "does each worker have the same secret, also after a restart? or made up?",
        Reason.UNLISTED_PAGE: "a page of another origin than the API's? name it in "
        "WebSocketTickets(origins=[…])",
    }
)
_OF_ANY_PROOF: Mapping[Check, str] = MappingProxyType(
    {
        Check.JTI: "sent twice, by a retry, a proxy or a thief? each request needs a new proof; two servers "
        "that judge the same request on one store need a replay_namespace each",
        Check.ATH: "a proof for another token, from before a refresh? ath is the token's SHA-256, base64url",
        Check.SIGNATURE: "signed by another key than the one in jwk? or an ECDSA signature in DER form?",
    }
)
_OF_ANY_TOKEN: Mapping[Check, str] = MappingProxyType(
    {
        Check.TOKEN_FORMAT: "an opaque or an encrypted token, or one that was cut short?",
        Check.TOKEN_TYP: "an issuer that differs from RFC 9068? name its typ in token_types",
        Check.TOKEN_KEY: "the keys of another issuer, or a new key that is not yet published?",
        Check.TOKEN_SIGNATURE: "was the token altered or cut short, or made by another issuer? or is there "
        "a new key under an old kid? that is noticed when the keys are renewed",
        Check.TOKEN_ACTIVE: "revoked, expired or made up, or a token of another issuer?",
        Check.TOKEN_AUD: "a token for another API? ask for this resource, or set audience to what it says",
        Check.JKT: "did the client make a new key after it got the token? a token belongs to one key",
    }
)

_NO_ATH = "made as for a token request? beside an access token it needs ath, the token's SHA-256, base64url"
_NO_SUCH_HOST = "a proxy that doesn't pass Host on? or a host that clients call is missing in public_url"
_NOT_WHOLE = "is it whole: three base64url parts with dots between, no padding, no line break?"
_STRIPPED = (
    "a proxy strips the prefix, and the server has no root path? with several prefixes in public_url, "
    "pass the prefix on or set the root path"
)


def _parts(uri: str) -> tuple[str, str, str]:
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    return scheme, authority, "/" + path


def _of_path(ours: str, theirs: str) -> str | None:
    """The difference between two paths of one origin, both in normal form."""
    decoded, our_decoded = unquote_to_bytes(theirs), unquote_to_bytes(ours)
    if decoded == our_decoded:
        return "only percent-encoding differs: sign the path as it is sent, %40 and @ are two paths"
    if decoded == ours.encode() or our_decoded == theirs.encode():
        return "one of the paths is percent-encoded twice: sign the path as it is sent"
    if theirs.lower() == ours.lower():
        return "only upper and lower case differ, and they are two paths: sign the path as it is sent"
    if decoded.lower() == our_decoded.lower():
        return "upper and lower case and percent-encoding differ: sign the path as it is sent"
    return None


def _of_htu(expected: str, actual: str) -> str | None:
    if "://" not in actual:
        return "the client must sign the absolute URL that it calls"
    our_scheme, our_authority, our_path = _parts(expected)
    scheme, authority, path = _parts(actual)
    if authority == our_authority and path == our_path:
        return f"scheme differs ({scheme}, not {our_scheme}): TLS ends at a proxy? set public_url"
    if scheme == our_scheme and path == our_path:
        return f"host differs: set public_url, if clients call {authority}"
    if path == our_path:
        return f"scheme and host differ: set public_url, if clients call {scheme}://{authority}"
    if (scheme, authority) == (our_scheme, our_authority):
        differs = _of_path(our_path, path)
        if differs is not None:
            return differs
    if path.rstrip("/") == our_path.rstrip("/"):
        return "trailing slash, or scheme or host, differs: sign the URL that is sent, after redirects"
    if path.endswith(our_path):
        return "the path has a prefix that is missing here: a proxy strips it? add it to public_url"
    if our_path.endswith(path):
        return "the path lacks a prefix that is here: has public_url or the root path one too many?"
    return None


def _of_target(expected: object, actual: object) -> str | None:
    if isinstance(actual, tuple):
        return _NO_SUCH_HOST if len(actual) == 1 else None
    if expected is None or not isinstance(actual, str):
        return None
    return _of_htu(expected, actual) if isinstance(expected, str) else _STRIPPED


def _of_time(name: object, actual: object) -> str | None:
    if _MILLISECONDS.fullmatch(str(actual)):
        return f"{name} is in milliseconds? it must be in seconds"
    return None


def _of_iat(expected: object, actual: object) -> str | None:
    if not isinstance(actual, (int, float)):
        return None
    if not isinstance(expected, tuple):
        return None
    earliest, latest = expected
    if actual > latest:
        return f"iat is {actual - latest:.0f} s too late: does the client's clock run fast?"
    return f"iat is {earliest - actual:.0f} s too early: an old proof, or a slow clock?"


def _of_one_header(expected: object, actual: object) -> str | None:
    if expected != 1:
        return None
    if actual == 0:
        return "the client sent no DPoP field, or a proxy dropped it?"
    return "a retry that added a field instead of replacing it, or a proxy that joined two?"


def _of_header(check: Check | None, actual: object, reason: Reason | None) -> str | None:
    if check is Check.TYP:
        return "is it the default of a JWT library? set typ to dpop+jwt in the header"
    if check is Check.ALG and isinstance(actual, str):
        if actual in SUPPORTED_ALGORITHMS or actual in POST_QUANTUM_ALGORITHMS:
            return "supported, but not among the algorithms of this server's policy"
        if actual == "none" or actual.startswith("HS"):
            return "a proof is signed with the client's private key, never with a shared secret"
    if reason is Reason.PRIVATE_KEY:
        return "jwk takes the public members only; this key is not secret any more: make a new one"
    return None


def _of_proof(error: DPoPError) -> str | None:
    check = error.check
    if check is Check.ONE_HEADER:
        return _of_one_header(error.expected, error.actual)
    if check in (Check.TYP, Check.ALG, Check.JWK):
        return _of_header(check, error.actual, error.reason)
    if check is Check.ATH and error.expected is not None:
        return _NO_ATH
    if check is Check.SIGNATURE and error.reason is Reason.NOT_BASE64URL:
        return _NOT_WHOLE
    if check in (Check.FORMAT, Check.CLAIMS) and error.reason is not Reason.NOT_JSON:
        return _NOT_WHOLE
    return None if check is None else _OF_ANY_PROOF.get(check)


def _of_token_time(now: object, actual: object) -> str | None:
    if not isinstance(now, (int, float)) or not isinstance(actual, (int, float)):
        return None
    if actual > now:
        return f"valid in {actual - now:.0f} s: does the issuer's clock run fast?"
    return f"it expired {now - actual:.0f} s ago"


def _of_spelling(error: DPoPError) -> str | None:
    """The difference between a name that is expected and one that is quoted in what was found."""
    expected = error.expected if isinstance(error.expected, (list, tuple)) else (error.expected,)
    found = (name for _, name in _QUOTED.findall(str(error.actual)))
    differs = difference(map(str, expected), found)
    if differs is None:
        return None
    if error.check is Check.TOKEN_ISS:
        return f"{differs}: name the issuer as it names itself"
    return f"{differs}: set audience to what the token says"


def _of_token(error: DPoPError) -> str | None:
    check = error.check
    if check is Check.TOKEN_TIME:
        return _of_token_time(error.expected, error.actual)
    if check is Check.TOKEN_CLAIMS and isinstance(error.expected, str) and error.actual is None:
        return f"the issuer leaves out {error.expected}? name the others in required_claims"
    if check is Check.TOKEN_CLAIMS and error.expected in ("exp", "nbf", "iat"):
        return _of_time(error.expected, error.actual)
    if check is Check.TOKEN_CLAIMS and isinstance(error.expected, tuple):
        return "does the issuer name the client elsewhere, as in azp or cid? name it in client_id_claims"
    if check is Check.TOKEN_TYP and media_type(str(error.actual).strip("'\"")) == "dpop+jwt":
        return PROOF_AS_TOKEN
    if check is Check.TOKEN_ALG and str(error.actual).strip("'\"").startswith("HS"):
        return "a token that only its issuer can verify: a refresh token? or have it sign with a private key"
    if check in (Check.TOKEN_ISS, Check.TOKEN_AUD) and (spelled := _of_spelling(error)) is not None:
        return spelled
    if check is Check.BINDING and error.scheme == "DPoP" and error.actual is None:
        return "did the token request carry a DPoP proof, and does the issuer support DPoP?"
    return None if check is None else _OF_ANY_TOKEN.get(check)


def _of_scopes(scopes: tuple[str, ...]) -> str | None:
    """FastAPI takes one text for a list of its characters; two scopes such as `r` and `w` are possible."""
    is_one_text = len(scopes) > _MOST_LETTERS and all(len(scope) == 1 for scope in scopes)
    return 'are these the letters of one scope? write scopes=["…"], a list' if is_one_text else None


def _of_requirement(error: InsufficientScope | InsufficientUserAuthentication) -> str | None:
    if isinstance(error, InsufficientScope):
        return _of_scopes(error.scopes)
    if error.actual is None:
        # Another login would bring the same token.
        return "the token doesn't say: does the issuer write acr and auth_time into access tokens?"
    return _of_time("auth_time", error.actual) if isinstance(error.actual, (int, float)) else None


def hint_of(error: DPoPError, request: ResourceRequest | None = None) -> str | None:
    """Return a likely cause of `error` in one sentence, None if none is known.

    `request` is the refused request; without it, values in a wrong place aren't looked for.
    """
    if request is not None and (found := misplaced(error, request)) is not None:
        return found
    if error.reason in _OF_REASON:
        return _OF_REASON[error.reason]
    if error.check is Check.HTU:
        return _of_target(error.expected, error.actual)
    if error.check is Check.IAT:
        return _of_iat(error.expected, error.actual)
    if error.check is Check.CLAIMS and error.expected is not None:
        return _of_time(error.expected, error.actual)
    if error.check is Check.HTM and isinstance(error.actual, str) and error.actual.upper() == error.expected:
        return "methods are case-sensitive: sign the method in upper case"
    if isinstance(error, UseDPoPNonce):
        return "the first answer brings a nonce in DPoP-Nonce: put it into a new proof and try once more"
    if isinstance(error, (InsufficientScope, InsufficientUserAuthentication)):
        return _of_requirement(error)
    if isinstance(error, InvalidDPoPProof):
        return _of_proof(error)
    return _of_token(error) if isinstance(error, InvalidToken) else None
