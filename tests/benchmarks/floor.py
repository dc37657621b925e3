"""The cost of a verdict in one straight function: the floor under the figures of `judge`.

The same checks as those of `DPoPMiddleware` for a usual request, ES256 only, without modules, messages,
events, policies, nonces and settings. The difference from `judge` is the cost of those; the difference from
the bare verifications is the work itself. For measuring only: it checks too little to protect anything.
"""

import hashlib
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import DPoPProof, ReplayEntry, ResourceServer, VerifiedRequest
from dpop_middleware._proof.proof import ProofHeader
from dpop_middleware.jose import base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import VerifiedToken, read_only_claims
from tests.benchmarks.workload import RESOURCE

__all__ = ["Refused", "Straight"]

_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_REQUIRED = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
_SCHEME = ECDSA(Prehashed(SHA256()))
_CURVE = SECP256R1()
_PLAIN = _TOKEN68 + b"!$&'()*,;=:@"
_EXTENSIONS = frozenset({"crit", "b64", "zip", "enc"})
_LATEST = 253_402_300_799


class Refused(Exception):
    """A refusal; the name of the check is left out here."""


def _verify(key: Any, signing_input: bytes, signature: bytes) -> None:
    if len(signature) != 64:
        raise Refused
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), hashlib.sha256(signing_input).digest(), _SCHEME)
    except InvalidSignature as error:
        raise Refused from error


class Straight:
    """The floor as an ASGI application around another; it judges with the caches, keys and store of `api`."""

    def __init__(self, app: ASGIApp, api: ResourceServer) -> None:
        self._app = app
        # The same private parts as in the application with which it is compared.
        part: Any = api.verification
        self._issuer = part.verifier.issuers[0]
        self._tokens = part.verifier._cache
        self._keys = part.verifier._source.current
        self._store = part.proofs.store
        self._keyspace = part.proofs.keyspace

    # One long function on purpose: `judge` measures the cost of splitting it.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915
        """Let a valid request through to the application; raises Refused for any other."""
        authorization, proof, fields = None, None, scope["headers"]
        if len(fields) > 256:
            raise Refused
        for name, value in fields:
            if len(name) == 13 and name.lower() == b"authorization":
                if authorization is not None:
                    raise Refused
                authorization = value
            elif len(name) == 4 and name.lower() == b"dpop":
                if proof is not None:
                    raise Refused
                proof = value.decode("latin-1").strip(" \t")
        octets = scope["raw_path"].partition(b"?")[0]
        # Paths that must be rewritten or are ambiguous are rare: no need to be quick.
        if len(octets) > 4096 or octets[:1] != b"/" or b"/." in octets or octets.translate(None, _PLAIN):
            raise Refused
        if authorization is None or not proof or len(proof) > 8192 or not proof.isascii() or "," in proof:
            raise Refused
        kind, _, octets_of_token = authorization.strip(b" \t").partition(b" ")
        octets_of_token = octets_of_token.lstrip(b" ")
        if kind.lower() != b"dpop" or not 0 < len(octets_of_token) <= 16_384:
            raise Refused
        if octets_of_token.translate(None, _TOKEN68):
            raise Refused
        ath = base64url.encode(hashlib.sha256(octets_of_token).digest())
        now = time.time()
        text = octets_of_token.decode("ascii")
        known, keys = self._tokens.get(text[-32:]), self._keys()
        if known is None or known.token_hash != ath or known.key_identity not in keys.identities:
            known = self._verified(text, ath, keys)
        token = known.access_token
        expires_at = token.expires_at
        if not known.not_before - 15 <= now < expires_at + 15:
            raise Refused
        segment, _, rest = proof.partition(".")
        payload, dot, signature = rest.partition(".")
        if not dot or "." in signature:
            raise Refused
        memo: Any = token.client_memo
        if memo is not None and memo[0] == segment:
            client = memo[1]
        else:
            client = _client(segment)
            memo = (segment, client, f"{token.issuer} {token.identity}")
            token.remember_client(memo)
        jkt = client.jkt
        if jkt != token.jkt:
            raise Refused
        claims = strict.parse_untrusted_object(base64url.decode(payload))
        get = claims.get
        jti, iat, nonce = get("jti"), get("iat"), get("nonce")
        if type(jti) is not str or not 0 < len(jti) <= 512 or type(iat) is not int or not 0 <= iat <= _LATEST:
            raise Refused
        if (nonce is not None and type(nonce) is not str) or "exp" in claims or "nbf" in claims:
            raise Refused
        method, uri = scope["method"], RESOURCE + octets.decode("ascii")
        if get("htm") != method or get("htu") != uri or get("ath") != ath:
            raise Refused
        _verify(client.key, proof[: -len(signature) - 1].encode(), base64url.decode(signature))
        if not iat - 30 <= now <= iat + 90:
            raise Refused
        key, until = self._keyspace.key(jkt=jkt, jti=jti), min(iat + 95, max(expires_at, now) + 300)
        name = self._keyspace.name
        entry = ReplayEntry(key, jkt, now, iat - 30, until, memo[2], name, iat, 95, iat)
        if not await self._store.add(entry):
            raise Refused
        scope["dpop"] = VerifiedRequest(token, DPoPProof(jti, method, uri, iat, ath, nonce, jkt, "ES256"))
        await self._app(scope, receive, send)

    def _verified(self, text: str, ath: str, keys: Any) -> VerifiedToken:
        segments = text.split(".", 3)
        if len(segments) != 3:
            raise Refused
        header = strict.parse_untrusted_object(base64url.decode(segments[0]))
        payload = base64url.decode(segments[1])
        if not _EXTENSIONS.isdisjoint(header) or header.get("alg") != "ES256":
            raise Refused
        if header.get("typ", "").lower() not in ("at+jwt", "application/at+jwt"):
            raise Refused
        (issuer_key,) = keys.candidates(kid=header.get("kid"), algorithm="ES256").keys
        _verify(issuer_key.key, text.rpartition(".")[0].encode(), base64url.decode(segments[2]))
        claims = strict.parse_object(payload)
        if not all(name in claims for name in _REQUIRED):
            raise Refused
        texts = subject, client_id, _, scopes = [
            claims[name] for name in ("sub", "client_id", "jti", "scope")
        ]
        if not all(isinstance(value, str) and value for value in texts):
            raise Refused
        if claims["iss"] != self._issuer or claims["aud"] != RESOURCE:
            raise Refused
        issued_at, expires_at = claims["iat"], claims["exp"]
        if type(issued_at) is not int or type(expires_at) is not int:
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
        verified = VerifiedToken(
            access_token=access_token,
            token_hash=ath,
            not_before=issued_at,
            key_identity=issuer_key.identity,
        )
        self._tokens.put(text[-32:], verified, size=len(payload) + 4000)
        return verified


def _client(segment: str) -> ProofHeader:
    header = strict.parse_untrusted_object(base64url.decode(segment))
    if header.get("typ") != "dpop+jwt" or header.get("alg") != "ES256" or not _EXTENSIONS.isdisjoint(header):
        raise Refused
    jwk = header["jwk"]
    if not _PRIVATE.isdisjoint(jwk) or jwk["kty"] != "EC" or jwk["crv"] != "P-256":
        raise Refused
    x, y = base64url.decode(jwk["x"]), base64url.decode(jwk["y"])
    if len(x) != 32 or len(y) != 32:
        raise Refused
    members = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
    return ProofHeader(
        ALGORITHMS["ES256"],
        EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + x + y),
        base64url.encode(hashlib.sha256(members.encode()).digest()),
    )
