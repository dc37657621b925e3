"""Several issuers: each by its own verifier, chosen by the `iss` at the top of the payload."""

import asyncio
import contextlib
from typing import Any

import pytest

from dpop_middleware import (
    AccessToken,
    AccessTokenVerifier,
    JWTAccessTokenVerifier,
    JWTOrOpaqueVerifier,
    profiles,
)
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidToken
from dpop_middleware.events import hint_for
from dpop_middleware.testing import ABSENT, TestIssuer
from dpop_middleware.testing.verifier_contract import AccessTokenVerifierContract
from dpop_middleware.tokens.several_verifiers import MultiIssuerVerifier
from tests.support.issuer_server import IssuerServer

API = "https://api.example.com"
A = TestIssuer("https://a.example.com", audience=API)
B = TestIssuer("https://b.example.com", audience="b-calls-it-so", profile=profiles.OKTA)
URL_OF_A, URL_OF_B = "https://a.example.com", "https://b.example.com/realms/main"


def of_a(**changes: Any) -> JWTAccessTokenVerifier:
    return profiles.RFC9068.verifier(**{"issuer": A.issuer, "audience": API, "jwks": A.jwks()} | changes)


def of_b(**changes: Any) -> JWTAccessTokenVerifier:
    return B.profile.verifier(**{"issuer": B.issuer, "audience": B.audience, "jwks": B.jwks()} | changes)


class Own:
    """A verifier of the user's own."""

    def __init__(self, issuer: str = "https://own.example.com", **changes: Any) -> None:
        self.issuers = (issuer,)
        self.said: dict[str, Any] = {
            "claims": {}, "issuer": issuer, "subject": "1", "client_id": "app", "scopes": frozenset(),
            "expires_at": 1e10, "jkt": None, **changes,
        }  # fmt: skip
        self.closed = self.opened = False

    async def verify(self, token: str) -> AccessToken:
        return AccessToken(**self.said)

    async def open(self) -> None:
        self.opened = True

    async def aclose(self) -> None:
        self.closed = True


class TestMultiIssuerVerifier(AccessTokenVerifierContract):
    @pytest.fixture
    def verifier(self) -> AccessTokenVerifier:
        return MultiIssuerVerifier([of_a(), of_b()])

    @pytest.fixture(params=[A, B], ids=["a", "b"])
    def token(self, request: pytest.FixtureRequest) -> str:
        made: str = request.param.token(scopes=["notes:read"])
        return made


async def test_each_issuer_has_its_own_rules() -> None:
    verifier = MultiIssuerVerifier([of_a(), of_b()])
    assert verifier.issuers == (A.issuer, B.issuer)
    for issuer in (A, B):
        token = await verifier.verify(issuer.token(sub="1", scopes=["notes:read"]))
        assert (token.issuer, token.scopes) == (issuer.issuer, frozenset({"notes:read"}))
        assert token.identity == f"{issuer.issuer} 1"


async def test_users_of_one_name_at_two_issuers_are_two_users() -> None:
    verifier = MultiIssuerVerifier([of_a(), of_b(), Own()])
    tokens = [
        A.token(sub="1"), B.token(sub="1"), TestIssuer("https://own.example.com").token(),
        A.token(sub="client:1"), A.token(client_id="1", sub="subject:1"),
    ]  # fmt: skip
    identities = [(await verifier.verify(token)).identity for token in tokens]
    assert len(set(identities)) == len(identities)
    assert identities[2:4] == ["https://own.example.com 1", f"{A.issuer} subject:client:1"]


async def test_a_client_without_a_subject_is_named_with_its_issuer() -> None:
    required = ("iss", "exp", "aud", "client_id")
    verifier = MultiIssuerVerifier([of_a(required_claims=required)])
    token = await verifier.verify(A.token(sub=None, client_id="app"))
    assert token.identity == f"{A.issuer} client:app"


async def test_the_given_verifier_is_unchanged() -> None:
    alone = of_a()
    token = A.token(sub="1")
    assert (await alone.verify(token)).identity == "1"
    multi = MultiIssuerVerifier([alone])
    assert (await multi.verify(token)).identity == f"{A.issuer} 1"
    assert (await alone.verify(token)).identity == "1"
    # A token that is verified again is the same object: applications may hold on to it.
    assert await multi.verify(token) is await multi.verify(token)


async def test_the_keys_are_fetched_once_for_both() -> None:
    with IssuerServer() as server:
        server.publish(A.jwks())
        alone = of_a(jwks=f"{server.origin}/jwks")
        sibling = alone.among_several()
        token = A.token()
        assert (await alone.verify(token)).claims == (await sibling.verify(token)).claims
        assert len(server.asked) == 1
        await sibling.aclose()


@pytest.mark.parametrize(
    "token", [TestIssuer("https://c.example.com").token(), A.token(iss="https://a.example.com/")]
)
async def test_the_token_of_another_issuer_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        await MultiIssuerVerifier([of_a(), of_b()]).verify(token)
    assert caught.value.check is Check.TOKEN_ISS
    assert caught.value.expected == (A.issuer, B.issuer)


