"""Which JWKs become keys, and what their thumbprints are."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.jose.jwk import public_key, thumbprint, without_unset
from dpop_middleware.policy import SUPPORTED_ALGORITHMS

VECTORS = Path(__file__).parents[1] / "vectors"
PROOFS = json.loads((VECTORS / "proof_vectors.json").read_text("utf-8"))
EXAMPLES = json.loads((VECTORS / "rfc9449_examples.json").read_text("utf-8"))
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def public(name: str) -> dict[str, Any]:
    """The public members of one of the vectors' keys."""
    return {member: value for member, value in PROOFS["keys"][name].items() if member not in PRIVATE_MEMBERS}


P256, P384, P521 = public("K1 (client)"), public("P-384"), public("P-521")
ED25519, RSA = public("Ed25519"), public("RSA-2048")
JWKS: dict[str, dict[str, Any]] = {
    "ES256": P256,
    "ES384": P384,
    "ES512": P521,
    "EdDSA": ED25519,
    "Ed25519": ED25519,
    **{name: RSA for name in SUPPORTED_ALGORITHMS if name[1] == "S" and name[0] in "PR"},
}


def integer(number: int, length: int | None = None, *, order: Any = "big") -> str:
    """`number` in base64url, made without our code."""
    octets = number.to_bytes(length or (number.bit_length() + 7) // 8, order)
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def assert_refused(jwk: object, algorithm: str, reason: str) -> None:
    """Assert that `jwk` is refused for `reason`."""
    with pytest.raises(JOSEError, match=reason) as caught:
        public_key(jwk, ALGORITHMS[algorithm])
    assert caught.value.check is Check.JWK


# Accepted


@pytest.mark.parametrize("name", SUPPORTED_ALGORITHMS)
def test_public_key_fits_its_algorithm(name: str) -> None:
    key = public_key(JWKS[name], ALGORITHMS[name])
    assert ALGORITHMS[name].accepts(key)


def test_public_key_has_the_numbers_of_the_jwk() -> None:
    numbers = public_key(P521, ALGORITHMS["ES512"]).public_numbers()  # type: ignore[union-attr]
    assert (integer(numbers.x, 66), integer(numbers.y, 66)) == (P521["x"], P521["y"])  # type: ignore[union-attr]
    key = public_key(RSA, ALGORITHMS["PS256"])
    assert isinstance(key, RSAPublicKey)
    assert (integer(key.public_numbers().n), integer(key.public_numbers().e)) == (RSA["n"], RSA["e"])
    okp = public_key(ED25519, ALGORITHMS["EdDSA"])
    assert isinstance(okp, Ed25519PublicKey)
    assert base64url.encode(okp.public_bytes_raw()) == ED25519["x"]


@pytest.mark.parametrize(
    "members",
    [
        {"use": "sig"},
        {"key_ops": ["verify"]},
        {"key_ops": ["sign", "verify", 1, None]},
        {"alg": "ES256"},
        {"kid": 1, "x5c": "x", "x5u": [], "ext": True, "unknown": {"d": 1}},
        {"n": "AQAB", "e": "AQAB"},
        # Some serialisers write every member that they know: in RFC 7517 null and empty arrays mean nothing.
        {"key_ops": []},
        {"use": None, "key_ops": None, "alg": None, "kid": None, "x5c": [], "x5t": None},
        {"use": [], "key_ops": [], "alg": []},
    ],
)
def test_other_members_are_ignored_or_agree(members: dict[str, Any]) -> None:
    assert public_key(P256 | members, ALGORITHMS["ES256"]) == public_key(P256, ALGORITHMS["ES256"])


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_mean_the_same(name: str, alg: str) -> None:
    assert ALGORITHMS[name].accepts(public_key(ED25519 | {"alg": alg}, ALGORITHMS[name]))


@pytest.mark.parametrize("unset", [None, [], ()])
def test_null_and_empty_members_count_as_absent(unset: object) -> None:
    members = dict.fromkeys(("use", "key_ops", "alg", "oth", "x5c", "kid"), unset)
    assert without_unset(P256 | members) == P256
    told = {"kid": "", "ext": False, "iat": 0, "x": {}, "key_ops": [None]}
    assert without_unset(told) == told
    for member in ("x", "y", "crv", "kty"):
        with pytest.raises(JOSEError):
            public_key(P256 | {member: unset}, ALGORITHMS["ES256"])


# Refused whatever the key type


@pytest.mark.parametrize("jwk", [None, True, 1, "", "foo", [], [P256], b"{}", tuple(P256.items())])
def test_a_jwk_is_an_object(jwk: object) -> None:
    assert_refused(jwk, "ES256", "not a JSON object")


@pytest.mark.parametrize("member", PRIVATE_MEMBERS)
@pytest.mark.parametrize("name", ["ES256", "EdDSA", "RS256"])
@pytest.mark.parametrize("value", ["AQAB", "", None, [], 1])
def test_private_members_are_refused(member: str, name: str, value: object) -> None:
    assert_refused(JWKS[name] | {member: value}, name, f"private or symmetric key material: {member}$")


@pytest.mark.parametrize(
    ("changes", "algorithm", "member"),
    [
        ({"d": []}, "ES256", "d"),
        ({"oth": []}, "RS256", "oth"),
        ({"kty": "oct"}, "ES256", "kty"),
        ({"crv": "P-384"}, "ES256", "crv"),
        ({"use": "enc"}, "ES256", "use"),
        ({"key_ops": ["sign"]}, "ES256", "key_ops"),
        ({"alg": "ES384"}, "ES256", "alg"),
        ({"y": None}, "ES256", "y"),
        ({"x": "A="}, "ES256", "x"),
        ({"y": "AAAA"}, "ES256", "y"),
        ({"n": ""}, "RS256", "n"),
        ({"n": "AQAB"}, "RS256", "n"),
        ({"e": "AAEAAQ"}, "RS256", "e"),
        ({"e": "AQ"}, "RS256", "e"),
        ({"x": "AAAA"}, "EdDSA", "x"),
        ({"x": "A" * 43}, "EdDSA", "x"),
    ],
)
def test_the_member_at_fault_is_named(changes: dict[str, Any], algorithm: str, member: str) -> None:
    with pytest.raises(JOSEError, match=f": {member}$") as caught:
        public_key(JWKS[algorithm] | changes, ALGORITHMS[algorithm])
    assert caught.value.member == member
    assert caught.value.description == str(caught.value)


def test_where_no_single_member_is_at_fault_none_is_named() -> None:
    jwks: list[Any] = [[], P256 | {"x": P256["y"], "y": P256["x"]}]
    for jwk in jwks:
        with pytest.raises(JOSEError) as caught:
            public_key(jwk, ALGORITHMS["ES256"])
        assert caught.value.member is None


def test_private_members_are_refused_before_anything_is_built() -> None:
    # Given n, e and d that don't belong together, a library may search for primes: seconds for one header.
    bogus = {"kty": "RSA", "n": integer(2**16384 - 1), "e": "AQAB", "d": integer(2**16383 - 1)}
    assert_refused(bogus, "RS256", "private or symmetric")
    assert_refused({"kty": "oct", "k": "AAAA"}, "ES256", "private or symmetric")
    for name in ("K1 (client)", "Ed25519", "RSA-2048"):
        assert_refused(PROOFS["keys"][name], "ES256", "private or symmetric")


@pytest.mark.parametrize("kty", [None, 1, "ec", "", "RSA", "OKP", "oct", ["EC"], {}])
def test_kty_must_match(kty: object) -> None:
    assert_refused(P256 | {"kty": kty}, "ES256", "another key type")


@pytest.mark.parametrize("crv", [None, 1, "p-256", "P-257", "secp256k1", "P-384", "", ["P-256"]])
def test_crv_must_match(crv: object) -> None:
    assert_refused(P256 | {"crv": crv}, "ES256", "another curve")


@pytest.mark.parametrize("member", ["kty", "crv", "x", "y"])
def test_ec_members_are_required(member: str) -> None:
    jwk = {name: value for name, value in P256.items() if name != member}
    with pytest.raises(JOSEError) as caught:
        public_key(jwk, ALGORITHMS["ES256"])
    assert caught.value.check is Check.JWK


def test_every_algorithm_takes_its_own_keys_only() -> None:
    for name in SUPPORTED_ALGORITHMS:
        for jwk in (P256, P384, P521, ED25519, RSA, public("Ed448")):
            if jwk is JWKS[name]:
                continue
            assert_refused(jwk, name, "another key type|another curve")


@pytest.mark.parametrize("use", ["enc", "", 0, False, 1, ["sig"], [[]], {}, "SIG"])
def test_use_must_be_sig(use: object) -> None:
    assert_refused(P256 | {"use": use}, "ES256", "not for signatures")


@pytest.mark.parametrize(
    "key_ops", [["sign"], "verify", "", {}, {"verify": 1}, 0, False, 1, [[]], [None], [["verify"]]]
)
def test_key_ops_must_include_verify(key_ops: object) -> None:
    assert_refused(P256 | {"key_ops": key_ops}, "ES256", "not for verifying")


@pytest.mark.parametrize("alg", ["ES384", "none", "", 0, False, 1, ["ES256"], "es256", "EdDSA"])
def test_alg_must_match(alg: object) -> None:
    assert_refused(P256 | {"alg": alg}, "ES256", "another algorithm")
    assert_refused(RSA | {"alg": "PS256"}, "RS256", "another algorithm")


@pytest.mark.parametrize(
    ("name", "member"), [("ES256", "x"), ("ES256", "y"), ("RS256", "n"), ("RS256", "e"), ("EdDSA", "x")]
)
def test_members_are_canonical_base64url(name: str, member: str) -> None:
    jwk = JWKS[name]
    others: tuple[Any, ...] = (None, 1, [], {}, True, b"AQAB")
    for value in others:
        assert_refused(jwk | {member: value}, name, "lacks a required member")
    text = jwk[member]
    for value in (
        text + "=",
        text + "==",
        text + "!",
        " " + text,
        text + "\n",
        text[:-1] + "é",
        text + "\ud800",
    ):
        assert_refused(jwk | {member: value}, name, "not canonical base64url")
    if len(text) % 4:
        # The next character differs in bits that nothing uses.
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        sloppy = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
        assert_refused(jwk | {member: sloppy}, name, "not canonical base64url")


@pytest.mark.parametrize(
    "fault",
    [
        UnsupportedAlgorithm("ed25519 is not supported by this version of OpenSSL."),
        # The result of an OpenSSL that is restricted to FIPS algorithms.
        ValueError("An Ed25519 public key is 32 bytes long"),
    ],
)
def test_an_algorithm_that_openssl_lacks_is_refused(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lacking:
        @staticmethod
        def from_public_bytes(_octets: bytes) -> None:
            raise fault

    monkeypatch.setattr("dpop_middleware.jose.jwk.Ed25519PublicKey", Lacking)
    assert_refused(ED25519, "EdDSA", "this system's OpenSSL")


# Elliptic curves

CURVES = [
    ("ES256", P256, 2**256 - 2**224 + 2**192 + 2**96 - 1),
    ("ES384", P384, 2**384 - 2**128 - 2**96 + 2**32 - 1),
    ("ES512", P521, 2**521 - 1),
]
LENGTHS = {"ES256": 32, "ES384": 48, "ES512": 66}
B = {
    "ES256": 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    "ES384": int(
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef", 16
    ),
    "ES512": int(
        "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf07"
        "3573df883d2c34f1ef451fd46b503f00",
        16,
    ),
}


def small_point(name: str, prime: int) -> tuple[int, int]:
    """A point with so small an x that x + p still fits into the octets of a coordinate."""
    for x in range(1, 100):
        square = (x**3 - 3 * x + B[name]) % prime
        y = pow(square, (prime + 1) // 4, prime)
        if y * y % prime == square:
            return x, y
    raise AssertionError("half of all x have a point")


@pytest.mark.parametrize(("name", "jwk", "prime"), CURVES)
def test_coordinates_have_the_exact_length(name: str, jwk: dict[str, Any], prime: int) -> None:
    for member in ("x", "y"):
        octets = base64url.decode(jwk[member])
        for other in (b"", octets[1:], b"\0" + octets, octets + b"\0", octets * 2):
            assert_refused(jwk | {member: base64url.encode(other)}, name, "wrong length")


@pytest.mark.parametrize(("name", "jwk", "prime"), CURVES)
def test_points_lie_on_the_curve(name: str, jwk: dict[str, Any], prime: int) -> None:
    length = LENGTHS[name]
    for x, y in ((0, 0), (1, 1), (prime - 1, 1)):
        assert_refused(jwk | {"x": integer(x, length), "y": integer(y, length)}, name, "not a point")
    assert_refused(jwk | {"x": jwk["y"], "y": jwk["x"]}, name, "not a point")
    assert_refused(jwk | {"y": integer(1, length)}, name, "not a point")


@pytest.mark.parametrize(("name", "jwk", "prime"), CURVES)
def test_coordinates_are_below_the_prime(name: str, jwk: dict[str, Any], prime: int) -> None:
    length = LENGTHS[name]
    x, y = small_point(name, prime)
    point = jwk | {"x": integer(x, length), "y": integer(y, length)}
    assert ALGORITHMS[name].accepts(public_key(point, ALGORITHMS[name]))
    assert_refused(point | {"x": integer(x + prime, length)}, name, "not a point")
    assert_refused(point | {"x": integer(prime, length)}, name, "not a point")
    assert_refused(point | {"y": integer((1 << 8 * length) - 1, length)}, name, "not a point")


# RSA


@pytest.mark.parametrize(("bits", "rest"), [(2048, 1), (2048, -1), (4096, 1), (4096, -1)])
@pytest.mark.parametrize("e", [3, 5, 17, 257, 65535, 65537])
def test_rsa_keys_within_the_bounds_are_accepted(bits: int, rest: int, e: int) -> None:
    n = 2 ** (bits - 1) + 1 if rest > 0 else 2**bits - 1
    key = public_key(RSA | {"n": integer(n), "e": integer(e)}, ALGORITHMS["RS256"])
    assert not ALGORITHMS["RS256"].verify(key, b"x", b"\1" * (bits // 8))
    assert not ALGORITHMS["PS512"].verify(key, b"x", b"\1" * (bits // 8))


@pytest.mark.parametrize("bits", [1, 2, 512, 1024, 2047, 4097, 8192, 16384])
def test_rsa_moduli_of_other_sizes_are_refused(bits: int) -> None:
    assert_refused(RSA | {"n": integer(2**bits - 1)}, "RS256", "modulus")


@pytest.mark.parametrize("bits", [2048, 3000, 4096])
def test_even_rsa_moduli_are_refused(bits: int) -> None:
    assert_refused(RSA | {"n": integer(2**bits - 2)}, "RS256", "modulus")


@pytest.mark.parametrize("e", [1, 2, 4, 65536, 65538, 65539, 2**24 - 1, 2**32 - 1, 2**2000 + 1])
def test_bad_rsa_exponents_are_refused(e: int) -> None:
    assert_refused(RSA | {"e": integer(e)}, "PS256", "exponent")


@pytest.mark.parametrize("member", ["n", "e"])
def test_rsa_members_have_no_leading_zero(member: str) -> None:
    octets = base64url.decode(RSA[member])
    for other in (b"", b"\0", b"\0" + octets, b"\0\0" + octets):
        assert_refused(
            RSA | {member: base64url.encode(other)},
            "RS256",
            "^an RSA member of the JWK is empty or starts with a zero octet: ",
        )


# Ed25519: an independent curve, straight from RFC 8032 section 5.1, to find the points of small order

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
IDENTITY = (0, 1)


def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points (RFC 8032 section 5.1.4, in affine coordinates)."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(scalar: int, point: tuple[int, int]) -> tuple[int, int]:
    """`scalar` times `point`."""
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def recover_x(y: int) -> int | None:
    """One of the two x of a point (RFC 8032 section 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def torsion_points() -> set[tuple[int, int]]:
    """The eight points of small order: multiples of l times a point, until one has order eight."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        x = recover_x(y)
        if x is None:
            continue
        points = {times(n, times(order, (x, y))) for n in range(8)}
        if len(points) == 8:
            return points
    raise AssertionError("half of all points have a part of order eight")


def small_order_encodings() -> list[bytes]:
    """Every way to spell a y of small order in 32 octets, non-canonical ones and either sign among them."""
    ys = {y for _, y in torsion_points()}
    spellings = [y for canonical in ys for y in (canonical, canonical + P) if y < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in spellings for sign in (0, 1)]


def test_ed25519_keys_of_small_order_are_refused() -> None:
    assert all(times(8, point) == IDENTITY for point in torsion_points())
    encodings = small_order_encodings()
    # Five y: 0, 1, -1, and two of order eight; 0 and 1 can also be spelled p and p + 1.
    assert len(set(encodings)) == (5 + 2) * 2
    for octets in encodings:
        assert_refused(ED25519 | {"x": base64url.encode(octets)}, "EdDSA", "small order")


def test_a_key_of_small_order_would_accept_a_forgery() -> None:
    identity = (1).to_bytes(32, "little")
    forged = identity + bytes(32)
    Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"whatever")
    assert_refused(ED25519 | {"x": base64url.encode(identity)}, "Ed25519", "small order")


@pytest.mark.parametrize("y", [P, P + 1, P + 5, P + 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_ed25519_keys_are_canonical(y: int, sign: int) -> None:
    octets = (y | sign << 255).to_bytes(32, "little")
    assert_refused(ED25519 | {"x": base64url.encode(octets)}, "EdDSA", "not canonical or has a small order")


@pytest.mark.parametrize("length", [0, 31, 33, 57, 64])
def test_ed25519_keys_have_32_octets(length: int) -> None:
    assert_refused(ED25519 | {"x": base64url.encode(b"\x07" * length)}, "EdDSA", "32 octets")


def test_an_ed25519_key_off_the_curve_verifies_nothing() -> None:
    y = next(y for y in range(2, 100) if recover_x(y) is None)
    key = public_key(ED25519 | {"x": integer(y, 32, order="little")}, ALGORITHMS["EdDSA"])
    assert not ALGORITHMS["EdDSA"].verify(key, b"x", bytes(64))
    assert not ALGORITHMS["EdDSA"].verify(key, b"x", (1).to_bytes(32, "little") + bytes(32))


# Thumbprints


def test_the_example_of_rfc_7638_has_its_thumbprint() -> None:
    assert thumbprint(EXAMPLES["rfc7638"]["jwk"]) == EXAMPLES["rfc7638"]["thumbprint"]


def test_the_example_of_rfc_8037_has_its_thumbprint() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("jwk", [P256, P384, P521, ED25519, RSA])
def test_thumbprint_counts_required_members_only(jwk: dict[str, Any]) -> None:
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    expected = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")
    assert thumbprint(jwk) == expected
    assert (
        thumbprint(dict(reversed(jwk.items())) | {"kid": "1", "alg": "x", "use": "sig", "d": 1}) == expected
    )


@pytest.mark.parametrize("jwk", [P256, ED25519, RSA])
def test_thumbprint_needs_every_member(jwk: dict[str, Any]) -> None:
    bad: tuple[Any, ...] = (None, 1, "", [], "a b", 'a"', "a=", "\ud800", "a\n")
    for member in jwk:
        without = {name: value for name, value in jwk.items() if name != member}
        for broken in (without, *(jwk | {member: value} for value in bad)):
            with pytest.raises(JOSEError) as caught:
                thumbprint(broken)
            assert caught.value.check is Check.JWK


@pytest.mark.parametrize("kty", [None, 1, "ec", "oct", ["EC"], {"EC": 1}, "akp"])
def test_an_unknown_key_type_has_no_thumbprint(kty: object) -> None:
    with pytest.raises(JOSEError, match="unknown key type"):
        thumbprint(P256 | {"kty": kty, "k": "AAAA"})


# Everything together


def test_the_proof_of_rfc_9449_verifies() -> None:
    example = EXAMPLES["resource_request"]
    jws = strict.split(example["proof"])
    header = strict.parse_object(base64url.decode(jws.header))
    algorithm = ALGORITHMS[header["alg"]]
    key = public_key(header["jwk"], algorithm)
    assert algorithm.verify(key, jws.signing_input, base64url.decode(jws.signature))
    assert thumbprint(header["jwk"]) == example["jkt"]


def judged_by_jose(case: dict[str, Any]) -> bool:
    """Whether the proof of a case is well-formed and signed by an acceptable key."""
    [proof] = [value for name, value in case["request"]["headers"] if name == "dpop"]
    try:
        jws = strict.split(proof)
        header = strict.parse_object(base64url.decode(jws.header))
        strict.parse_object(base64url.decode(jws.payload))
        algorithm = ALGORITHMS[header["alg"]]
        key = public_key(header.get("jwk"), algorithm)
        thumbprint(header["jwk"])
        return algorithm.verify(key, jws.signing_input, base64url.decode(jws.signature))
    except JOSEError:
        return False


JOSE_CASES = [case for case in PROOFS["cases"] if case["group"] in "EKS" and "request" in case]


@pytest.mark.parametrize("case", JOSE_CASES, ids=[case["id"] for case in JOSE_CASES])
def test_the_vectors_of_encoding_keys_and_signatures_are_judged_right(case: dict[str, Any]) -> None:
    assert judged_by_jose(case) is (case["expect"]["outcome"] == "accept")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=50)
    | st.binary(max_size=66).map(base64url.encode),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "use", "key_ops", "alg", "kid", "d"]) | st.text(
    max_size=3
)


@given(st.sampled_from(SUPPORTED_ALGORITHMS), st.dictionaries(NAMES, VALUES, max_size=3), st.booleans())
@settings(max_examples=200)
def test_no_jwk_raises_anything_else(name: str, members: dict[str, Any], whole: bool) -> None:
    jwk = (JWKS[name] if whole else {"kty": JWKS[name]["kty"]}) | members
    try:
        key = public_key(jwk, ALGORITHMS[name])
    except JOSEError as error:
        assert error.check is Check.JWK
    else:
        assert ALGORITHMS[name].verify(key, b"message", b"signature") is False
        assert len(thumbprint(jwk)) == 43
    try:
        thumbprint(jwk)
    except JOSEError as error:
        assert error.check is Check.JWK


@given(st.integers(1, 2**32))
@settings(max_examples=50)
def test_a_generated_key_comes_back_with_one_thumbprint(seed: int) -> None:
    private = ec.derive_private_key(seed, ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    jwk = {"kty": "EC", "crv": "P-256"} | {
        "x": base64url.encode(point[1:33]),
        "y": base64url.encode(point[33:]),
    }
    assert public_key(jwk, ALGORITHMS["ES256"]) == private.public_key()
    okp = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")).public_key()
    assert (
        public_key(
            {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(okp.public_bytes_raw())},
            ALGORITHMS["EdDSA"],
        )
        == okp
    )
