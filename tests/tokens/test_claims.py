"""The claims of a token: each of them altered alone."""

import json
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidToken
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import VerifiedToken
from dpop_middleware.tokens.claims import ClaimRules, checked_token_types, difference, judge_claims
from tests.support.issuer_tokens import ISSUER, JKT, RESOURCE, good_claims

NOW = 1_800_000_000
RULES = ClaimRules(
    issuer=ISSUER,
    audiences=frozenset({RESOURCE, "notes"}),
    required=("iss", "exp", "aud", "sub", "client_id", "iat", "jti"),
    scope_claims=("scope",),
    client_id_claims=("client_id",),
    clock_skew=15,
)


def judge(rules: ClaimRules = RULES, /, **changes: Any) -> VerifiedToken:
    """Judge good claims with `changes` over them; Ellipsis leaves one out."""
    claims = {name: value for name, value in {**good_claims(NOW), **changes}.items() if value is not ...}
    return judge_claims(json.dumps(claims).encode(), rules=rules, now=NOW, key_identity="key")


def refused(rules: ClaimRules = RULES, /, **changes: Any) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        judge(rules, **changes)
    return caught.value


def test_good_claims_are_accepted() -> None:
    assert judge() == VerifiedToken(
        access_token=AccessToken(
            claims=good_claims(NOW),
            issuer=ISSUER,
            subject="someone@example.com",
            client_id="s6BhdRkqt3",
            scopes=frozenset({"notes:read", "notes:write"}),
            expires_at=NOW + 600,
            jkt=JKT,
        ),
        token_hash="",
        not_before=NOW,
        key_identity="key",
    )


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b'"x"', b"{", b'{"iss":1,"iss":2}', b"\xff{}", b'{"exp":NaN}', b"[" * 9999],
)
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidToken, match="claims are malformed") as caught:
        judge_claims(payload, rules=RULES, now=NOW, key_identity="key")
    assert caught.value.check is Check.TOKEN_CLAIMS


@pytest.mark.parametrize("name", RULES.required)
def test_each_required_claim_must_be_present(name: str) -> None:
    error = refused(RULES, **{name: ...})
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, name)
    assert error.description == "the access token lacks a required claim"


@pytest.mark.parametrize("name", ["sub", "client_id", "jti"])
@pytest.mark.parametrize("value", ["", None, 1, True, [], ["x"], {}])
def test_a_claim_that_must_be_text_is_refused_otherwise(name: str, value: Any) -> None:
    error = refused(RULES, **{name: value})
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, name)
    assert error.description == "a claim of the access token is malformed"


def test_claims_that_an_issuer_leaves_out_need_not_be_required() -> None:
    rules = RULES._replace(required=("iss", "exp", "aud"))
    verified = judge(rules, client_id=..., iat=..., jti=..., scope=..., cnf=...)
    token = verified.access_token
    assert (token.subject, token.client_id, token.scopes, token.jkt) == (
        "someone@example.com",
        "",
        frozenset(),
        None,
    )
    assert verified.not_before == float("-inf")
    # A claim may be left out, but not be wrong.
    assert refused(rules, jti=5).check is Check.TOKEN_CLAIMS


def test_a_token_without_subject_speaks_for_its_client() -> None:
    rules = RULES._replace(required=("iss", "exp", "aud"), client_id_claims=("client_id", "azp"))
    token = judge(rules, sub=...).access_token
    assert (token.subject, token.client_id, token.identity) == (None, "s6BhdRkqt3", "client:s6BhdRkqt3")
    assert judge(rules, sub=..., client_id=..., azp="x").access_token.identity == "client:x"
    assert refused(RULES, sub=...).expected == "sub"


def test_a_token_without_subject_and_client_is_refused() -> None:
    rules = RULES._replace(required=("iss", "exp", "aud"), client_id_claims=("client_id", "azp"))
    error = refused(rules, sub=..., client_id=...)
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, ("sub", "client_id", "azp"))
    assert error.description == "the access token names neither a subject nor a client"
    # A claim may be left out, but not be empty or null.
    empty: list[Any] = ["", None, [], 0]
    for wrong in empty:
        assert refused(rules, sub=wrong).expected == "sub"
        assert refused(rules, sub=..., client_id=wrong, azp="x").expected == "client_id"


