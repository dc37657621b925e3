"""Answers of the introspection endpoint about a token (RFC 7662 section 2.2), and signed answers.

Nobody between the server and the endpoint can alter an answer that the issuer signs (RFC 9701).
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.introspection import BoundToken, ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.introspection._answer import MalformedAnswer, read_answer
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, Question, refusal, signed_jwt

JKT = DPoPKey.generate().jkt
US = ClientSecretBasic(client_id="api", client_secret="s3cret:/+")
Verifier = Callable[..., IntrospectionVerifier]


async def test_a_plain_answer_may_begin_with_a_byte_order_mark() -> None:
    kind = "application/json"
    assert await read_answer(kind, b'\xef\xbb\xbf{"active":false}', accept=kind, signed=None) == {
        "active": False
    }
    with pytest.raises(MalformedAnswer, match="not a JSON object"):
        await read_answer(kind, b"[]", accept=kind, signed=None)


async def test_a_token_that_is_not_active_is_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier()
    for _ in range(3):
        error = await refusal(opaque, "made-up")
        assert isinstance(error, InvalidToken)
        assert error.check is Check.TOKEN_ACTIVE
        assert "made-up" not in repr((error.args, error.expected, error.actual))
    assert issuer.asked_about("made-up") == 1


@pytest.mark.parametrize(
    ("claims", "check"),
    [
        ({"aud": "https://other.example"}, Check.TOKEN_AUD),
        ({"aud": None}, Check.TOKEN_AUD),
        ({"aud": 7}, Check.TOKEN_CLAIMS),
        ({"iss": "https://other.example"}, Check.TOKEN_ISS),
        ({"exp": 1000}, Check.TOKEN_TIME),
        ({"exp": None}, Check.TOKEN_CLAIMS),
        ({"exp": "tomorrow"}, Check.TOKEN_CLAIMS),
        ({"nbf": 4_000_000_000}, Check.TOKEN_TIME),
        ({"sub": None, "client_id": None}, Check.TOKEN_CLAIMS),
        ({"scope": {"notes": True}}, Check.TOKEN_CLAIMS),
        ({"token_type": None}, Check.TOKEN_CLAIMS),
        ({"token_type": "Bearer"}, Check.BINDING),
        ({"token_type": "refresh_token"}, Check.BINDING),
        ({"token_type": 1}, Check.BINDING),
        ({"cnf": {"x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": {"jkt": JKT, "x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": []}, Check.BINDING),
        ({"cnf": None}, Check.BINDING),
    ],
)
async def test_an_active_token_that_is_not_for_this_server_is_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, claims: dict[str, Any], check: Check
) -> None:
    opaque, token = verifier(), issuer.issue(JKT, **claims)
    for _ in range(2):
        error = await refusal(opaque, token)
        assert isinstance(error, InvalidToken)
        assert error.check is check
    assert len(issuer.asked) == 1, "the refusal is remembered too"


async def test_an_audience_may_be_missing_where_that_is_named(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(accept_missing_audience=True)
    verified = await opaque.verify(issuer.issue(JKT, aud=None, iss=None))
    assert verified.issuer == issuer.origin
    assert {"aud", "iss"}.isdisjoint(verified.claims)
    assert (await refusal(opaque, issuer.issue(JKT, aud="https://other.example"))).check is Check.TOKEN_AUD


async def test_required_claims_may_leave_out_what_an_issuer_leaves_out(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(required_claims=())
    verified = await opaque.verify(issuer.issue(JKT, exp=None, token_type=None))
    assert verified.expires_at == float("inf")
    assert (await refusal(verifier(required_claims=("acr",)), issuer.issue(JKT))).check is Check.TOKEN_CLAIMS


async def test_an_unbound_token_says_that_it_is_a_bearer_token(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    assert (await verifier().verify(issuer.issue())).jkt is None
    assert (await refusal(verifier(), issuer.issue(token_type="DPoP"))).check is Check.BINDING


# As Jackson writes every member that a class has.
NULLS = dict.fromkeys(("nbf", "iat", "acr", "auth_time", "authorization_details", "jti", "username", "iss"))


async def test_a_member_that_is_null_is_not_set(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    token = issuer.issue(JKT)
    issuer.tokens[token] |= NULLS
    verified = await verifier().verify(token)
    assert verified.jkt == JKT
    assert NULLS.keys().isdisjoint(verified.claims), "the application sees none either"


async def test_a_token_of_a_client_may_have_a_subject_without_a_character(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    verified = await verifier().verify(issuer.issue(JKT, sub=""))
    assert (verified.subject, verified.identity) == (None, "client:app")


async def test_a_token_whose_confirmation_is_null_is_bound_to_nothing(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    token = issuer.issue()
    issuer.tokens[token]["cnf"] = None
    verified = await verifier().verify(token)
    assert verified.jkt is None
    assert "cnf" not in verified.claims
    issuer.tokens[token]["token_type"] = "DPoP"
    assert (await refusal(verifier(), token)).check is Check.BINDING


@pytest.mark.parametrize("nobody", [None, []])
async def test_an_audience_that_names_nobody_is_missing(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, nobody: object
) -> None:
    token = issuer.issue(JKT)
    issuer.tokens[token]["aud"] = nobody
    assert (await refusal(verifier(), token)).check is Check.TOKEN_AUD
    verified = await verifier(accept_missing_audience=True).verify(token)
    assert "aud" not in verified.claims


@pytest.mark.parametrize("claim", ["exp", "token_type"])
async def test_a_required_member_that_is_null_is_missing(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, claim: str
) -> None:
    token = issuer.issue(JKT)
    issuer.tokens[token][claim] = None
    error = await refusal(verifier(), token)
    assert (error.check, error.expected) == (Check.TOKEN_CLAIMS, claim)


async def test_a_token_that_names_nobody_is_refused_whatever_says_so(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    token = issuer.issue(JKT, sub="")
    issuer.tokens[token]["client_id"] = None
    assert (await refusal(verifier(), token)).check is Check.TOKEN_CLAIMS


MEDIA_TYPE = "application/token-introspection+jwt"


def signs(
    issuer: IssuerOfOpaqueTokens,
    *,
    key: DPoPKey | None = None,
    header: Any = None,
    around: tuple[str, str] = ("", ""),
    **claims: Any,
) -> None:
    """Let the issuer sign its answers, with text `around` them; a claim of None is left out."""

    async def behave(question: Question) -> Response:
        said = {
            "iss": issuer.origin,
            "aud": "api",
            "iat": int(time.time()),
            "token_introspection": issuer.says(question.form["token"]),
        } | claims
        said = {name: value for name, value in said.items() if value is not None}
        body = signed_jwt(key or issuer.key, said, **(header or {}))
        return Response(body.join(around), media_type=f"{MEDIA_TYPE}; charset=utf-8")

    issuer.behaves = behave


async def test_a_signed_answer_is_accepted(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    signs(issuer)
    opaque, token = verifier(signed_answers=True), issuer.issue(JKT)
    assert (await opaque.verify(token)).jkt == JKT
    assert issuer.asked[0].headers["accept"] == MEDIA_TYPE
    with pytest.raises(InvalidToken):
        await opaque.verify("made-up")
    health = await opaque.health()
    assert health.ok
    assert health.keys is not None
    assert health.keys.keys == 1


@pytest.mark.parametrize("aud", [API, ["x", "api"]])
async def test_it_may_name_the_api_or_the_client(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, aud: Any
) -> None:
    signs(issuer, aud=aud)
    assert (await verifier(signed_answers=True).verify(issuer.issue(JKT))).jkt == JKT


async def test_white_space_around_a_signed_answer_is_no_part_of_it(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    signs(issuer, around=("\r\n", " \t\n"))
    assert (await verifier(signed_answers=True).verify(issuer.issue(JKT))).jkt == JKT


async def test_keys_may_be_given(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    signs(issuer)
    keys = {"keys": [issuer.key.public_jwk | {"kid": "1"}]}
    assert (await verifier(signed_answers=True, jwks=keys).verify(issuer.issue(JKT))).jkt == JKT
    assert issuer.requests == []
    signs(issuer, header={"kid": "2"})
    assert "no key of the issuer" in await unknown(
        verifier(signed_answers=True, jwks=keys), issuer.issue(JKT)
    )


async def unknown(opaque: IntrospectionVerifier, token: str) -> str:
    with pytest.raises(Unavailable) as caught:
        await opaque.verify(token)
    assert token not in str(caught.value.actual)
    return str(caught.value.actual)


NOW = time.time()
STRANGER = DPoPKey.generate()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"key": STRANGER}, "no key of the issuer"),
        ({"key": STRANGER, "header": {"kid": "new"}}, "no key of the issuer"),
        ({"header": {"typ": "at+jwt"}}, "typ is not accepted"),
        ({"header": {"typ": "JWT"}}, "typ is not accepted"),
        ({"header": {"alg": "none"}}, "alg is not accepted"),
        ({"header": {"alg": "HS256"}}, "alg is not accepted"),
        ({"header": {"crit": ["x"]}}, "asks for something"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "https://other.example"}, "somebody else"),
        ({"aud": None}, "somebody else"),
        ({"aud": [7]}, "somebody else"),
        ({"iat": None}, "not from the last minute"),
        ({"iat": NOW - 3600}, "not from the last minute"),
        ({"iat": NOW + 3600}, "not from the last minute"),
        ({"iat": True}, "not from the last minute"),
        ({"token_introspection": None}, "no token_introspection"),
        ({"token_introspection": "x"}, "no token_introspection"),
        ({"token_introspection": {}}, "doesn't say"),
    ],
)
async def test_an_answer_that_the_issuer_did_not_sign_for_this_server_now_is_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, how: dict[str, Any], reason: str
) -> None:
    signs(issuer, **how)
    assert reason in await unknown(verifier(signed_answers=True), issuer.issue(JKT))


async def test_an_unsigned_answer_is_refused(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    assert "media type" in await unknown(verifier(signed_answers=True), issuer.issue(JKT))

    async def behave(question: Question) -> Response:
        return Response(JSONResponse(issuer.says(question.form["token"])).body, media_type=MEDIA_TYPE)

    issuer.behaves = behave
    assert "not a signed JWT" in await unknown(verifier(signed_answers=True), issuer.issue(JKT))


async def test_a_new_key_of_the_issuer_is_found(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    signs(issuer)
    opaque = verifier(signed_answers=True)
    await opaque.verify(issuer.issue(JKT))
    issuer.key, issuer.kid = DPoPKey.generate(), "2"
    signs(issuer, header={"kid": "2"})
    assert (await opaque.verify(issuer.issue(JKT))).jkt == JKT


async def test_without_the_issuers_keys_the_answer_is_503(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    signs(issuer)
    opaque = verifier(signed_answers=True, jwks=f"{issuer.origin}/none")
    assert "keys" in await unknown(opaque, issuer.issue(JKT))
    health = await opaque.health()
    assert not health.ok
    assert health.error is not None


async def test_with_a_bound_token_a_signed_answer_may_name_the_api(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    signs(issuer, aud=API)
    key = DPoPKey.generate()
    opaque = verifier(signed_answers=True, client_authentication=BoundToken(key=key, token="mine"))
    assert (await opaque.verify(issuer.issue(JKT))).jkt == JKT


def test_keys_without_signed_answers_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="signed_answers=True"):
        IntrospectionVerifier(
            issuer="https://auth.example",
            audience=API,
            client_authentication=BoundToken(key=STRANGER, token="x"),
            jwks="https://auth.example/jwks",
        )
