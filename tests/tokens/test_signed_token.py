"""The form and the header of a token, and the key that signed a token without `kid`."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.jwks import VerificationKey, parse_key_set
from dpop_middleware.tokens.signed_token import SignedToken, SigningKeys, parse_signed_token
from tests.support.issuer_tokens import IssuerKey, issuer_key, key_set

KEY = issuer_key("ES256")
ONE, TWO, THREE, STRANGER = (issuer_key("ES256", number=number, kid=None) for number in (1, 2, 3, 4))
KEYS = parse_key_set(key_set(ONE, TWO, THREE)).keys


def parse(token: str, *, token_types: Any = ("at+jwt", "application/at+jwt")) -> SignedToken:
    return parse_signed_token(token, token_types=token_types, algorithms=SUPPORTED_ALGORITHMS)


def refused(token: str, **options: Any) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        parse(token, **options)
    return caught.value


def test_the_parts_of_a_token_are_read() -> None:
    token = KEY.token()
    signed = parse(token)
    assert (signed.algorithm.name, signed.kid) == ("ES256", "key-1")
    assert token.startswith(signed.signing_input.decode() + ".")
    assert json.loads(signed.payload)["client_id"] == "s6BhdRkqt3"


def test_one_key_has_signed_a_token() -> None:
    others = [issuer_key("ES256", number=number) for number in (2, 3)]
    keys = parse_key_set(key_set(others[0], KEY, others[1]))
    assert [parse(KEY.token()).is_signed_by(key) for key in keys.keys] == [False, True, False]


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+JWT"])
def test_accepted_types_pass(typ: str) -> None:
    assert parse(KEY.token(header={"typ": typ})).kid == "key-1"


@pytest.mark.parametrize(
    "typ",
    [
        *("JWT", "dpop+jwt", "at-jwt", " at+jwt", "at+jwt ", "at+jwt;v=1", "x/at+jwt", "", None, 1),
        *("application/application/at+jwt", "application/", ["at+jwt"], {}, True, ...),
    ],
)
def test_another_type_than_the_configured_ones_is_refused(typ: Any) -> None:
    error = refused(KEY.token(header={"typ": typ}))
    assert (error.check, error.description) == (Check.TOKEN_TYP, "the access token's typ is not accepted")


def test_types_of_issuers_that_differ_can_be_accepted() -> None:
    types = ("jwt", None)
    assert parse(KEY.token(header={"typ": "JWT"}), token_types=types).kid == "key-1"
    assert parse(KEY.token(header={"typ": "application/JWT"}), token_types=types).kid == "key-1"
    assert parse(KEY.token(header={"typ": ...}), token_types=types).kid == "key-1"
    for typ in ("at+jwt", None, 1):
        assert refused(KEY.token(header={"typ": typ}), token_types=types).check is Check.TOKEN_TYP


def test_letters_that_only_look_alike_are_refused() -> None:
    assert refused(KEY.token(header={"typ": "to\u212aen"}), token_types=("token",)).check is Check.TOKEN_TYP


@pytest.mark.parametrize(
    "alg", ["none", "None", "HS256", "ES256K", "ES521", "es256", "RSA-OAEP", "", None, 1, ["ES256"], {}, ...]
)
def test_another_algorithm_than_the_configured_ones_is_refused(alg: Any) -> None:
    error = refused(KEY.token(header={"alg": alg}))
    assert (error.check, error.description) == (Check.TOKEN_ALG, "the access token's alg is not accepted")


def test_b64_true_changes_nothing_rfc_7797_3() -> None:
    assert parse(KEY.token(header={"b64": True})).kid == "key-1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crit", ["b64"]),
        ("crit", []),
        ("crit", None),
        ("b64", False),
        ("b64", None),
        ("b64", 0),
        ("b64", 1),
        ("b64", "true"),
        ("zip", "DEF"),
        ("enc", "x"),
    ],
)
def test_header_members_that_are_refused(name: str, value: Any) -> None:
    error = refused(KEY.token(header={name: value}))
    assert (error.check, error.actual) == (Check.TOKEN_FORMAT, name)


@pytest.mark.parametrize("kid", [None, 1, ["key-1"], {}, True])
def test_a_kid_is_a_string(kid: Any) -> None:
    error = refused(KEY.token(header={"kid": kid}))
    assert (error.check, str(error)) == (Check.TOKEN_FORMAT, "the access token's kid is not a string")


def test_keys_in_the_token_are_not_used() -> None:
    carried = {"jwk": 5, "jku": "https://evil.example", "x5u": {}, "x5c": [1], "x5t": None}
    assert parse(KEY.token(header=carried)).kid == "key-1"


def test_the_error_for_an_encrypted_token_says_that_it_is_unsupported() -> None:
    error = refused("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA")
    assert error.check is Check.TOKEN_FORMAT
    assert error.description == "encrypted access tokens (JWE) are not supported"


HEADER, PAYLOAD, SIGNATURE = KEY.token().split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "opaque",
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.a.b.c",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}=",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}AAA",
        f" {HEADER}.{PAYLOAD}.{SIGNATURE}",
        f"{PAYLOAD[:5]}+.{PAYLOAD}.{SIGNATURE}",
        KEY.sign("[]", {}),
        KEY.sign("null", {}),
        KEY.sign("not json", {}),
        KEY.sign('{"typ":"at+jwt","alg":"none","alg":"ES256"}', {}),
        KEY.sign('{"typ":"at+jwt","alg":"ES256","x":NaN}', {}),
        base64url.encode(b'\xff{"typ":"at+jwt","alg":"ES256"}') + f".{PAYLOAD}.{SIGNATURE}",
    ],
    ids=lambda _: "token",  # a key that is new in each run would give each run other names
)
def test_a_string_that_is_no_signed_jwt_is_refused(token: str) -> None:
    error = refused(token)
    assert (error.check, error.description) == (Check.TOKEN_FORMAT, "the access token is not a signed JWT")


def test_a_payload_that_is_not_base64url_is_refused() -> None:
    signed = parse(f"{HEADER}.{PAYLOAD}=.{SIGNATURE}")
    assert not signed.is_signed_by(parse_key_set(key_set(KEY)).keys[0])
    with pytest.raises(InvalidToken, match="not a signed JWT"):
        assert signed.payload


def test_a_token_is_not_shown() -> None:
    token = SignedToken(
        algorithm=ALGORITHMS["ES256"],
        kid=None,
        signing_input=b"secret",
        encoded_payload="secret",
        signature=b"secret",
    )
    assert "secret" not in repr(token)


MEMBERS = {"typ": "at+jwt", "alg": "ES256"}


def header_of(**members: object) -> str:
    return json.dumps({**MEMBERS, **members})


LONGEST = header_of(pad="x" * (1536 - len(header_of(pad=""))))


@pytest.mark.parametrize(
    ("most", "more", "why"),
    [
        (LONGEST, LONGEST + " ", "too large"),
        (header_of(a=[1] * 46), header_of(a=[1] * 47), "too many members"),
        (header_of(a=[{}, {}]), header_of(a=[{}, {}, {}]), "too many members"),
        (header_of(a="\\" * 20), header_of(a="\\" * 21), "escapes"),
    ],
    ids=["1.5 KiB", "64 structural characters", "four objects and arrays", "40 escapes"],
)
def test_the_header_of_a_token_has_bounds_and_the_log_names_them(most: str, more: str, why: str) -> None:
    assert parse(KEY.sign(most, {})).algorithm.name == "ES256"
    error = refused(KEY.sign(more, {}))
    assert error.check is Check.TOKEN_FORMAT
    assert why in str(error.actual)


@pytest.mark.parametrize("number", ["1.0", "-0.5", "1e3", "1E-3", "1e400"])
def test_the_header_of_a_token_has_no_number_with_a_fraction_or_an_exponent(number: str) -> None:
    error = refused(KEY.sign(header_of(a=0).replace("0}", number + "}"), {}))
    assert error.check is Check.TOKEN_FORMAT
    assert error.actual == "a number has a fraction or an exponent"
    assert parse(KEY.sign(header_of(a=[-1, 0, 10**300, "1.0", "1e3"]), {})).algorithm.name == "ES256"


def test_an_honest_header_with_a_certificate_whose_slashes_are_escaped_passes() -> None:
    certificate = ("MIIC/zCCA" + "a" * 39) * 24
    text = header_of(kid="1", x5c=[certificate], x5t="x" * 27).replace("/", "\\/")
    assert text.count("\\") > 20
    assert parse(KEY.sign(text, {})).kid == "1"


def test_headers_are_remembered_but_for_long_ones() -> None:
    name = "k" * 600
    for kid in ("a", "b", "a", name, name):
        assert parse(KEY.sign(header_of(kid=kid), {})).kid == kid


def test_a_header_that_one_verifier_accepts_is_not_remembered_for_another() -> None:
    token = KEY.sign(header_of(typ="JWT"), {})
    parsed = parse_signed_token(token, token_types=("jwt",), algorithms=("ES256",))
    assert parsed.algorithm.name == "ES256"
    assert refused(token).check is Check.TOKEN_TYP
    with pytest.raises(InvalidToken):
        parse_signed_token(token, token_types=("jwt",), algorithms=("ES512",))


def signed(key: IssuerKey) -> SignedToken:
    return parse_signed_token(key.token(), token_types=("at+jwt",), algorithms=SUPPORTED_ALGORITHMS)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[VerificationKey]:
    """The keys that signatures were compared with."""
    seen: list[VerificationKey] = []
    verify = SignedToken.is_signed_by

    def counting(self: SignedToken, key: VerificationKey) -> bool:
        seen.append(key)
        return verify(self, key)

    monkeypatch.setattr(SignedToken, "is_signed_by", counting)
    return seen


def found(keys: SigningKeys, key: IssuerKey, *sets: Sequence[VerificationKey]) -> VerificationKey | None:
    """Search for the key of a token in one set after another, as long as it isn't found."""
    search = keys.search(signed(key))
    return next((found for known in sets if (found := search.among(known)) is not None), None)