def test_other_claims_can_be_required() -> None:
    rules = RULES._replace(required=(*RULES.required, "tenant"))
    assert refused(rules).expected == "tenant"
    assert judge(rules, tenant="x").access_token.client_id == "s6BhdRkqt3"


def test_the_client_may_have_other_claim_names() -> None:
    rules = RULES._replace(client_id_claims=("client_id", "azp", "cid"))
    assert judge(rules, client_id=..., azp="a", cid="c").access_token.client_id == "a"
    assert judge(rules, client_id="x", azp="a").access_token.client_id == "x"
    assert refused(rules, client_id=...).expected == "client_id or azp or cid"
    assert refused(rules, client_id=..., azp=1, cid="c").expected == "azp"


@pytest.mark.parametrize(
    "iss", [ISSUER + "/", "https://AS.example.com", "https://as.example.com:443", "", None, 1, [ISSUER], {}]
)
def test_the_issuer_must_match_exactly(iss: Any) -> None:
    error = refused(iss=iss)
    assert (error.check, error.expected) == (Check.TOKEN_ISS, ISSUER)


@pytest.mark.parametrize("aud", ["notes", RESOURCE, [RESOURCE], ["x", "notes"], ["notes", RESOURCE]])
def test_a_token_for_this_audience_is_accepted(aud: Any) -> None:
    assert judge(aud=aud).access_token.issuer == ISSUER


@pytest.mark.parametrize("aud", ["", "x", RESOURCE + "/", "notes ", f"notes {RESOURCE}", [], ["x"], "NOTES"])
def test_a_token_for_another_audience_is_refused(aud: Any) -> None:
    error = refused(aud=aud)
    assert (error.check, error.expected) == (Check.TOKEN_AUD, sorted({"notes", RESOURCE}))
    assert error.actual is not None


@pytest.mark.parametrize("aud", [None, 1, True, {}, {"notes": 1}, [["notes"]], ["notes", 1], [None]])
def test_a_malformed_audience_is_refused(aud: Any) -> None:
    assert refused(aud=aud).check is Check.TOKEN_CLAIMS


@pytest.mark.parametrize("exp", [NOW - 14.9, NOW + 0.5, NOW, NOW + 10**9, float(NOW)])
def test_a_token_that_has_not_expired_is_accepted(exp: float) -> None:
    assert judge(exp=exp).access_token.expires_at == exp


@pytest.mark.parametrize("exp", [0, 1, NOW - 15, NOW - 1000])
def test_a_token_that_has_expired_is_refused(exp: float) -> None:
    error = refused(exp=exp)
    assert (error.check, error.actual) == (Check.TOKEN_TIME, exp)
    assert error.description == "the access token has expired"


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_from_the_future_is_refused(name: str) -> None:
    assert judge(RULES, **{name: NOW + 15}).not_before == NOW + 15
    error = refused(RULES, **{name: NOW + 15.1})
    assert (error.check, error.actual) == (Check.TOKEN_TIME, NOW + 15.1)
    assert error.description == "the access token is not valid yet"


def test_the_later_of_nbf_and_iat_counts() -> None:
    assert judge(iat=NOW - 50, nbf=NOW - 20).not_before == NOW - 20
    assert judge(iat=NOW - 20, nbf=NOW - 50).not_before == NOW - 20


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [None, True, "1800000000", [], {}, -1, -0.5, 1e300, 10**300, 253402300800])
def test_a_malformed_time_is_refused(name: str, value: Any) -> None:
    error = refused(RULES, **{name: value})
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, name)
    assert len(str(error.actual)) <= 103


def test_numbers_that_json_does_not_have_are_refused() -> None:
    for number in ("NaN", "Infinity", "1e999", "1" + "0" * 4000):
        payload = json.dumps(good_claims(NOW)).replace(str(NOW + 600), number).encode()
        with pytest.raises(InvalidToken, match="claims are malformed"):
            judge_claims(payload, rules=RULES, now=NOW, key_identity="key")


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("a", {"a"}),
        ("a b a", {"a", "b"}),
        (" a  b ", {"a", "b"}),
        ("", set()),
        (..., set()),
        (["a", "b"], {"a", "b"}),
        ([], set()),
        ("notes:read https://x.example/y#z", {"notes:read", "https://x.example/y#z"}),
    ],
)
def test_scopes_are_read_from_a_string_or_an_array(scope: Any, scopes: set[str]) -> None:
    assert judge(scope=scope).access_token.scopes == scopes


