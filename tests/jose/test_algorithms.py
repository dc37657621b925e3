"""The closed table of algorithms."""

import importlib.util
import sys
from dataclasses import FrozenInstanceError
from functools import cache
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.jose import algorithms
from dpop_middleware.jose.algorithms import ALGORITHMS, PublicKey
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS

MESSAGE = b"header.payload"
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


@cache
def private_key(name: str) -> Any:
    """A private key for the algorithm `name`, made without our code."""
    if name in CURVES:
        return ec.generate_private_key(CURVES[name])
    if name.startswith("Ed"):
        return ed25519.Ed25519PrivateKey.generate()
    return rsa_key()


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """One RSA key for all algorithms, as it takes long to make."""
    return rsa.generate_private_key(65537, 2048)


def sign(name: str, message: bytes = MESSAGE) -> bytes:
    """A signature by `cryptography` alone, in JWS form (RFC 7518 section 3)."""
    key = private_key(name)
    if name.startswith("Ed"):
        return bytes(key.sign(message))
    algorithm = HASHES[name[2:]]
    if name.startswith("ES"):
        length = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")
    if name.startswith("RS"):
        return bytes(key.sign(message, padding.PKCS1v15(), algorithm))
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return bytes(key.sign(message, pss, algorithm))


def public_key(name: str) -> PublicKey:
    """The public half of `private_key(name)`."""
    key: PublicKey = private_key(name).public_key()
    return key


def test_the_table_is_what_the_policy_offers() -> None:
    assert tuple(ALGORITHMS) == (*SUPPORTED_ALGORITHMS, *POST_QUANTUM_ALGORITHMS)
    assert all(name == algorithm.name for name, algorithm in ALGORITHMS.items())


def test_the_table_is_closed() -> None:
    with pytest.raises(TypeError):
        ALGORITHMS["none"] = ALGORITHMS["ES256"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        ALGORITHMS["ES256"].crv = "P-384"  # type: ignore[misc]
    for name in ("none", "None", "nOnE", "HS256", "ES521", "ES256K", "Ed448", "es256", "", "RS1"):
        assert name not in ALGORITHMS


@pytest.mark.parametrize(
    ("name", "kty", "crv"),
    [
        ("ES256", "EC", "P-256"),
        ("ES384", "EC", "P-384"),
        ("ES512", "EC", "P-521"),
        ("EdDSA", "OKP", "Ed25519"),
        ("Ed25519", "OKP", "Ed25519"),
        ("PS384", "RSA", None),
        ("RS512", "RSA", None),
    ],
)
def test_each_algorithm_has_its_key_type_and_curve(name: str, kty: str, crv: str | None) -> None:
    assert (ALGORITHMS[name].kty, ALGORITHMS[name].crv) == (kty, crv)


@pytest.mark.parametrize("name", SUPPORTED_ALGORITHMS)
def test_verify_accepts_the_signature_and_no_changed_one(name: str) -> None:
    algorithm, key, signature = ALGORITHMS[name], public_key(name), sign(name)
    assert algorithm.verify(key, MESSAGE, signature)
    assert not algorithm.verify(key, MESSAGE + b"x", signature)
    for place in (0, len(signature) // 2, len(signature) - 1):
        flipped = bytearray(signature)
        flipped[place] ^= 1
        assert not algorithm.verify(key, MESSAGE, bytes(flipped))


@pytest.mark.parametrize("name", SUPPORTED_ALGORITHMS)
def test_verify_refuses_every_other_length(name: str) -> None:
    algorithm, key, signature = ALGORITHMS[name], public_key(name), sign(name)
    for other in (b"", signature[:-1], signature + b"\0", b"\0" + signature, signature * 2, b"\0" * 10_000):
        assert not algorithm.verify(key, MESSAGE, other)
    for octet in (b"\0", b"\xff", b"\x01"):
        assert not algorithm.verify(key, MESSAGE, octet * len(signature))


@pytest.mark.parametrize("name", SUPPORTED_ALGORITHMS)
def test_only_its_own_keys_fit(name: str) -> None:
    algorithm = ALGORITHMS[name]
    for other in SUPPORTED_ALGORITHMS:
        fits = ALGORITHMS[other].kty == algorithm.kty and ALGORITHMS[other].crv == algorithm.crv
        assert algorithm.accepts(public_key(other)) is fits
        assert algorithm.verify(public_key(other), MESSAGE, sign(other)) is (fits and _same(name, other))
    strangers: list[Any] = [
        private_key(name),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        b"secret",
        None,
    ]
    for stranger in strangers:
        assert not algorithm.accepts(stranger)
        assert not algorithm.verify(stranger, MESSAGE, sign(name))


def _same(one: str, other: str) -> bool:
    return one == other or {one, other} == {"EdDSA", "Ed25519"}


def test_der_signatures_are_refused() -> None:
    der = private_key("ES256").sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    assert not ALGORITHMS["ES256"].verify(public_key("ES256"), MESSAGE, der)


def test_a_negated_ecdsa_signature_verifies() -> None:
    # Mathematically valid (r, n - s), which is why a signature must never identify a proof.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = sign("ES256")
    negated = order - int.from_bytes(signature[32:], "big")
    assert ALGORITHMS["ES256"].verify(
        public_key("ES256"), MESSAGE, signature[:32] + negated.to_bytes(32, "big")
    )


def test_an_ed25519_signature_has_one_spelling() -> None:
    signature = sign("EdDSA")
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    assert not ALGORITHMS["EdDSA"].verify(
        public_key("EdDSA"), MESSAGE, signature[:32] + s.to_bytes(32, "little")
    )


def test_pss_takes_a_salt_as_long_as_the_digest_only() -> None:
    for salt in (0, 20, 31, 33):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        signature = rsa_key().sign(MESSAGE, pss, hashes.SHA256())
        assert not ALGORITHMS["PS256"].verify(public_key("PS256"), MESSAGE, signature)


@given(st.sampled_from(SUPPORTED_ALGORITHMS), st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=200)
def test_verify_raises_for_no_bytes(name: str, message: bytes, signature: bytes) -> None:
    assert ALGORITHMS[name].verify(public_key(name), message, signature) is False


@pytest.mark.parametrize(
    "fault", [UnsupportedAlgorithm("not supported"), ValueError("An Ed25519 public key is 32 bytes long")]
)
def test_an_openssl_without_ed25519_serves_all_others(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_octets: bytes) -> None:
        raise fault

    key = public_key("EdDSA")
    monkeypatch.setattr(ed25519.Ed25519PublicKey, "from_public_bytes", lacking)
    spec = importlib.util.spec_from_file_location("algorithms_there", algorithms.__file__)
    assert spec is not None
    assert spec.loader is not None
    there = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, there)
    spec.loader.exec_module(there)
    for name, algorithm in ((name, there.ALGORITHMS[name]) for name in SUPPORTED_ALGORITHMS):
        lacks = name in ("EdDSA", "Ed25519")
        assert algorithm.verify(public_key(name), MESSAGE, sign(name)) is not lacks
    assert not there.ALGORITHMS["EdDSA"].accepts(key)
