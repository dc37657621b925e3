"""DPoP proofs with one named defect each, and the required answer: for tests only.

Every defect starts from an honest proof and changes one thing, signed again with the client's own key where
possible, so that only the check under test can refuse it.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from dpop_middleware.checks import Check
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.jose import base64url
from dpop_middleware.testing.issuer import ABSENT, Absent, encode_jws, merged
from dpop_middleware.tokens.access_token import token_hash

__all__ = ["BROKEN_PROOFS", "BrokenProof", "HonestProof", "broken_proof"]

_Fields = tuple[str, ...]

_AGES: Final = 86_400
_OVERSIZED: Final = 9 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HonestProof:
    """The values of an honest proof, which a defect changes.

    `access_token` is None at a token endpoint, `nonce` where the server sent none; `now` is in seconds since
    the epoch.
    """

    key: DPoPKey
    method: str
    url: str
    access_token: str | None = None
    nonce: str | None = None
    now: float

    def encode(
        self,
        *,
        header: Mapping[str, Any] = MappingProxyType({}),
        claims: Mapping[str, Any] = MappingProxyType({}),
        key: DPoPKey | bytes | Absent | None = None,
    ) -> str:
        """Return the proof with changed members (ABSENT removes one), signed by `key` or the client's key."""
        honest_header = {"typ": "dpop+jwt", "alg": self.key.algorithm, "jwk": self.key.public_jwk}
        honest_claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": self.method,
            "htu": self.url.split("#")[0].split("?")[0],
            "iat": int(self.now),
            "ath": ABSENT if self.access_token is None else token_hash(self.access_token),
            "nonce": ABSENT if self.nonce is None else self.nonce,
        }
        return encode_jws(
            merged(honest_header, header),
            merged(honest_claims, claims),
            key=self.key if key is None else key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenProof:
    """One defect: the `DPoP` fields, and the answer that a resource server must give.

    - `check`: the check that must refuse it.
    - `status`, `error`: the answer of a resource server; a token endpoint answers 400 with the same error.
    - `presentations`: the number of the request that must be refused; 2 for a replay.
    - `by_time`: whether only a server that checks `iat` refuses it, not one that checks a nonce.
    - `needs_token`: whether it applies only to a request with an access token.
    """

    name: str
    fields: Callable[[HonestProof], _Fields]
    check: Check
    status: int = 401
    error: str = "invalid_dpop_proof"
    presentations: int = 1
    by_time: bool = False
    needs_token: bool = False


def _header(**members: Any) -> Callable[[HonestProof], _Fields]:
    return lambda honest: (honest.encode(header=members),)


def _claims(**members: Any) -> Callable[[HonestProof], _Fields]:
    return lambda honest: (honest.encode(claims=members),)


def _dated(offset: float) -> Callable[[HonestProof], _Fields]:
    return lambda honest: (honest.encode(claims={"iat": int(honest.now + offset)}),)


def _another(honest: HonestProof) -> DPoPKey:
    # Of the same algorithm: the server may accept no other.
    return DPoPKey.generate(honest.key.algorithm)


def _by_another_key(honest: HonestProof) -> _Fields:
    return (replace(honest, key=_another(honest)).encode(),)


def _altered_signature(honest: HonestProof) -> _Fields:
    signing_input, _, signature = honest.encode().rpartition(".")
    octets = bytearray(base64url.decode(signature))
    octets[len(octets) // 2] ^= 1
    return (f"{signing_input}.{base64url.encode(bytes(octets))}",)


def _hmac_with_the_public_key(honest: HonestProof) -> _Fields:
    secret = secrets.token_bytes(32)
    jwk = {"kty": "oct", "k": base64url.encode(secret)}
    return (honest.encode(header={"alg": "HS256", "jwk": jwk}, key=secret),)


def _padded(honest: HonestProof) -> _Fields:
    header, payload, _ = honest.encode().split(".")
    if len(payload) % 4 == 0:
        header, payload, _ = honest.encode(claims={"longer": 1}).split(".")
    signing_input = f"{header}.{payload}{'=' * (-len(payload) % 4)}"
    return (f"{signing_input}.{base64url.encode(honest.key.sign(signing_input.encode()))}",)


def _duplicate_member(honest: HonestProof) -> _Fields:
    first, payload, _ = honest.encode().split(".")
    header = base64url.decode(first).decode()
    claims = base64url.decode(payload).decode()
    twice = f'{{"htm": "{honest.method}", {claims[1:]}'
    return (encode_jws(header, twice, key=honest.key),)


def _other_host(honest: HonestProof) -> _Fields:
    parts = urlsplit(honest.url)
    return (honest.encode(claims={"htu": parts._replace(netloc="attacker.example").geturl()}),)


def _other_path(honest: HonestProof) -> _Fields:
    parts = urlsplit(honest.url)
    return (honest.encode(claims={"htu": parts._replace(path=f"{parts.path}/other").geturl()}),)


_TABLE: Final = (
    BrokenProof(name="no_proof", fields=lambda _: (), check=Check.ONE_HEADER),
    BrokenProof(
        name="two_headers", fields=lambda proof: (proof.encode(), proof.encode()), check=Check.ONE_HEADER
    ),
    BrokenProof(
        name="joined_by_a_comma",
        fields=lambda proof: (f"{proof.encode()}, {proof.encode()}",),
        check=Check.ONE_HEADER,
    ),
    BrokenProof(name="empty", fields=lambda _: ("",), check=Check.ONE_HEADER),
    BrokenProof(name="oversized", fields=_claims(padding="x" * _OVERSIZED), check=Check.ONE_HEADER),
    BrokenProof(name="no_jwt", fields=lambda _: ("proof",), check=Check.FORMAT),
    BrokenProof(name="five_segments", fields=lambda proof: (f"{proof.encode()}.a.b",), check=Check.FORMAT),
    BrokenProof(name="padded", fields=_padded, check=Check.CLAIMS),
    BrokenProof(name="duplicate_member", fields=_duplicate_member, check=Check.CLAIMS),
    BrokenProof(name="no_typ", fields=_header(typ=ABSENT), check=Check.TYP),
    BrokenProof(name="typ_jwt", fields=_header(typ="JWT"), check=Check.TYP),
    BrokenProof(name="crit", fields=_header(crit=["b64"], b64=True), check=Check.CRIT),
    BrokenProof(
        name="alg_none",
        fields=lambda proof: (proof.encode(header={"alg": "none"}, key=ABSENT),),
        check=Check.ALG,
    ),
    BrokenProof(name="no_alg", fields=_header(alg=ABSENT), check=Check.ALG),
    BrokenProof(name="hs256", fields=_hmac_with_the_public_key, check=Check.ALG),
    BrokenProof(name="no_jwk", fields=_header(jwk=ABSENT), check=Check.JWK),
    BrokenProof(
        name="private_jwk",
        fields=lambda proof: (proof.encode(header={"jwk": proof.key.private_jwk()}),),
        check=Check.JWK,
    ),
    BrokenProof(
        name="other_key",
        fields=_by_another_key,
        check=Check.JKT,
        error="invalid_token",
        needs_token=True,
    ),
    BrokenProof(name="no_jti", fields=_claims(jti=ABSENT), check=Check.CLAIMS),
    BrokenProof(name="no_htm", fields=_claims(htm=ABSENT), check=Check.CLAIMS),
    BrokenProof(name="no_htu", fields=_claims(htu=ABSENT), check=Check.CLAIMS),
    BrokenProof(name="no_iat", fields=_claims(iat=ABSENT), check=Check.CLAIMS),
    BrokenProof(
        name="iat_string", fields=lambda proof: _claims(iat=str(int(proof.now)))(proof), check=Check.CLAIMS
    ),
    BrokenProof(name="wrong_htm", fields=_claims(htm="PURGE"), check=Check.HTM),
    BrokenProof(
        name="htm_in_lower_case",
        fields=lambda proof: _claims(htm=proof.method.lower())(proof),
        check=Check.HTM,
    ),
    BrokenProof(name="wrong_htu", fields=_other_path, check=Check.HTU),
    BrokenProof(name="htu_of_another_host", fields=_other_host, check=Check.HTU),
    BrokenProof(name="no_ath", fields=_claims(ath=ABSENT), check=Check.ATH, needs_token=True),
    BrokenProof(
        name="wrong_ath", fields=_claims(ath=token_hash("another token")), check=Check.ATH, needs_token=True
    ),
    BrokenProof(name="bad_signature", fields=_altered_signature, check=Check.SIGNATURE),
    BrokenProof(
        name="signed_by_another_key",
        fields=lambda proof: (proof.encode(key=_another(proof)),),
        check=Check.SIGNATURE,
    ),
    BrokenProof(name="expired", fields=_dated(-_AGES), check=Check.IAT, by_time=True),
    BrokenProof(name="future", fields=_dated(_AGES), check=Check.IAT, by_time=True),
    BrokenProof(name="replayed", fields=lambda proof: (proof.encode(),), check=Check.JTI, presentations=2),
)

BROKEN_PROOFS: Final[Mapping[str, BrokenProof]] = MappingProxyType({one.name: one for one in _TABLE})
"""Every defect by its name, in the order of the checks that refuse them."""


def broken_proof(
    name: str,
    *,
    key: DPoPKey,
    method: str,
    url: str,
    access_token: str | None = None,
    nonce: str | None = None,
    now: float | None = None,
) -> list[tuple[str, str]]:
    """Return the `DPoP` header lines of a request whose proof has the defect `name`.

    The other arguments are the values of the honest proof; `now` is in seconds since the epoch, by default
    this machine's clock. Most defects are one line, `no_proof` none, `two_headers` two. For `replayed` the
    line is honest: send it twice. Raises KeyError for a name that is not in BROKEN_PROOFS.
    """
    honest = HonestProof(
        key=key,
        method=method,
        url=url,
        access_token=access_token,
        nonce=nonce,
        now=time.time() if now is None else now,
    )
    return [("DPoP", value) for value in BROKEN_PROOFS[name].fields(honest)]