@pytest.mark.parametrize(
    "scope",
    [None, 1, True, {}, "a\tb", "a\nb", 'a"b', "a\\b", "é", "a\u00a0b", ["a b"], [""], [1], [["a"]], "\x7f"],
)
def test_malformed_scopes_are_refused(scope: Any) -> None:
    error = refused(scope=scope)
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, "scope")


def test_scopes_may_have_other_claim_names() -> None:
    rules = RULES._replace(scope_claims=("scope", "scp"))
    assert judge(rules, scope=..., scp=["a", "b"]).access_token.scopes == {"a", "b"}
    assert judge(rules, scope="c", scp="a b").access_token.scopes == {"a", "b", "c"}
    assert judge(scp=["a"]).access_token.scopes == {"notes:read", "notes:write"}
    assert refused(rules, scp={}).expected == "scp"


def test_an_unbound_token_has_no_jkt() -> None:
    assert judge(cnf=...).access_token.jkt is None


def test_an_unknown_member_of_cnf_is_ignored() -> None:
    assert judge(cnf={"jkt": JKT, "unknown": 1}).access_token.jkt == JKT


def test_a_certificate_that_is_not_set_binds_nothing() -> None:
    assert judge(cnf={"jkt": JKT, "x5t#S256": None}).access_token.jkt == JKT


@pytest.mark.parametrize(
    "cnf",
    [
        None,
        {},
        [],
        "",
        JKT,
        0,
        False,
        [JKT],
        {"x5t#S256": JKT},
        {"x5t#S256": None},
        {"jkt": None, "x5t#S256": None},
        {"jkt": JKT, "x5t#S256": ""},
        {"jwk": {"kty": "OKP"}},
        {"kid": "x"},
        {"jkt": JKT, "x5t#S256": JKT},
        {"JKT": JKT},
        {"jkt": None},
        {"jkt": 5},
        {"jkt": [JKT]},
        {"jkt": ""},
        {"jkt": JKT[:-1]},
        {"jkt": JKT + "A"},
        {"jkt": JKT + "="},
        {"jkt": JKT + "\n"},
        {"jkt": JKT[:-1] + "J"},
        {"jkt": "+" + JKT[1:]},
        {"jkt": "é" + JKT[1:]},
    ],
)
def test_any_other_confirmation_is_refused(cnf: Any) -> None:
    error = refused(cnf=cnf)
    assert error.check is Check.BINDING
    assert error.description == (
        "the access token is bound by a confirmation method that is not supported here"
    )


def test_token_types_are_normalised() -> None:
    assert checked_token_types(["AT+JWT", "JWT", None]) == ("at+jwt", "jwt", None)
    assert checked_token_types(["application/at+jwt", "at+jwt", "x/y"]) == ("at+jwt", "x/y")


@pytest.mark.parametrize("types", ["at+jwt", [], None, 5, [""], [5], ["\u212a"]])
def test_wrong_token_types_are_refused(types: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_types takes the accepted values of typ"):
        checked_token_types(types)


SLASH = "only a trailing slash differs"
CASE = "only upper and lower case differ"
BOTH = "a trailing slash and upper and lower case differ"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["https://a.example"], ["https://a.example/"], SLASH),
        (["https://a.example/x"], ["https://A.example/X"], CASE),
        (["https://a.example/x"], ["https://a.example/X/"], BOTH),
        (["https://a.example/x/"], ["https://a.example/y"], None),
        (["https://a.example"], [], None),
        (["https://b.example", "https://a.example"], ["c", "https://A.example"], CASE),
        (["https://a.example/", "api"], ["https://A.example", "api/"], SLASH),
    ],
)
def test_the_least_difference_of_two_names_is_told(
    ours: list[str], theirs: list[str], expected: str | None
) -> None:
    assert difference(iter(ours), iter(theirs)) == expected
