"""Private keys as JWKs, and the files that hold them."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from dpop_middleware.client.private_keys import (
    as_utf8,
    checked_password,
    exported,
    is_pem,
    public_part,
    read_private,
    require_supported,
    supported,
    usual_algorithm,
)

EC = ec.generate_private_key(ec.SECP256R1())


def test_a_key_that_was_exported_can_be_read() -> None:
    for key, usual in ((EC, "ES256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")):
        jwk = exported(key)
        assert usual_algorithm(jwk) == usual
        assert exported(read_private(jwk, usual)) == jwk
        assert set(jwk) - set(public_part(jwk)) >= {"d"}


@pytest.mark.parametrize("other", [ed448.Ed448PrivateKey.generate(), EC.public_key(), "ES256", None])
def test_a_key_of_another_type_is_refused_by_its_type(other: Any) -> None:
    for function in (supported, exported):
        with pytest.raises(ValueError, match=f"ML-DSA private key, but a {type(other).__name__}$"):
            function(other)


@pytest.mark.parametrize("algorithm", ["es256", "HS256", None, 5])
def test_an_algorithm_that_is_not_supported_is_named(algorithm: Any) -> None:
    with pytest.raises(
        ValueError, match=f"^the algorithm {algorithm!r} is not supported: choose from ES256, "
    ):
        require_supported(algorithm)


def test_a_set_of_keys_is_no_key() -> None:
    with pytest.raises(ValueError, match="a set of keys: give one of them"):
        usual_algorithm({"keys": [exported(EC)]})


@pytest.mark.parametrize(("password", "wrong"), [("the-secret", "a str"), (b"", "empty ones"), (5, "a int")])
def test_a_password_is_octets_and_is_never_quoted(password: Any, wrong: str) -> None:
    assert checked_password(b"the-secret") == b"the-secret"
    assert checked_password(None) is None
    with pytest.raises(ValueError, match=f"^password takes bytes, such as text.encode\\(\\), not {wrong}$"):
        checked_password(password)


def test_pem_is_told_apart_from_a_jwk() -> None:
    assert is_pem(b"\n-----BEGIN PRIVATE KEY-----")
    assert is_pem(b"Bag Attributes\n-----BEGIN PRIVATE KEY-----")
    assert not is_pem(b' {"kid": "-----BEGIN"}')
    assert not is_pem(b"")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_file_is_read_as_windows_writes_it(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert as_utf8(f'{mark}{{"kty": "EC"}}\r\n'.encode(encoding)) == b'{"kty": "EC"}\r\n'
