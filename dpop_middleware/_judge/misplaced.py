"""Hints for values in a wrong place, from one quick look at the fields of a request.

Nothing here is verified or parsed, and only the beginning of a field is examined: a nonsensical request may
get a wrong hint in the log, but costs the server almost nothing.
"""

import binascii
import re
from typing import Final

from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
)
from dpop_middleware.jose.strict import media_type
from dpop_middleware.profiles import KNOWN, Profile

__all__ = ["PROOF_AS_TOKEN", "fitting_profile", "misplaced"]

PROOF_AS_TOKEN: Final = (
    "this is a proof: it belongs in the DPoP field, and Authorization takes the access token"
)

_HEADER: Final = 1024
_PAYLOAD: Final = 4096
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_SCHEMES: Final = ("dpop", "bearer")
_NO_TOKENS: Final = frozenset({"undefined", "null", "none", "nan", "false", "true"})
# Only this many characters of a longer word are lowered: lowering costs more than receiving them.
_LONGEST_WORD: Final = max(map(len, (*_SCHEMES, *_NO_TOKENS)))
# The checks that fail before the claims of a proof are read.
_FORM_OF_PROOF: Final = frozenset({Check.FORMAT, Check.TYP})
_TYP: Final = re.compile(rb'"typ"\s*:\s*"([^"\\]{1,60})"')


def _decoded(segment: str, limit: int) -> bytes:
    octets = segment[:limit].encode("ascii", "replace").translate(_FROM_URL)
    try:
        return binascii.a2b_base64(octets + b"==")
    except ValueError:
        return b""


def _glance(text: str) -> tuple[bytes, bytes]:
    """Return the beginnings of a JWT's header and payload, decoded; empty if it isn't a JWT."""
    header, _, rest = text[: _HEADER + _PAYLOAD].partition(".")
    return _decoded(header, _HEADER).lower(), _decoded(rest.partition(".")[0], _PAYLOAD)


def _word(text: str) -> str:
    """Return the first word of a field in lower case, cut to the length of the longest known word."""
    return text[: _LONGEST_WORD + 1].partition(" ")[0].lower()


def _is_proof(text: str) -> bool:
    return b"dpop+jwt" in _decoded(text[:_HEADER].partition(".")[0], _HEADER).lower()


def _is_access_token(text: str) -> bool:
    header, payload = _glance(text)
    return b"at+jwt" in header or (b'"jwk"' not in header and b'"iss"' in payload)


def _of_authorization(error: DPoPError, request: ResourceRequest, token: str) -> str | None:
    if isinstance(error, MissingCredentials):
        if not request.authorization:
            return "a proof without its token: did a proxy drop Authorization?" if request.dpop else None
        alone = not token and _word(request.authorization[0]) not in _SCHEMES
        return "a token without a scheme? send it as Authorization: DPoP <token>" if alone else None
    if _word(token) in _SCHEMES:
        return "the scheme is there twice: send Authorization: DPoP <token>"
    return "the token is in quotes: send it without them" if token[:1] in ('"', "'") else None


def _of_token(error: DPoPError, token: str, *, scheme: str, with_proof: bool) -> str | None:
    check, bound = error.check, error.jkt is not None
    if _word(token) in _NO_TOKENS:
        return "did the client have no token yet, and send that in its place?"
    header, payload = _glance(token)
    if check is Check.BINDING:
        if scheme != "bearer":
            return None
        if bound or b'"jkt"' in payload:
            return "the token is bound to a key: send it with the scheme DPoP, not Bearer"
        if with_proof:
            return "a proof came along, so is the token bound? send it with the scheme DPoP, not Bearer"
        return None
    if b'"Refresh"' in payload or b'"Offline"' in payload:
        return "a refresh token? it is for the token endpoint only: send the access token"
    if check in (Check.TOKEN_TYP, Check.TOKEN_AUD) and (b'"at_hash"' in payload or b'"nonce"' in payload):
        return "an ID token? it is for the client only: send the access token"
    return fitting_profile(error, header, payload)


def _of_proof(proof: str, token: str) -> str | None:
    if _word(proof) in _SCHEMES:
        return "the DPoP field takes the proof alone: no scheme before it"
    if proof == token or _is_access_token(proof):
        return "this is an access token: it belongs in Authorization, and the DPoP field takes a proof"
    return None


def misplaced(error: DPoPError, request: ResourceRequest) -> str | None:
    """Return a hint for a value that `request` seems to have in a wrong place; None without one.

    `error` is the refusal.
    """
    scheme, _, token = (request.authorization[0] if len(request.authorization) == 1 else "").partition(" ")
    scheme, token = _word(scheme), token.strip(" ")
    if error.check is Check.AUTHORIZATION and isinstance(error, (MissingCredentials, InvalidRequest)):
        return _of_authorization(error, request, token)
    no_proof = error.check is Check.ONE_HEADER and not request.dpop
    if (no_proof or isinstance(error, InvalidToken)) and _is_proof(token):
        return PROOF_AS_TOKEN
    if isinstance(error, InvalidToken):
        return _of_token(error, token, scheme=scheme, with_proof=bool(request.dpop))
    if isinstance(error, InvalidDPoPProof) and error.check in _FORM_OF_PROOF and len(request.dpop) == 1:
        return _of_proof(request.dpop[0], token)
    return None


def fitting_profile(error: DPoPError, header: bytes, payload: bytes) -> str | None:
    """Return a sentence that names the profile whose tokens look like this one; None without one.

    - `error`: the refusal of the token; only its typ and a missing claim have to do with profiles.
    - `header`, `payload`: the beginnings of both, decoded, the header in lower case.
    """
    if error.check is not Check.TOKEN_TYP and not (
        error.check is Check.TOKEN_CLAIMS and error.actual is None and error.expected is not None
    ):
        return None
    named = _TYP.search(header)
    typ = None if named is None else media_type(named[1].decode("ascii", "replace"))
    # The configured profile doesn't fit, or this check would have passed.
    found = next((profile for profile in KNOWN if _fits(profile, typ, payload)), None)
    if found is None:
        return None
    return f"a token of this shape is accepted with profile=profiles.{found.name}"


def _fits(profile: Profile, typ: str | None, payload: bytes) -> bool:
    if typ not in map(media_type, profile.token_types):
        return False
    return all(
        any(
            b'"%s"' % claim.encode() in payload
            for claim in (profile.client_id_claims if name == "client_id" else (name,))
        )
        for name in profile.required_claims
    )