@pytest.mark.parametrize("given", [[], [of_a()]])
async def test_the_refusal_of_an_issuer_that_the_resolver_does_not_know_names_the_resolver(
    given: list[JWTAccessTokenVerifier],
) -> None:
    async def nobody(_issuer: str) -> None:
        return None

    with pytest.raises(InvalidToken) as caught:
        await MultiIssuerVerifier(given, resolver=nobody).verify(B.token())
    known = tuple(one.issuer for one in (A,) if given)
    assert caught.value.expected == (*known, "an issuer that the resolver knows")


@pytest.mark.parametrize(
    ("issuer", "hint"),
    [
        ("https://b.example.com/", "only a trailing slash differs: name the issuer as it names itself"),
        ("https://c.example.com", None),
    ],
)
async def test_a_trailing_slash_is_found_among_several_issuers(issuer: str, hint: str | None) -> None:
    with pytest.raises(InvalidToken) as caught:
        await MultiIssuerVerifier([of_a(), of_b()]).verify(A.token(iss=issuer))
    assert hint_for(caught.value) == hint


async def test_a_trailing_slash_is_found_at_the_end_of_a_long_issuer() -> None:
    long = f"https://a.example.com/{'x' * 400}"
    server, slash = MultiIssuerVerifier([Own(issuer=long)]), TestIssuer(f"{long}/")
    with pytest.raises(InvalidToken) as caught:
        await server.verify(slash.token())
    assert hint_for(caught.value) == "only a trailing slash differs: name the issuer as it names itself"


async def test_a_token_without_an_issuer_is_refused() -> None:
    with pytest.raises(InvalidToken) as caught:
        await MultiIssuerVerifier([of_a()]).verify(A.token(iss=ABSENT))
    assert caught.value.check is Check.TOKEN_CLAIMS


async def test_a_token_that_its_verifier_gives_to_another_issuer_is_refused() -> None:
    own = Own(issuer=A.issuer)
    own.said["issuer"] = B.issuer
    with pytest.raises(InvalidToken) as caught:
        await MultiIssuerVerifier([own]).verify(A.token())
    assert (caught.value.check, caught.value.expected) == (Check.TOKEN_ISS, A.issuer)


async def test_the_resolver_is_asked_about_others_only() -> None:
    asked: list[str] = []

    async def resolver(issuer: str) -> AccessTokenVerifier | None:
        asked.append(issuer)
        return of_b() if issuer == B.issuer else None

    verifier = MultiIssuerVerifier([of_a()], resolver=resolver)
    assert verifier.issuers == (A.issuer,)
    for token in (A.token(), B.token(), B.token()):
        assert (await verifier.verify(token)).names_issuer
    assert asked == [B.issuer]
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(TestIssuer("https://c.example.com").token())
    assert caught.value.check is Check.TOKEN_ISS
    with pytest.raises(InvalidToken):
        await verifier.verify(TestIssuer(B.issuer, audience=str(B.audience), profile=B.profile).token())


async def test_a_resolver_alone_is_enough() -> None:
    class Resolver:
        async def __call__(self, issuer: str) -> AccessTokenVerifier | None:
            return of_a() if issuer == A.issuer else None

    verifier = MultiIssuerVerifier(resolver=Resolver())
    assert (await verifier.verify(A.token(sub="1"))).identity == f"{A.issuer} 1"
    assert (await verifier.health()).ok
    assert (verifier.issuers, verifier.expiry_is_final, verifier.remote) == ((), False, True)
    assert verifier.audiences == frozenset()


@pytest.mark.parametrize(
    ("verifiers", "skew", "final"),
    [
        ([of_a(), of_b()], 15, True),
        ([of_a(clock_skew=5), of_b(clock_skew=60)], 5, True),
        ([of_a(clock_skew=20), Own()], 15, False),
    ],
)
def test_the_verifier_promises_what_all_verifiers_promise(verifiers: Any, skew: float, final: bool) -> None:
    verifier = MultiIssuerVerifier(verifiers)
    assert (verifier.clock_skew, verifier.expiry_is_final) == (skew, final)


def test_a_subclass_must_make_its_own_promise() -> None:
    class Extending(MultiIssuerVerifier):
        async def verify(self, token: str) -> AccessToken:
            raise NotImplementedError

    assert not Extending([of_a()]).expiry_is_final


def test_the_clock_skew_of_each_is_checked() -> None:
    own: Any = Own()
    own.clock_skew = "15"
    with pytest.raises(ConfigurationError, match="the verifier's clock_skew takes"):
        MultiIssuerVerifier([of_a(), own])


def test_one_remote_verifier_makes_the_whole_remote() -> None:
    own: Any = Own()
    own.remote = True
    assert MultiIssuerVerifier([of_a(), own]).remote
    local = MultiIssuerVerifier([of_a(), Own()])
    assert (local.remote, local.is_remote(A.token())) == (False, False)


