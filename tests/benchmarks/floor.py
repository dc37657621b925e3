"""What a verdict would cost as one straight function: the floor under the figures of `judge`.

The same checks as those of `ResourceServer.authenticate` for a usual request, ES256 only, without modules,
messages, events, policies, nonces and settings. What lies between this and `judge` is what those cost; what
lies between this and the bare verifications is the work itself. For measuring only: it knows too little to
protect anything.
"""

import hashlib
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from dpop_middleware import DPoPProof, ReplayEntry, ResourceServer, VerifiedRequest
from dpop_middleware._proof.proof import ProofHeader
from dpop_middleware.jose import base64url, strict_json
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.token_cache import VerifiedToken, read_only_claims
from tests.benchmarks.workload import RESOURCE, Scope

__all__ = ["Refused", "straight"]

_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_REQUIRED = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
_SCHEME = ECDSA(Prehashed(SHA256()))
_CURVE = SECP256R1()


class Refused(Exception):
    """Which check it was is part of what is left out here."""


def _verify(key: Any, signing_input: bytes, signature: bytes) -> None:
    if len(signature) != 64:
        raise Refused
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), hashlib.sha256(signing_input).digest(), _SCHEME)
    except InvalidSignature as error:
        raise Refused from error


# One long function on purpose: what it would cost to take it apart is what `judge` measures.
async def straight(api: ResourceServer, scope: Scope) -> VerifiedRequest:  # noqa: C901, PLR0912, PLR0915
    """Judge one request with the caches, the keys and the store of `api`."""
    # The very caches that it is compared with, which are nobody else's business.
    part: Any = api.verification  # pyright: ignore[reportPrivateUsage]
    tokens, keys = part.verifier._cache._tokens, part.verifier._source.current()
    authorization, proofs = [], []
    for name, value in scope["headers"]:
        lowered = name.lower()
        if lowered == b"authorization":
            authorization.append(value.decode("latin-1").strip(" \t"))
        elif lowered == b"dpop":
            proofs.append(value.decode("latin-1").strip(" \t"))
    path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
    if len(authorization) != 1 or len(proofs) != 1 or "," in proofs[0] or len(proofs[0]) > 8192:
        raise Refused
    kind, _, text = authorization[0].partition(" ")
    octets = text.encode("ascii")
    if kind.lower() != "dpop" or not 0 < len(text) <= 16_384 or octets.translate(None, _TOKEN68):
        raise Refused
    ath = base64url.encode(hashlib.sha256(octets).digest())
    now = time.time()
    known = tokens.get(text[-32:])
    if known is None or known.token_hash != ath:
        segments = text.split(".", 3)
        if len(segments) != 3:
            raise Refused
        header = strict_json.parse_object(base64url.decode(segments[0]))
        payload = base64url.decode(segments[1])
        if not {"crit", "b64", "zip", "enc"}.isdisjoint(header) or header.get("alg") != "ES256":
            raise Refused
        if header.get("typ", "").lower() not in ("at+jwt", "application/at+jwt"):
            raise Refused
        (issuer_key,) = keys.candidates(kid=header.get("kid"), algorithm="ES256").keys
        _verify(issuer_key.key, text.rpartition(".")[0].encode(), base64url.decode(segments[2]))
        claims = strict_json.parse_object(payload)
        if not all(name in claims for name in _REQUIRED):
            raise Refused
        subject, client_id, token_id, scopes = (
            claims["sub"],
            claims["client_id"],
            claims["jti"],
            claims["scope"],
        )
        if not all(isinstance(value, str) and value for value in (subject, client_id, token_id, scopes)):
            raise Refused
        if claims["iss"] != part.verifier.issuers[0] or claims["aud"] != RESOURCE:
            raise Refused
        issued_at, expires_at = claims["iat"], claims["exp"]
        if not isinstance(issued_at, int) or not isinstance(expires_at, int):
            raise Refused
        access_token = AccessToken(
            claims=read_only_claims(payload),
            issuer=claims["iss"],
            subject=subject,
            client_id=client_id,
            scopes=frozenset(scopes.split(" ")),
            expires_at=expires_at,
            jkt=claims["cnf"]["jkt"],
        )
        known = VerifiedToken(
            access_token=access_token,
            token_hash=ath,
            not_before=issued_at,
            key_identity=issuer_key.identity,
        )
        tokens.put(text[-32:], known, size=len(payload) + 4000)
    if not known.not_before - 15 <= now < known.access_token.expires_at + 15:
        raise Refused
    segments = proofs[0].split(".", 3)
    if len(segments) != 3:
        raise Refused
    memo: Any = known.access_token.client_memo
    if memo is not None and memo[0] == segments[0]:
        client = memo[1]
    else:
        header = strict_json.parse_object(base64url.decode(segments[0]))
        if header.get("typ") != "dpop+jwt" or header.get("alg") != "ES256":
            raise Refused
        jwk = header["jwk"]
        if not _PRIVATE.isdisjoint(jwk) or jwk["kty"] != "EC" or jwk["crv"] != "P-256":
            raise Refused
        x, y = base64url.decode(jwk["x"]), base64url.decode(jwk["y"])
        if len(x) != 32 or len(y) != 32:
            raise Refused
        members = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
        client = ProofHeader(
            ALGORITHMS["ES256"],
            EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + x + y),
            base64url.encode(hashlib.sha256(members.encode()).digest()),
        )
        known.access_token.remember_client((segments[0], client))
    if client.jkt != known.access_token.jkt:
        raise Refused
    claims = strict_json.parse_object(base64url.decode(segments[1]))
    jti, iat, nonce = claims.get("jti"), claims.get("iat"), claims.get("nonce")
    if not isinstance(jti, str) or not 0 < len(jti) <= 512 or not isinstance(iat, int):
        raise Refused
    if (
        claims.get("htm") != scope["method"]
        or claims.get("htu") != RESOURCE + path
        or claims.get("ath") != ath
    ):
        raise Refused
    _verify(client.key, proofs[0].rpartition(".")[0].encode(), base64url.decode(segments[2]))
    if not iat - 30 <= now <= iat + 90:
        raise Refused
    entry = ReplayEntry(
        part.proofs.keyspace.key(jkt=client.jkt, jti=jti), client.jkt, now, iat - 30, iat + 95
    )
    if not await part.proofs.store.add(entry):
        raise Refused
    proof = DPoPProof(jti, scope["method"], RESOURCE + path, iat, ath, nonce, client.jkt, "ES256")
    return VerifiedRequest(known.access_token, proof)
