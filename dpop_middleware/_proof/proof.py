"""The DPoP proof: its contents and its checks (RFC 9449 sections 4.2 and 4.3).

Each check is one function that returns its result or raises InvalidDPoPProof. The callers decide the order of
the checks; times are arguments.
"""

from collections.abc import Collection
from typing import NamedTuple

from dpop_middleware._request.uri import URIError, normalize
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidDPoPProof, Refusal
from dpop_middleware.jose import LATEST_TIME, JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS, Algorithm, PublicKey
from dpop_middleware.jose.jwk import public_key, thumbprint
from dpop_middleware.jose.strict import CompactJWS, split

__all__ = [
    "DPoPProof",
    "ProofHeader",
    "check_algorithm",
    "check_ath",
    "check_htm",
    "check_htu",
    "check_signature",
    "parse_claims",
    "parse_header",
    "split_proof",
]

_MAX_JTI_LENGTH = 512
_TYP = "dpop+jwt"
_EXTENSIONS = ("crit", "b64", "zip")


class ProofHeader(NamedTuple):
    """The JOSE header of a proof: its algorithm, its public key, and that key's thumbprint."""

    algorithm: Algorithm
    key: PublicKey
    jkt: str


class DPoPProof(NamedTuple):
    """The contents of a DPoP proof (RFC 9449 section 4.2).

    `iat`, `exp` and `nbf` are in seconds since the epoch; of them only `iat` is DPoP's own. `exp`, `nbf`,
    `ath` and `nonce` are None where the proof has none. `jkt` is the RFC 7638 thumbprint of the proof's
    key and `algorithm` the JWS name of its signature.
    """

    jti: str
    htm: str
    htu: str
    iat: float
    ath: str | None
    nonce: str | None
    jkt: str
    algorithm: str
    exp: float | None = None
    nbf: float | None = None


def _malformed(error: JOSEError, description: str, check: Check) -> InvalidDPoPProof:
    return InvalidDPoPProof(
        description, check=check, actual=error.description, refusal=Refusal(reason=error.reason)
    )


def split_proof(proof: str) -> CompactJWS:
    """Split a proof into its three segments (check 2)."""
    try:
        return split(proof)
    except JOSEError as error:
        raise _malformed(error, "the DPoP proof is not a signed JWT", Check.FORMAT) from error


def check_algorithm(alg: object, algorithms: Collection[str]) -> None:
    """`alg` names one of `algorithms` (check 5)."""
    if not isinstance(alg, str) or alg not in algorithms:
        raise InvalidDPoPProof(
            "the alg of the DPoP proof is not accepted here",
            check=Check.ALG,
            expected=tuple(algorithms),
            actual=alg,
        )


def parse_header(segment: str, algorithms: Collection[str]) -> ProofHeader:
    """Read the header segment: `typ`, `alg` and the public `jwk` (checks 4, 5 and 7)."""
    try:
        header = strict.parse_header(segment)
    except JOSEError as error:
        raise _malformed(error, "the header of the DPoP proof is not a JSON object", Check.FORMAT) from error
    typ = header.get("typ")
    if strict.media_type(typ) != _TYP:
        raise InvalidDPoPProof(
            "the typ of the DPoP proof is not dpop+jwt", check=Check.TYP, expected=_TYP, actual=typ
        )
    for member in _EXTENSIONS:
        # `b64` true is the normal encoding of a JWS (RFC 7797 section 3).
        if member in header and (member != "b64" or header[member] is not True):
            raise InvalidDPoPProof(
                "the DPoP proof uses a JOSE extension that is not supported", check=Check.CRIT, actual=member
            )
    check_algorithm(header.get("alg"), algorithms)
    algorithm, jwk = ALGORITHMS[header["alg"]], header.get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidDPoPProof("the DPoP proof has no jwk", check=Check.JWK)
    try:
        return ProofHeader(algorithm, public_key(jwk, algorithm), thumbprint(jwk))
    except JOSEError as error:
        fault = "the jwk of the DPoP proof is not an acceptable public key"
        raise _malformed(error, fault, Check.JWK) from error


def _bad_claim(name: str, fault: str = "missing or malformed", actual: object = None) -> InvalidDPoPProof:
    return InvalidDPoPProof(
        f"the {name} of the DPoP proof is {fault}", check=Check.CLAIMS, expected=name, actual=actual
    )


def _time(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad_claim(name)
    if not 0 <= value <= LATEST_TIME:
        raise _bad_claim(name, "not a time", value)
    return value


def parse_claims(segment: str, header: ProofHeader) -> DPoPProof:
    """Read the payload segment: every claim has its type, and none is judged yet (check 3)."""
    try:
        claims = strict.parse_untrusted_object(base64url.decode(segment))
    except JOSEError as error:
        raise _malformed(error, "the payload of the DPoP proof is not a JSON object", Check.CLAIMS) from error
    jti, htm, htu = claims.get("jti"), claims.get("htm"), claims.get("htu")
    iat, ath, nonce = claims.get("iat"), claims.get("ath"), claims.get("nonce")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI_LENGTH:
        raise _bad_claim("jti")
    if not isinstance(htm, str) or not htm:
        raise _bad_claim("htm")
    if not isinstance(htu, str) or not htu:
        raise _bad_claim("htu")
    if not isinstance(ath, str) and "ath" in claims:
        raise _bad_claim("ath", "malformed")
    if not isinstance(nonce, str) and "nonce" in claims:
        raise _bad_claim("nonce", "malformed")
    return DPoPProof(
        jti,
        htm,
        htu,
        _time("iat", iat),
        ath,
        nonce,
        header.jkt,
        header.algorithm.name,
        _time("exp", claims["exp"]) if "exp" in claims else None,
        _time("nbf", claims["nbf"]) if "nbf" in claims else None,
    )


def check_htm(proof: DPoPProof, method: str) -> None:
    """`htm` is the request's method, in the same case (check 8)."""
    if proof.htm != method:
        raise InvalidDPoPProof(
            "the htm of the DPoP proof is not the method of the request",
            check=Check.HTM,
            expected=method,
            actual=proof.htm,
        )


def check_htu(proof: DPoPProof, target_uri: str) -> None:
    """`htu` names the target URI, which is given in normal form (check 9)."""
    if proof.htu == target_uri:
        return
    try:
        htu = normalize(proof.htu)
    except URIError as error:
        raise InvalidDPoPProof(
            "the htu of the DPoP proof is not an absolute http or https URI",
            check=Check.HTU,
            expected=target_uri,
            actual=str(error),
        ) from error
    if htu != target_uri:
        raise InvalidDPoPProof(
            "the htu of the DPoP proof is not the URI of the request",
            check=Check.HTU,
            expected=target_uri,
            actual=htu,
        )


def check_ath(proof: DPoPProof, ath: str) -> None:
    """`ath` is the hash of the access token that came with it (check 12)."""
    if proof.ath is None:
        raise InvalidDPoPProof("the DPoP proof has no ath", check=Check.ATH, expected="ath")
    if proof.ath != ath:
        raise InvalidDPoPProof(
            "the ath of the DPoP proof is not the hash of the access token", check=Check.ATH
        )


def check_signature(jws: CompactJWS, header: ProofHeader) -> None:
    """The signature verifies with the key in the header (check 6)."""
    try:
        signature = base64url.decode(jws.signature)
    except JOSEError as error:
        raise _malformed(error, "the signature of the DPoP proof is malformed", Check.SIGNATURE) from error
    if not header.algorithm.verify(header.key, jws.signing_input, signature):
        raise InvalidDPoPProof("the signature of the DPoP proof does not verify", check=Check.SIGNATURE)
