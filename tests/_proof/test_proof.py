"""The proof, check by check. Claims and headers altered one by one are in test_oracle.py."""

import json
from typing import Any

import pytest

from dpop_middleware._proof.proof import (
    DPoPProof,
    ProofHeader,
    check_algorithm,
    check_ath,
    check_htm,
    check_htu,
    check_signature,
    parse_claims,
    parse_header,
    split_proof,
)
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidDPoPProof
from dpop_middleware.jose import base64url
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.policy import SUPPORTED_ALGORITHMS

KEY = DPoPKey.generate()
HEADER = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.public_jwk}
CLAIMS = {"jti": "j", "htm": "GET", "htu": "https://a.example/", "iat": 1_800_000_000}
TARGET = "https://a.example/b"


def segment(members: object) -> str:
    return base64url.encode(members if isinstance(members, bytes) else json.dumps(members).encode())


def parsed_header(**changes: Any) -> ProofHeader:
    members = {name: value for name, value in (HEADER | changes).items() if value is not ...}
    return parse_header(segment(members), SUPPORTED_ALGORITHMS)


def parsed(**changes: Any) -> DPoPProof:
    members = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    return parse_claims(segment(members), parsed_header())


def refused(check: Check, function: Any, *args: Any, **kwargs: Any) -> InvalidDPoPProof:
    with pytest.raises(InvalidDPoPProof) as caught:
        function(*args, **kwargs)
    assert caught.value.check is check
    return caught.value


def test_a_header_gives_algorithm_key_and_thumbprint() -> None:
    header = parsed_header(kid="ignored", jku="https://evil.example/keys", x5c=[1])
    assert header.algorithm is ALGORITHMS["ES256"]
    assert header.jkt == KEY.jkt


def test_claims_of_every_kind_are_read() -> None:
    assert parsed(ath="a", nonce="n", exp=1.5, nbf=0, iss=1, aud=[], sub={}) == DPoPProof(
        jti="j",
        htm="GET",
        htu="https://a.example/",
        iat=1_800_000_000,
        ath="a",
        nonce="n",
        jkt=KEY.jkt,
        algorithm="ES256",
        exp=1.5,
        nbf=0,
    )
    bare = parsed()
    assert (bare.ath, bare.nonce, bare.exp, bare.nbf) == (None, None, None, None)


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "é.b.c", "...."])
def test_a_token_has_three_segments(text: str) -> None:
    error = refused(Check.FORMAT, split_proof, text)
    assert error.__cause__ is not None


@pytest.mark.parametrize("octets", [b"", b"[]", b"{", b"null", b'{"a":1,"a":2}', b"\xff", b'{"a":NaN}'])
def test_two_json_objects_are_refused(octets: bytes) -> None:
    refused(Check.FORMAT, parse_header, segment(octets), SUPPORTED_ALGORITHMS)
    refused(Check.CLAIMS, parse_claims, segment(octets), parsed_header())
    refused(Check.FORMAT, parse_header, segment(HEADER) + "=", SUPPORTED_ALGORITHMS)


@pytest.mark.parametrize(
    "typ",
    [
        ...,
        None,
        "",
        "JWT",
        "at+jwt",
        1,
        ["dpop+jwt"],
        "dpop+jwt ",
        " dpop+jwt",
        "dpop+jwt;charset=utf-8",
        "application/dpop+jwt; v=1",
        "application//dpop+jwt",
        "application/application/dpop+jwt",
        "/dpop+jwt",
        "application/",
        "application",
        "x/dpop+jwt",
        "text/dpop+jwt",
        "DPoP+JWT\n",
        "dpop jwt",
        "dpop+jwſ",
        "dpo\uff50+jwt",
        "APPL\u0130CATION/dpop+jwt",
    ],
)
def test_another_typ_is_refused(typ: object) -> None:
    error = refused(Check.TYP, parsed_header, typ=typ)
    assert error.expected == "dpop+jwt"


@pytest.mark.parametrize(
    "typ", ["dpop+jwt", "DPOP+JWT", "DPoP+JWT", "application/dpop+jwt", "Application/DPoP+JWT"]
)
def test_typ_is_a_media_type_rfc_7515_4_1_9(typ: str) -> None:
    assert parsed_header(typ=typ).jkt == KEY.jkt


@pytest.mark.parametrize("member", ["crit", "b64", "zip"])
@pytest.mark.parametrize("value", [None, [], ["exp"], ["b64"], False, 0, 1, 1.0, "true", "", "DEF"])
def test_no_extension_is_understood(member: str, value: object) -> None:
    assert refused(Check.CRIT, parsed_header, **{member: value}).actual == member


def test_b64_true_says_what_is_so_anyway_rfc_7797_3() -> None:
    assert parsed_header(b64=True).jkt == KEY.jkt
    assert refused(Check.CRIT, parsed_header, b64=True, crit=["b64"]).actual == "crit"
    for member in ("crit", "zip"):
        assert refused(Check.CRIT, parsed_header, **{member: True}).actual == member


@pytest.mark.parametrize(
    "alg", [..., None, "", "none", "HS256", "es256", "ES256K", "ES521", 1, ["ES256"], {}, True]
)
def test_an_unaccepted_alg_is_refused(alg: object) -> None:
    refused(Check.ALG, parsed_header, alg=alg)


def test_only_the_algorithms_of_the_policy_are_accepted() -> None:
    error = refused(Check.ALG, parse_header, segment(HEADER), ("EdDSA",))
    assert (error.expected, error.actual) == (("EdDSA",), "ES256")
    check_algorithm("EdDSA", ("EdDSA",))


