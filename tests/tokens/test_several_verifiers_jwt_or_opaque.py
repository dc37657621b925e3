"""Both kinds of token at one server: each goes to its own verifier, and to no other."""

from typing import Any

import pytest

from dpop_middleware import AccessToken, JWTAccessTokenVerifier, JWTOrOpaqueVerifier, MultiIssuerVerifier
from dpop_middleware.errors import ConfigurationError, InvalidToken
from dpop_middleware.testing import TestIssuer
from tests.support.api import Tokens

ISSUER = TestIssuer()


class Remote(Tokens):
    """An opaque verifier with `open`, `aclose` and `health`."""

    remote = True
    clock_skew = 20

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def open(self) -> None:
        self.calls.append("open")

    async def aclose(self) -> None:
        self.calls.append("aclose")

    async def health(self) -> bool:
        return True


def jwts() -> JWTAccessTokenVerifier:
    return JWTAccessTokenVerifier(issuer=ISSUER.issuer, audience=str(ISSUER.audience), jwks=ISSUER.jwks())


async def test_each_kind_goes_to_its_own_verifier() -> None:
    opaque = Remote()
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=opaque)
    assert (await both.verify(ISSUER.token(sub="ann"))).subject == "ann"
    assert await both.verify(token := ISSUER.token()) is await both.verify(token), "and is remembered"
    assert opaque.asked == []
    assert isinstance(await both.verify(opaque.issue()), AccessToken)
    assert opaque.asked == ["access-token"]


@pytest.mark.parametrize("token", ["a.b.c", "..", "a.b.", ISSUER.token()[:-4] + "AAAA"])
async def test_a_token_of_three_segments_never_goes_to_the_opaque_verifier(token: str) -> None:
    opaque = Remote()
    opaque.issue(name=token)
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=opaque)
    with pytest.raises(InvalidToken):
        await both.verify(token)
    assert opaque.asked == []
    assert both.is_remote(token) is False


@pytest.mark.parametrize("token", ["a", "a.b", "a.b.c.d", "a.b.c.d.e", "."])
async def test_every_other_token_is_opaque(token: str) -> None:
    opaque = Remote()
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=opaque)
    with pytest.raises(InvalidToken):
        await both.verify(token)
    assert opaque.asked == [token]
    assert both.is_remote(token) is True


async def test_a_nested_verifier_says_which_tokens_are_remote() -> None:
    inner = JWTOrOpaqueVerifier(jwt=jwts(), opaque=Remote())
    outer = JWTOrOpaqueVerifier(jwt=inner, opaque=inner)
    assert [outer.is_remote(token) for token in ("a.b.c", "a")] == [False, True]


async def test_the_verifier_has_the_properties_of_both() -> None:
    opaque = Remote()
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=opaque)
    assert both.issuers == tuple(dict.fromkeys((ISSUER.issuer, *opaque.issuers)))
    assert both.clock_skew == 15
    assert not hasattr(both, "expiry_is_final")
    await both.open()
    health = await both.health()
    assert (health.ok, health.opaque.ok, health.error) == (True, True, None)
    await both.aclose()
    assert opaque.calls == ["open", "aclose"]


class Unwell(Remote):
    """An unhealthy verifier."""

    async def health(self) -> Any:
        return False


async def test_the_verifier_is_healthy_when_both_are() -> None:
    assert not (await JWTOrOpaqueVerifier(jwt=jwts(), opaque=Unwell()).health()).ok
    assert (await JWTOrOpaqueVerifier(jwt=Tokens(), opaque=Tokens()).health()).ok
    down = JWTAccessTokenVerifier(issuer="http://localhost:9", audience="x", jwks_timeout=0.1)
    health = await JWTOrOpaqueVerifier(jwt=down, opaque=Remote()).health()
    assert not health.ok
    assert "http://localhost:9" in str(health.error)
    await down.aclose()


async def test_a_verifier_without_open_and_close_is_accepted() -> None:
    both = JWTOrOpaqueVerifier(jwt=Tokens(), opaque=Tokens())
    await both.open()
    await both.aclose()
    assert both.clock_skew == 15
    assert both.is_remote("a") is False


@pytest.mark.parametrize("wrong", [{"jwt": None}, {"jwt": Remote}, {"opaque": None}, {"opaque": Remote}])
def test_a_value_that_is_no_verifier_is_refused(wrong: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"jwt": jwts(), "opaque": Remote()} | wrong
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} takes an AccessTokenVerifier"):
        JWTOrOpaqueVerifier(**parts)


@pytest.mark.parametrize("swapped", [jwts(), MultiIssuerVerifier([jwts()])])
def test_a_verifier_that_knows_jwts_only_is_not_taken_for_opaque_tokens(swapped: Any) -> None:
    takes = r"opaque takes a verifier of opaque tokens, such as IntrospectionVerifier\(…\), not <"
    with pytest.raises(ConfigurationError, match=takes):
        JWTOrOpaqueVerifier(jwt=Remote(), opaque=swapped)


class Decrypting(JWTAccessTokenVerifier):
    """Takes a JWE in compact form, which has five segments."""

    async def verify(self, token: str) -> AccessToken:
        return await super().verify(".".join(token.split(".")[2:]))


async def test_a_verifier_that_decrypts_jwts_is_taken_for_opaque_tokens() -> None:
    decrypting = Decrypting(issuer=ISSUER.issuer, audience=str(ISSUER.audience), jwks=ISSUER.jwks())
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=decrypting)
    assert (await both.verify(f"jwe.key.{ISSUER.token(sub='ann')}")).subject == "ann"


class OfTheSameIssuer(Remote):
    issuers = (ISSUER.issuer,)


async def test_user_1_of_one_issuer_is_not_user_1_of_another() -> None:
    other = TestIssuer("https://other.example.test")
    opaque = Remote()
    jwt = JWTAccessTokenVerifier(issuer=other.issuer, audience=str(other.audience), jwks=other.jwks())
    both = JWTOrOpaqueVerifier(jwt=jwt, opaque=opaque)
    by_jwt = await both.verify(other.token(sub="user123"))
    by_opaque = await both.verify(opaque.issue())
    assert by_jwt.subject == by_opaque.subject == "user123"
    assert by_jwt.identity == "https://other.example.test user123"
    assert by_opaque.identity == f"{by_opaque.issuer} user123"
    several = JWTOrOpaqueVerifier(jwt=MultiIssuerVerifier([jwt, jwts()]), opaque=opaque)
    assert (await several.verify(opaque.issue())).identity == by_opaque.identity


async def test_for_one_issuer_the_subject_alone_is_the_identity() -> None:
    opaque = OfTheSameIssuer()
    both = JWTOrOpaqueVerifier(jwt=jwts(), opaque=opaque)
    assert (await both.verify(ISSUER.token(sub="ann"))).identity == "ann"
    assert (await both.verify(opaque.issue())).identity == "user123"


def test_audiences_are_those_that_both_verifiers_accept() -> None:
    jwt, opaque = jwts(), Remote()
    assert JWTOrOpaqueVerifier(jwt=jwt, opaque=opaque).audiences == frozenset()
    opaque.audiences = frozenset({str(ISSUER.audience), "https://b.test"})  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    assert JWTOrOpaqueVerifier(jwt=jwt, opaque=opaque).audiences == jwt.audiences