def test_two_keys_are_tried_and_no_third(tried: list[VerificationKey]) -> None:
    assert found(SigningKeys(), TWO, KEYS) is KEYS[1]
    tried.clear()
    assert found(SigningKeys(), THREE, KEYS, tuple(KEYS)) is None
    assert tried == list(KEYS[:2])


def test_the_last_key_that_signed_is_tried_first(tried: list[VerificationKey]) -> None:
    keys = SigningKeys()
    found(keys, TWO, KEYS)
    tried.clear()
    assert found(keys, TWO, KEYS) is KEYS[1]
    assert tried == [KEYS[1]]


def test_ten_forgeries_a_second_are_tried_twice_and_more_of_them_once(tried: list[VerificationKey]) -> None:
    now = 5.0
    keys = SigningKeys(monotonic=lambda: now)
    for _ in range(15):
        assert found(keys, STRANGER, KEYS) is None
    assert len(tried) == 25
    now = 6.0
    assert found(keys, TWO, KEYS) is KEYS[1]


@pytest.mark.parametrize(
    ("known", "check"),
    [(KEYS, Check.TOKEN_KEY), (KEYS[:2], Check.TOKEN_SIGNATURE), (KEYS[:1], Check.TOKEN_SIGNATURE)],
)
def test_a_signature_is_called_wrong_where_every_key_was_tried(
    known: Sequence[VerificationKey], check: Check
) -> None:
    search = SigningKeys().search(signed(STRANGER))
    assert search.among(known) is None
    assert search.failure(known).check is check