@pytest.mark.parametrize("jwk", [..., None, "", "foo", 1, True, [], [KEY.public_jwk]])
def test_a_proof_has_a_jwk(jwk: object) -> None:
    assert refused(Check.JWK, parsed_header, jwk=jwk).description == "the DPoP proof has no jwk"


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        KEY.private_jwk(),
        KEY.public_jwk | {"k": ""},
        KEY.public_jwk | {"kty": "RSA"},
        KEY.public_jwk | {"y": "AAAA"},
        KEY.public_jwk | {"use": "enc"},
        KEY.public_jwk | {"alg": "ES384"},
        KEY.public_jwk | {"d": None},
        KEY.public_jwk | {"oth": []},
    ],
)
def test_the_jwk_is_an_acceptable_public_key(jwk: object) -> None:
    error = refused(Check.JWK, parsed_header, jwk=jwk)
    assert error.description == "the jwk of the DPoP proof is not an acceptable public key"
    assert isinstance(error.actual, str), "the log says what is wrong with it"


@pytest.mark.parametrize("members", [{"key_ops": []}, {"use": None}, {"alg": None}, {"x5c": [], "kid": None}])
def test_members_of_the_jwk_that_are_not_set_are_ignored(members: dict[str, Any]) -> None:
    assert parsed_header(jwk=KEY.public_jwk | members).jkt == KEY.jkt


@pytest.mark.parametrize("name", ["jti", "htm", "htu"])
@pytest.mark.parametrize("value", [..., None, "", 1, True, [], {}, ["x"]])
def test_missing_or_malformed_texts_are_refused(name: str, value: object) -> None:
    error = refused(Check.CLAIMS, parsed, **{name: value})
    assert error.description == f"the {name} of the DPoP proof is missing or malformed"
    assert error.expected == name


def test_a_jti_has_at_most_512_characters() -> None:
    assert parsed(jti="é" * 512).jti == "é" * 512
    refused(Check.CLAIMS, parsed, jti="x" * 513)


@pytest.mark.parametrize("name", ["ath", "nonce"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}])
def test_malformed_optional_texts_are_refused(name: str, value: object) -> None:
    assert (
        refused(Check.CLAIMS, parsed, **{name: value}).description
        == f"the {name} of the DPoP proof is malformed"
    )


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "value", [None, "1800000000", True, False, [], {}, -1, -0.5, 253_402_300_800, 10**300]
)
def test_malformed_times_are_refused(name: str, value: object) -> None:
    refused(Check.CLAIMS, parsed, **{name: value})


@pytest.mark.parametrize("value", [0, 0.0, 1.5, 253_402_300_799])
def test_valid_times_are_accepted(value: float) -> None:
    assert parsed(iat=value).iat == value


def test_iat_is_required() -> None:
    refused(Check.CLAIMS, parsed, iat=...)


def test_a_method_is_compared_as_it_is() -> None:
    check_htm(parsed(htm="POST"), "POST")
    for htm in ("post", "POſT", "POST ", "GET"):
        error = refused(Check.HTM, check_htm, parsed(htm=htm), "POST")
        assert (error.expected, error.actual) == ("POST", htm)


@pytest.mark.parametrize(
    "htu",
    [
        TARGET,
        "HTTPS://A.EXAMPLE:443/b",
        f"{TARGET}?q#f",
        "https://a.example:/x/../%62",
        "https://a.example/./b",
        "https://a.example/b?q=ü \n",
    ],
)
def test_htu_names_the_target(htu: str) -> None:
    check_htu(parsed(htu=htu), TARGET)
    error = refused(Check.HTU, check_htu, parsed(htu=htu), f"{TARGET}c")
    assert error.actual == TARGET


def test_htu_names_something_else() -> None:
    error = refused(Check.HTU, check_htu, parsed(htu="HTTP://A.example/b"), TARGET)
    assert (error.expected, error.actual) == (TARGET, "http://a.example/b")
    for htu in (
        "/b",
        "a.example/b",
        "ftp://a.example/b",
        "https://u@a.example/b",
        "https://a.example/b ",
        "é",
    ):
        error = refused(Check.HTU, check_htu, parsed(htu=htu), TARGET)
        assert error.expected == TARGET
        assert error.__cause__ is not None


def test_ath_is_compared() -> None:
    check_ath(parsed(ath="x"), "x")
    for ath in ("", "X", "x="):
        error = refused(Check.ATH, check_ath, parsed(ath=ath), "x")
        assert (error.expected, error.actual) == (None, None)


def test_a_proof_without_ath_beside_a_token_is_told_that_it_has_none() -> None:
    error = refused(Check.ATH, check_ath, parsed(ath=...), "x")
    assert (error.description, error.expected) == ("the DPoP proof has no ath", "ath")


def test_the_signature_is_the_keys() -> None:
    jws = split_proof(KEY.proof("GET", TARGET))
    check_signature(jws, parsed_header())
    other = parse_header(DPoPKey.generate().proof("GET", TARGET).split(".")[0], SUPPORTED_ALGORITHMS)
    refused(Check.SIGNATURE, check_signature, jws, other)
    for signature in ("", "AA", jws.signature[:-4], jws.signature + "AAAA", jws.signature + "="):
        text = f"{jws.header}.{jws.payload}.{signature}"
        refused(Check.SIGNATURE, check_signature, split_proof(text), parsed_header())
