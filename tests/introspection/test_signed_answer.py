"""Answers that the issuer signs (RFC 9701): nobody between us and the endpoint can alter one."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, InvalidToken, Unavailable
from dpop_middleware.introspection import BoundToken, IntrospectionVerifier
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, Question, signed_jwt

JKT = DPoPKey.generate().jkt
Verifier = Callable[..., IntrospectionVerifier]
MEDIA_TYPE = "application/token-introspection+jwt"


def signs(
    issuer: IssuerOfOpaqueTokens, *, key: DPoPKey | None = None, header: Any = None, **claims: Any
) -> None:
    """Let the issuer sign its answers; a claim of None is left out."""

    async def behave(question: Question) -> Response:
        said = {
            "iss": issuer.origin,
            "aud": "api",
            "iat": int(time.time()),
            "token_introspection": issuer.says(question.form["token"]),
        } | claims
        said = {name: value for name, value in said.items() if value is not None}
        body = signed_jwt(key or issuer.key, said, **(header or {}))
        return Response(body, media_type=f"{MEDIA_TYPE}; charset=utf-8")

    issuer.behaves = behave


async def test_a_signed_answer(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
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
        ({"iat": None}, "not of this minute"),
        ({"iat": NOW - 3600}, "not of this minute"),
        ({"iat": NOW + 3600}, "not of this minute"),
        ({"iat": True}, "not of this minute"),
        ({"token_introspection": None}, "no token_introspection"),
        ({"token_introspection": "x"}, "no token_introspection"),
        ({"token_introspection": {}}, "doesn't say"),
    ],
)
async def test_what_the_issuer_did_not_sign_for_us_now_is_no_answer(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, how: dict[str, Any], reason: str
) -> None:
    signs(issuer, **how)
    assert reason in await unknown(verifier(signed_answers=True), issuer.issue(JKT))


async def test_an_unsigned_answer_is_none(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    assert "media type" in await unknown(verifier(signed_answers=True), issuer.issue(JKT))

    async def behave(question: Question) -> Response:
        return Response(JSONResponse(issuer.says(question.form["token"])).body, media_type=MEDIA_TYPE)

    issuer.behaves = behave
    assert "not a signed JWT" in await unknown(verifier(signed_answers=True), issuer.issue(JKT))


async def test_a_key_that_is_new(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    signs(issuer)
    opaque = verifier(signed_answers=True)
    await opaque.verify(issuer.issue(JKT))
    issuer.key, issuer.kid = DPoPKey.generate(), "2"
    signs(issuer, header={"kid": "2"})
    assert (await opaque.verify(issuer.issue(JKT))).jkt == JKT


async def test_without_keys_nothing_is_known(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    signs(issuer)
    opaque = verifier(signed_answers=True, jwks=f"{issuer.origin}/none")
    assert "keys" in await unknown(opaque, issuer.issue(JKT))
    health = await opaque.health()
    assert not health.ok
    assert health.error is not None


async def test_with_a_token_of_our_own_only_the_api_is_a_name_of_ours(
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
