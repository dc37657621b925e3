"""ML-DSA with the RFC's own examples, and the keys and signatures that are refused (RFC 9964)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import JOSEError, algorithms, base64url
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.jose.jwk import public_key, thumbprint
from dpop_middleware.jose.strict import split
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS

VECTORS = Path(__file__).parents[1] / "vectors" / "rfc9964_examples.json"
EXAMPLES: Mapping[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))["examples"]
SEED = base64url.encode(bytes(32))

every = pytest.mark.parametrize("name", POST_QUANTUM_ALGORITHMS)


def jwk_of(name: str) -> dict[str, Any]:
    return {"kty": "AKP", "alg": name, "pub": EXAMPLES[name]["pub"]}


def test_the_names_are_the_policys() -> None:
    assert algorithms.MLDSA_NAMES == POST_QUANTUM_ALGORITHMS == tuple(EXAMPLES)


@every
def test_the_rfcs_example_verifies(name: str) -> None:
    jws = split(EXAMPLES[name]["jws"])
    key = public_key(jwk_of(name), ALGORITHMS[name])
    signature = base64url.decode(jws.signature)
    assert ALGORITHMS[name].verify(key, jws.signing_input, signature)
    assert not ALGORITHMS[name].verify(key, jws.signing_input + b"x", signature)
    for changed in (
        bytes([signature[0] ^ 1]) + signature[1:],
        signature[:-1] + bytes([signature[-1] ^ 1]),
        signature[:-1],
        signature + b"\0",
        b"",
        bytes(len(signature)),
        b"\xff" * len(signature),
    ):
        assert not ALGORITHMS[name].verify(key, jws.signing_input, changed)


@every
def test_the_rfcs_thumbprint_takes_the_alg_in(name: str) -> None:
    assert thumbprint(jwk_of(name)) == EXAMPLES[name]["thumbprint"]
    assert thumbprint(jwk_of(name) | {"kid": "x", "use": "sig"}) == EXAMPLES[name]["thumbprint"]


@every
def test_the_rfcs_seed_gives_the_rfcs_key(name: str) -> None:
    key = DPoPKey.from_jwk(jwk_of(name) | {"priv": SEED})
    assert (key.algorithm, key.jkt) == (name, EXAMPLES[name]["thumbprint"])
    assert key.public_jwk == jwk_of(name)
    assert key.private_jwk() == jwk_of(name) | {"priv": SEED}
    signing_input = split(EXAMPLES[name]["jws"]).signing_input
    verifying = public_key(jwk_of(name), ALGORITHMS[name])
    assert ALGORITHMS[name].verify(verifying, signing_input, key.sign(signing_input))


@every
def test_no_key_serves_another_parameter_set(name: str) -> None:
    key = public_key(jwk_of(name), ALGORITHMS[name])
    jws = split(EXAMPLES[name]["jws"])
    for other in ALGORITHMS.values():
        fits = other.name == name
        assert other.accepts(key) is fits
        assert other.verify(key, jws.signing_input, base64url.decode(jws.signature)) is fits
        if not fits:
            with pytest.raises(JOSEError):
                public_key(jwk_of(name), other)


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"priv": SEED}, "priv"),
        ({"priv": ""}, "priv"),
        ({"d": "AA"}, "d"),
        ({"alg": ...}, "alg"),
        ({"alg": None}, "alg"),
        ({"alg": "ML-DSA-65"}, "alg"),
        ({"alg": "ml-dsa-44"}, "alg"),
        ({"alg": "ES256"}, "alg"),
        ({"kty": "akp"}, "kty"),
        ({"kty": "OKP"}, "kty"),
        ({"pub": ...}, "pub"),
        ({"pub": 1}, "pub"),
        ({"pub": ""}, "pub"),
        ({"pub": EXAMPLES["ML-DSA-44"]["pub"] + "="}, "pub"),
        ({"pub": EXAMPLES["ML-DSA-44"]["pub"] + "AAAA"}, "pub"),
        ({"pub": EXAMPLES["ML-DSA-44"]["pub"][:-2]}, "pub"),
        ({"pub": EXAMPLES["ML-DSA-65"]["pub"]}, "pub"),
        ({"use": "enc"}, "use"),
        ({"key_ops": ["sign"]}, "key_ops"),
    ],
)
def test_malformed_keys_are_refused(changes: dict[str, Any], member: str) -> None:
    jwk = {name: value for name, value in (jwk_of("ML-DSA-44") | changes).items() if value is not ...}
    with pytest.raises(JOSEError) as caught:
        public_key(jwk, ALGORITHMS["ML-DSA-44"])
    assert caught.value.member == member


@every
def test_a_new_key_can_be_kept_and_read(name: str, tmp_path: Path) -> None:
    key = DPoPKey.generate(name)
    assert len(base64url.decode(key.private_jwk()["priv"])) == 32
    for file in ("key.jwk", "key.pem"):
        key.save(tmp_path / file)
        assert DPoPKey.load(tmp_path / file).private_jwk() == key.private_jwk()
    assert base64url.encode(base64url.decode(key.private_jwk()["priv"])) not in repr(key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"priv": ...}, "its member priv is missing"),
        ({"priv": "AA"}, "can't be read"),
        ({"priv": "!"}, "can't be read"),
        ({"priv": 1}, "its member priv is missing or not a string"),
        ({"priv": base64url.encode(b"\1" * 32)}, "do not belong together"),
        ({"alg": "ML-DSA-65"}, "wrong length"),
        ({"alg": "ES256"}, "not of a supported type"),
        ({"alg": ...}, "not of a supported type"),
    ],
)
def test_malformed_private_keys_are_refused(changes: dict[str, Any], reason: str) -> None:
    jwk = jwk_of("ML-DSA-44") | {"priv": SEED} | changes
    with pytest.raises(ValueError, match=reason):
        DPoPKey.from_jwk({name: value for name, value in jwk.items() if value is not ...})


def test_a_key_signs_by_its_own_algorithm_alone() -> None:
    with pytest.raises(ValueError, match="another key type|another algorithm"):
        DPoPKey.from_jwk(jwk_of("ML-DSA-44") | {"priv": SEED}, algorithm="ML-DSA-65")


def test_a_system_without_it_knows_no_parameter_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> Any:
        raise UnsupportedAlgorithm("not here")

    assert [each.name for each, _ in algorithms.mldsa_sets()] == list(POST_QUANTUM_ALGORITHMS)
    monkeypatch.setattr(algorithms.MLDSA, "public_key", unsupported)
    assert algorithms.mldsa_sets() == ()


def test_pyjwts_interface_is_whole() -> None:
    algorithm = algorithms.MLDSA("ML-DSA-44")
    key = algorithm.generate()
    assert algorithm.prepare_key(key) is key