def flooded() -> SigningKeys:
    """Signing keys of which forgeries have taken all attempts of this second."""
    keys = SigningKeys(monotonic=lambda: 5.0)
    found(keys, ONE, KEYS[:2])
    for _ in range(10):
        found(keys, STRANGER, KEYS[:2])
    return keys


def test_a_flood_of_forgeries_locks_out_no_key_of_the_issuer(tried: list[VerificationKey]) -> None:
    keys = flooded()
    tried.clear()
    for honest, key in ((ONE, KEYS[0]), (TWO, KEYS[1])):
        assert [found(keys, honest, KEYS[:2]) for _ in range(4)].count(key) >= 2, "each key has its turn"
    assert len(tried) == 8, "and a token costs one verification"


def test_during_a_flood_the_key_that_was_not_tried_is_named_as_the_reason() -> None:
    search = flooded().search(signed(STRANGER))
    assert search.among(KEYS[:2]) is None
    error = search.failure(KEYS[:2])
    assert (error.check, error.expected) == (Check.TOKEN_KEY, "kid")


def test_a_newer_set_with_the_same_keys_costs_a_forgery_no_attempt(tried: list[VerificationKey]) -> None:
    keys = flooded()
    tried.clear()
    assert found(keys, STRANGER, KEYS[:2], tuple(KEYS[:2])) is None
    assert len(tried) == 1


def test_with_a_new_key_the_one_that_was_put_off_is_tried_too() -> None:
    keys = flooded()
    for _ in range(4):
        assert found(keys, THREE, KEYS[:2], KEYS[1:]) is KEYS[2]
        assert found(keys, TWO, KEYS[:2], KEYS[1:]) is KEYS[1]


def test_what_failed_before_a_new_key_came_counts_no_more() -> None:
    keys = flooded()
    for _ in range(20):
        assert found(keys, TWO, KEYS[1:]) is KEYS[1]
        assert found(keys, THREE, KEYS[1:]) is KEYS[2]


def test_attempts_that_find_the_key_are_not_counted() -> None:
    keys = SigningKeys(monotonic=lambda: 5.0)
    for _ in range(20):
        assert found(keys, TWO, KEYS) is KEYS[1]
        assert found(keys, ONE, KEYS) is KEYS[0]


def test_a_flood_that_fits_other_keys_in_turn_costs_no_more(tried: list[VerificationKey]) -> None:
    keys = SigningKeys(monotonic=lambda: 5.0)
    for _ in range(20):
        # As with and without a `kid` that no key has.
        found(keys, STRANGER, KEYS[:2])
        found(keys, STRANGER, KEYS[1:])
    assert len(tried) == 40 + 1 + 10, "one before the third key was known, and ten after it"


def test_a_key_is_new_again_after_a_thousand_others(tried: list[VerificationKey]) -> None:
    keys = flooded()
    others = [
        [key._replace(identity=f"{number} {key.identity}") for key in KEYS[:2]] for number in range(600)
    ]
    for later in (*others, *[others[-1]] * 10):
        found(keys, STRANGER, later)
    tried.clear()
    found(keys, STRANGER, KEYS[:2])
    assert len(tried) == 2