def test_a_remote_verifier_says_itself_which_tokens_it_asks_about() -> None:
    own: Any = Own(B.issuer)
    own.remote = True
    known = B.token()
    own.is_remote = lambda token: token != known
    either = MultiIssuerVerifier([of_a(), own])
    assert [either.is_remote(token) for token in (A.token(), B.token(), known)] == [False, True, False]


@pytest.mark.parametrize("said", [True, None, "no"])
def test_another_server_is_asked_about_a_token_unless_its_verifier_says_false(said: object) -> None:
    own: Any = Own(B.issuer)
    own.is_remote = lambda _: said
    several, both = MultiIssuerVerifier([of_a(), own]), JWTOrOpaqueVerifier(jwt=own, opaque=Own())
    assert [one.is_remote(B.token()) for one in (several, both)] == [True, True]
    said = False
    assert [one.is_remote(B.token()) for one in (several, both)] == [False, False]


def test_a_proof_is_judged_before_the_resolver_is_asked() -> None:
    async def nobody(_issuer: str) -> None:
        return None

    tenants = MultiIssuerVerifier([of_a()], resolver=nobody)
    assert tenants.remote
    assert [tenants.is_remote(token) for token in (A.token(), B.token(), "no.jwt.x")] == [False, True, False]


async def test_a_token_of_an_issuer_that_is_known_or_unknown_is_judged_before_its_proof() -> None:
    own: Any = Own()
    own.remote = True

    async def resolve(issuer: str) -> AccessTokenVerifier | None:
        return {B.issuer: of_b(), own.issuers[0]: own}.get(issuer)

    tenants = MultiIssuerVerifier([of_a()], resolver=resolve, resolved_lifetime=3600, unknown_lifetime=3600)
    made_up = TestIssuer("https://made-up.example.com").token()
    tokens = (A.token(), B.token(), TestIssuer(own.issuers[0]).token(), made_up)
    assert [tenants.is_remote(token) for token in tokens] == [False, True, True, True]
    for token in tokens[1:]:
        with contextlib.suppress(InvalidToken):
            await tenants.verify(token)
    assert [tenants.is_remote(token) for token in tokens] == [False, False, True, False]


def test_an_issuer_that_nobody_is_asked_about_is_refused_before_the_proof_is_judged() -> None:
    own: Any = Own(B.issuer)
    own.remote = True
    assert not MultiIssuerVerifier([own]).is_remote(A.token())


async def test_all_are_opened_and_closed() -> None:
    class Bad(Own):
        async def aclose(self) -> None:
            raise OSError("the socket is gone")

    own = Own()
    verifier = MultiIssuerVerifier([own, Bad("https://bad.example.com"), of_a()])
    await verifier.open()
    assert own.opened
    with pytest.raises(OSError, match="the socket is gone"):
        await verifier.aclose()
    assert own.closed


async def test_the_server_is_ready_while_one_issuer_is() -> None:
    class Bad(Own):
        async def health(self) -> object:
            raise OSError("away")

    class Slow(Own):
        async def health(self) -> object:
            await asyncio.Event().wait()
            return None

    health = await MultiIssuerVerifier([of_a(), Bad()]).health()
    assert (health.ok, health.error) == (True, "no token of https://own.example.com can be verified")
    assert [(issuer, part.ok) for issuer, part in health.issuers] == [
        (A.issuer, True), ("https://own.example.com", False)
    ]  # fmt: skip
    health = await MultiIssuerVerifier([of_a(), of_b()]).health()
    assert (health.ok, health.error) == (True, None)
    health = await MultiIssuerVerifier([Bad(), Slow("https://slow.example.com")]).health()
    assert not health.ok


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "takes verifiers or a resolver"),
        ((), "takes verifiers or a resolver"),
        ((None,), "verifiers takes a sequence of AccessTokenVerifiers, not None"),
        ((of_a(),), "verifiers takes a sequence of AccessTokenVerifiers, not <dpop_middleware.tokens.jwt."),
        ((["https://a.example.com"],), "verifiers takes a sequence of AccessTokenVerifiers"),
        (([JWTAccessTokenVerifier],), "verifiers takes a sequence of AccessTokenVerifiers"),
        (([of_a(), of_a()],), "one for each issuer, not two for 'https://a.example.com'"),
        (([Own(""), of_a()],), "the verifier's issuers takes"),
    ],
)
def test_wrong_verifiers_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultiIssuerVerifier(*arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("resolver", lambda _: None),
        ("resolver", "tenants"),
        ("max_resolved", 0),
        ("resolved_lifetime", 0),
        ("unknown_lifetime", -1),
        ("resolver_timeout", 60),
    ],
)
def test_wrong_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} takes"):
        MultiIssuerVerifier([of_a()], **{option: value})


def test_audiences_are_those_that_every_verifier_accepts() -> None:
    shared = MultiIssuerVerifier(
        [of_a(audience=[API, "https://b.test"]), of_b(audience=[API, "https://c.test"])]
    )
    assert shared.audiences == {API}
    assert MultiIssuerVerifier([of_a(), Own()]).audiences == frozenset()
