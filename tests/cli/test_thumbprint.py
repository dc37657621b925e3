"""The jkt of keys in every form."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519

from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS
from tests.support.command import run

# RFC 7638 section 3.1
RSA_JWK = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def public_pem(key: DPoPKey) -> bytes:
    private = serialization.load_pem_private_key(key.to_pem(), None)
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pem_of(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_the_example_of_rfc_7638_has_its_thumbprint() -> None:
    ran = run("thumbprint", "-", stdin=json.dumps(RSA_JWK))
    assert (ran.status, ran.out) == (0, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\n")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "RS256", *POST_QUANTUM_ALGORITHMS])
def test_a_key_has_one_thumbprint_in_every_form(tmp_path: Path, algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    forms = (
        json.dumps(key.private_jwk()).encode(),
        json.dumps(key.public_jwk).encode(),
        key.to_pem(),
        public_pem(key),
        key.proof("GET", "https://api.example.test/").encode() + b"\n",
    )
    for form in forms:
        (tmp_path / "key").write_bytes(form)
        ran = run("thumbprint", str(tmp_path / "key"))
        assert (ran.status, ran.out, ran.err) == (0, f"{key.jkt}\n", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the DPoP proof is not a signed JWT"),
        (b"\xff\xfe\x00", "the DPoP proof is not a signed JWT"),
        (b"a.b.c", "the header of the DPoP proof is not a JSON object"),
        (b"{}", "it is not on P-256, P-384 or P-521, nor RSA, nor Ed25519"),
        (b'{"kty": "oct", "k": "AAAA"}', "it is not on P-256"),
        (b'{"kty": ["EC"], "crv": {}}', "it is not on P-256"),
        (b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}', "a coordinate of the JWK has the wrong"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB"}', "the RSA modulus must be odd"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "p": "AA"}', "the JWK holds private"),
        (b'{"kty": "EC", "d": "AA"}', "the key is not of a supported type"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a DPoP server doesn't accept"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "wrong format, type or password"),
        (pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()), "it is not on P-256"),
        (pem_of(x25519.X25519PrivateKey.generate().public_key()), "it is not on P-256"),
        (pem_of(dsa.generate_private_key(1024).public_key()), "it is not on P-256"),
    ],
)  # fmt: skip
def test_a_key_that_no_server_accepts_is_a_usage_error(data: bytes, words: str) -> None:
    ran = run("thumbprint", "-", stdin=data)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_key_type_that_the_system_lacks_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    def unsupported(_data: bytes) -> object:
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr("dpop_middleware.cli.thumbprint.load_pem_public_key", unsupported)
    ran = run("thumbprint", "-", stdin=public_pem(DPoPKey.generate()))
    assert ran.status == 2
    assert "its type is not supported" in ran.err
