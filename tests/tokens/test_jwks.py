"""Which keys of a JWK Set may verify what."""

import base64
import logging
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dpop_middleware.client import DPoPKey
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.jose import JOSEError
from dpop_middleware.jose.algorithms import PublicKey
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.jwks import MAX_CANDIDATES, MAX_KEYS, KeySet, StaticKeySource, parse_key_set
from tests.support.issuer_tokens import issuer_key, key_set

RSA_NAMES = {"PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
EDDSA_NAMES = {"EdDSA", "Ed25519"}


def only(jwk: Any) -> KeySet:
    return parse_key_set({"keys": [jwk]})


def number(value: int) -> str:
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def octets(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("alg", "names"),
    [
        ("ES256", {"ES256"}),
        ("ES384", {"ES384"}),
        ("ES512", {"ES512"}),
        ("EdDSA", EDDSA_NAMES),
        ("RS256", RSA_NAMES),
    ],
)
def test_a_key_without_alg_fits_its_type(alg: str, names: set[str]) -> None:
    (key,) = only(issuer_key(alg).jwk).keys
    assert key.algorithms == names
    assert octets(key.key) == octets(issuer_key(alg).private.public_key())


@pytest.mark.parametrize("alg", SUPPORTED_ALGORITHMS)
def test_a_key_with_alg_fits_that_one_only(alg: str) -> None:
    (key,) = only(issuer_key(alg).jwk | {"alg": alg, "use": "sig", "key_ops": ["verify"], "x5t": 1}).keys
    assert key.algorithms == (EDDSA_NAMES if alg in EDDSA_NAMES else {alg})


EC = issuer_key("ES256").jwk
RSA = issuer_key("RS256").jwk
OKP = issuer_key("EdDSA").jwk
AKP = DPoPKey.generate("ML-DSA-44").public_jwk | {"kid": "key-1"}


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        "key",
        {},
        EC | {"kid": 1},
        EC | {"kid": ["key-1"]},
        EC | {"use": "enc"},
        EC | {"use": ""},
        EC | {"key_ops": [[]]},
        EC | {"key_ops": ["sign"]},
        EC | {"key_ops": "verify"},
        EC | {"alg": "ES384"},
        EC | {"alg": "RS256"},
        EC | {"alg": "ECDH-ES"},
        EC | {"alg": ["ES256"]},
        EC | {"alg": {}},
        EC | {"kty": "ec"},
        EC | {"kty": ["EC"]},
        EC | {"crv": "P-384"},
        EC | {"crv": "secp256k1"},
        EC | {"crv": None},
        EC | {"x": EC["y"]},
        EC | {"x": 5},
        EC | {"x": None},
        EC | {"x": "é"},
        EC | {"y": ""},
        {name: value for name, value in EC.items() if name != "y"},
        EC | {"d": "AA"},
        RSA | {"d": "AA"},
        RSA | {"n": ""},
        RSA | {"n": 3},
        RSA | {"e": None},
        RSA | {"n": number(3 << 1022 | 1)},
        RSA | {"n": number(1 << 2046 | 1)},
        RSA | {"n": number(1 << 8192 | 1)},
        OKP | {"x": "AA"},
        OKP | {"x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        OKP | {"crv": "Ed448"},
        OKP | {"crv": "X25519"},
        OKP | {"d": "AA"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
    ],
)
def test_an_unusable_key_is_left_out_and_the_others_are_used(jwk: Any) -> None:
    other = issuer_key("ES384", kid="other")
    keys = parse_key_set({"keys": [jwk, other.jwk, jwk]})
    assert [key.kid for key in keys.keys] == ["other"]


@pytest.mark.parametrize("nothing", [None, [], ()], ids=["null", "empty", "tuple"])
def test_null_and_an_empty_array_say_that_a_member_is_not_set(nothing: Any) -> None:
    # The serializers of .NET write every member that they know.
    unset = dict.fromkeys(("use", "key_ops", "alg", "oth", "x5c", "x5t", "x5u", "d", "p", "k"), nothing)
    for jwk in (EC, RSA, OKP):
        assert [key.identity for key in only(jwk | unset).keys] == [only(jwk).keys[0].identity]
    assert only(EC | {"kid": nothing}).keys[0].kid is None


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (EC | {"d": "c2VjcmV0LXZhbHVl"}, "it holds private or symmetric key material, in its d"),
        (EC | {"use": "tls"}, "its use is 'tls', not 'sig'"),
        (EC | {"key_ops": ["sign"]}, "its key_ops are ['sign'], without 'verify'"),
        (EC | {"key_ops": "verify"}, "its key_ops is 'verify', not an array"),
        (EC | {"alg": "ES256K"}, "its alg is 'ES256K', which is not supported or for another type of key"),
        (EC | {"alg": "\n" + "x" * 200}, f"its alg is '\\n{'x' * 97}...(cut), which is not supported or"),
        (EC | {"crv": "secp256k1"}, "its kty 'EC' with the crv 'secp256k1' is not supported"),
        (EC | {"kty": "OKP", "crv": None}, "its kty 'OKP' is not supported"),
        (EC | {"kty": "AKP", "crv": None}, "it lacks alg, which its kty 'AKP' requires"),
        (AKP | {"alg": "ES256"}, "its alg is 'ES256', which is not supported or for another type of key"),
        (AKP | {"pub": "AA"}, "it is malformed: no key has this pub"),
        (AKP | {"pub": None}, "it lacks pub"),
        (AKP | {"priv": "AA"}, "it holds private or symmetric key material, in its priv"),
        (EC | {"x": None}, "it lacks x"),
        (EC | {"x": 5}, "its x is 5, not a string"),
        (EC | {"y": "AA"}, "it is malformed: no key has this x and y"),
        (RSA | {"n": number(3 << 1022 | 1)}, "its n, the RSA modulus, has 1024 bits, not 2048 to 8192"),
        (
            OKP | {"x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
            "its x is an Ed25519 key of small order",
        ),
    ],
)
def test_a_key_that_is_left_out_is_warned_about(
    jwk: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        keys = parse_key_set({"keys": [jwk]})
    (message,) = caplog.messages
    assert message.startswith(f"key 0 of the JWK Set, kid 'key-1', is left out: {reason}")
    assert message == str(keys.left_out[0]) == keys.why_not("key-1")
    assert message.isascii()
    assert len(message) < 300
    assert keys.why_not("key-2") == ""
    assert keys.why_not(None) == ""


def test_a_key_without_a_name_is_reported_by_its_position(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        parse_key_set({"keys": [5, {"kid": 1, "kty": "EC"}]})
    assert caplog.messages == [
        "key 0 of the JWK Set is left out: it is not an object",
        "key 1 of the JWK Set is left out: its kid is 1, not a string",
    ]


@pytest.mark.parametrize("meant", [{"use": "enc"}, {"key_ops": ["encrypt", "wrapKey"]}])
def test_an_encryption_key_causes_no_warning(meant: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dpop_middleware"):
        keys = only(RSA | meant)
    assert caplog.messages == []
    assert keys.left_out[0].meant


def test_the_longest_and_the_shortest_rsa_modulus_are_accepted() -> None:
    for bits in (2048, 8192):
        (key,) = only(RSA | {"n": number((1 << (bits - 1)) + 1)}).keys
        assert getattr(key.key, "key_size", None) == bits


@pytest.mark.parametrize("keys", [None, "keys", {}, 5, {"a": EC}])
def test_a_document_without_keys_is_no_set(keys: Any) -> None:
    with pytest.raises(JOSEError, match="isn't a JWK Set"):
        parse_key_set({"keys": keys})
    with pytest.raises(JOSEError, match="isn't a JWK Set"):
        parse_key_set({})


def test_an_empty_set_has_no_keys() -> None:
    assert parse_key_set({"keys": []}).keys == ()
    assert parse_key_set({"keys": ()}).identities == frozenset()


def test_a_huge_set_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    jwks = [EC | {"kid": f"k{position}"} for position in range(MAX_KEYS + 1)]
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        cut = parse_key_set({"keys": [*jwks, *jwks]})
    assert len(cut.keys) == MAX_KEYS
    said = (
        f"key {MAX_KEYS} of the JWK Set, kid 'k{MAX_KEYS}', is left out: "
        f"it and those after it are beyond the {MAX_KEYS} keys that are read"
    )
    assert caplog.messages == [said]
    assert cut.warnings == (said,)


def test_identity_covers_the_key_its_name_and_its_use() -> None:
    def identity(jwk: dict[str, Any]) -> str:
        return only(jwk).keys[0].identity

    assert identity(EC) == identity(EC | {"use": "sig", "alg": "ES256", "x5u": "https://x.example"})
    others = [
        EC | {"kid": "key-2"},
        {name: value for name, value in EC.items() if name != "kid"},
        issuer_key("ES256", number=2).jwk,
    ]
    assert len({identity(EC), *map(identity, others)}) == 4
    assert identity(RSA) != identity(RSA | {"alg": "RS256"})


def candidates(keys: KeySet, kid: str | None, algorithm: str) -> tuple[list[str | None], bool]:
    chosen = keys.candidates(kid=kid, algorithm=algorithm)
    return [key.kid for key in chosen.keys], chosen.named


def test_a_kid_names_keys() -> None:
    rsa, ec, ec2 = issuer_key("RS256", kid="a"), issuer_key("ES256", kid="a"), issuer_key("ES256", kid="b")
    nameless = issuer_key("ES256", number=3, kid=None)
    keys = parse_key_set(key_set(rsa, ec, ec2, nameless))
    assert candidates(keys, "a", "ES256") == (["a"], True)
    assert candidates(keys, "a", "PS512") == (["a"], True)
    assert candidates(keys, "b", "PS512") == ([], True)
    assert candidates(keys, "c", "ES256") == ([None], False)
    assert candidates(keys, "c", "RS256") == ([], False)
    assert candidates(keys, "", "ES256") == ([None], False)


def test_without_kid_every_fitting_key_is_tried() -> None:
    keys = parse_key_set(
        key_set(
            issuer_key("RS256", kid="a"),
            issuer_key("ES256", kid="b"),
            issuer_key("ES256", number=2, kid=None),
        )
    )
    assert candidates(keys, None, "ES256") == (["b", None], False)
    assert candidates(keys, None, "ES384") == ([], False)


def test_a_key_that_is_listed_twice_is_tried_once() -> None:
    twice, other = issuer_key("ES256", kid=None), issuer_key("ES256", number=2, kid=None)
    keys = parse_key_set(key_set(twice, twice, other))
    assert [octets(key.key) for key in keys.candidates(kid=None, algorithm="ES256").keys] == [
        octets(key.private.public_key()) for key in (twice, other)
    ]


def test_several_keys_of_one_kid_are_all_tried_but_not_too_many() -> None:
    keys = parse_key_set(key_set(*(issuer_key("ES256", number=position) for position in range(20))))
    assert len(keys.candidates(kid="key-1", algorithm="ES256").keys) == MAX_CANDIDATES
    assert len(keys.candidates(kid=None, algorithm="ES256").keys) == MAX_CANDIDATES


async def test_given_keys_never_change() -> None:
    keys = parse_key_set(key_set(issuer_key()))
    source = StaticKeySource(keys)
    assert source.current() is keys
    assert await source.load() is keys
    assert await source.newer_than(keys, since=0, wanted="") is keys
    source.open()
    assert source.age() is None
    assert await source.health() == IssuerKeysHealth(ok=True, keys=1)
    await source.aclose()
    assert source.current() is keys


async def test_given_keys_that_can_not_be_used_are_reported() -> None:
    keys = key_set(issuer_key())
    odd = parse_key_set({"keys": [*keys["keys"], {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]})
    health = await StaticKeySource(odd).health()
    assert (health.keys, health.warnings) == (1, odd.warnings)
    assert health.warnings
