"""The contract of verifiers: a right one passes it, and each wrong one fails where it is wrong."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from dpop_middleware import AccessToken, JWTAccessTokenVerifier
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.testing import TestIssuer, verifier_contract
from dpop_middleware.testing.verifier_contract import AccessTokenVerifierContract
from tests.support.contracts import contract_of, noticed_by, recipe_passes

ISSUERS = "test_the_verifier_names_its_issuers"
GOOD = "test_a_good_token_is_an_access_token"
READ_ONLY = "test_the_claims_are_read_only"
TWICE = "test_a_token_can_be_verified_twice"
GARBAGE = "test_garbage_is_no_token"
ALTERED = "test_an_altered_token_is_no_token"

TOKEN = "a-good.token.of-ours"
GRANTED = AccessToken(
    claims=MappingProxyType({"sub": "ann"}),
    issuer="https://auth.example.test",
    subject="ann",
    client_id="app",
    scopes=frozenset({"notes:read"}),
    expires_at=1_800_000_000.0,
    jkt=DPoPKey.generate().jkt,
)


class Right:
    """A verifier that knows one token."""

    issuers: Any = ("https://auth.example.test",)

    async def verify(self, token: str) -> AccessToken:
        if not self.knows(token):
            raise InvalidToken("the access token is unknown")
        return self.granted()

    def knows(self, token: str) -> bool:
        return token == TOKEN

    def granted(self) -> AccessToken:
        return GRANTED


class Unreachable(Right):
    """Can't tell of a token that it doesn't know."""

    async def verify(self, token: str) -> AccessToken:
        if not self.knows(token):
            raise Unavailable("the issuer can't be reached")
        return self.granted()


class OfAClient(Right):
    """The token is a client's own, unbound, and never expires but by the server's word."""

    def granted(self) -> AccessToken:
        return replace(GRANTED, subject=None, jkt=None, expires_at=math.inf)


class AcceptsAnything(Right):
    """Lets everybody in."""

    def knows(self, token: str) -> bool:
        return True


class LooksAtTheShapeOnly(Right):
    """Takes anything of the right shape."""

    def knows(self, token: str) -> bool:
        return token.count(".") == 2


class LooksAtTheBeginningOnly(Right):
    """Leaves out the signature, say."""

    def knows(self, token: str) -> bool:
        return token.startswith(TOKEN[:5])


class LooksAtTheEndOnly(Right):
    """Leaves out what is signed."""

    def knows(self, token: str) -> bool:
        return token.endswith(TOKEN[-5:])


class AcceptsTheEmptyToken(Right):
    """Takes no token for a good one."""

    def knows(self, token: str) -> bool:
        return token in ("", TOKEN)


class RefusesEverything(Right):
    """Lets nobody in."""

    def knows(self, token: str) -> bool:
        return False


class AnswersNone(Right):
    """Says None of a token that isn't good, and leaves the rest to the caller."""

    async def verify(self, token: str) -> AccessToken:
        return GRANTED if self.knows(token) else None  # type: ignore[return-value] # pyright: ignore[reportReturnType]


class RaisesItsOwn(Right):
    """Has errors of its own."""

    async def verify(self, token: str) -> AccessToken:
        return {TOKEN: GRANTED}[token]


class StumblesOverOddCharacters(Right):
    """Takes each token for ASCII."""

    def knows(self, token: str) -> bool:
        return token.encode("ascii") == TOKEN.encode()


class VerifiesOnce(Right):
    """Takes a token for a thing to be used once."""

    def __init__(self) -> None:
        self.used = False

    def knows(self, token: str) -> bool:
        used, self.used = self.used, self.used or token == TOKEN
        return token == TOKEN and not used


class MixesUpSubjects(Right):
    """Says another subject each time."""

    def __init__(self) -> None:
        self.number = 0

    def granted(self) -> AccessToken:
        self.number += 1
        return replace(GRANTED, subject=f"subject {self.number}")


class NamesNoIssuer(Right):
    """Accepts tokens, and nobody's."""

    issuers = ()


class ListsItsIssuers(Right):
    """Has issuers that anybody can change."""

    issuers = ["https://auth.example.test"]  # noqa: RUF012


class NamesOneText(Right):
    """Forgot a comma."""

    issuers = "https://auth.example.test"


def granting(name: str, **changes: Any) -> type[Right]:
    """A verifier whose tokens say something else."""
    granted = replace(GRANTED, **changes)
    return type(name, (Right,), {"granted": lambda _: granted})


EVERY = contract_of(AccessTokenVerifierContract)
WRONG: list[tuple[type[Right], set[str]]] = [
    (AcceptsAnything, {GARBAGE, ALTERED}),
    (LooksAtTheShapeOnly, {GARBAGE, ALTERED}),
    (LooksAtTheBeginningOnly, {ALTERED}),
    (LooksAtTheEndOnly, {ALTERED}),
    (AcceptsTheEmptyToken, {GARBAGE}),
    (RefusesEverything, {GOOD, READ_ONLY, TWICE}),
    (AnswersNone, {GARBAGE, ALTERED}),
    (RaisesItsOwn, {GARBAGE, ALTERED}),
    (StumblesOverOddCharacters, {GARBAGE}),
    (VerifiesOnce, {TWICE}),
    (MixesUpSubjects, {TWICE}),
    (NamesNoIssuer, {ISSUERS, GOOD}),
    (ListsItsIssuers, {ISSUERS}),
    (NamesOneText, {ISSUERS}),
    (granting("OfAnotherIssuer", issuer="https://another.example.test"), {GOOD}),
    (granting("OfNobody", subject=None, client_id=""), {GOOD}),
    (granting("OfANumber", subject=7), {GOOD}),
    (granting("OfNoClient", client_id=None), {GOOD}),
    (granting("WithAListOfScopes", scopes=["notes:read"]), {GOOD}),
    (granting("WithoutAnEnd", expires_at=math.nan), {GOOD}),
    (granting("BeforeAllTime", expires_at=-math.inf), {GOOD}),
    (granting("WithAShortThumbprint", jkt="thumb"), {GOOD}),
    (granting("WithClaimsToBeChanged", claims={"sub": "ann"}), {READ_ONLY}),
    (granting("WithoutClaims", claims=None), {READ_ONLY}),
]


def fixtures(verifier: Callable[[], object], token: str = TOKEN) -> Callable[[], Mapping[str, object]]:
    return lambda: {"verifier": verifier(), "token": token}


@pytest.mark.parametrize("verifier", [Right, Unreachable, OfAClient])
async def test_a_right_verifier_passes(verifier: type[Right]) -> None:
    assert await noticed_by(AccessTokenVerifierContract, fixtures(verifier)) == set()


@pytest.mark.parametrize(("verifier", "noticing"), WRONG, ids=[verifier.__name__ for verifier, _ in WRONG])
async def test_a_wrong_verifier_fails_where_it_is_wrong(verifier: type[Right], noticing: set[str]) -> None:
    assert await noticed_by(AccessTokenVerifierContract, fixtures(verifier)) == noticing


async def test_a_token_that_is_good_no_more_is_noticed() -> None:
    issuer = TestIssuer()

    def verifier() -> JWTAccessTokenVerifier:
        return JWTAccessTokenVerifier(issuer=issuer.issuer, audience=str(issuer.audience), jwks=issuer.jwks())

    good, old = issuer.token(), issuer.token(expires_in=-1000)
    assert await noticed_by(AccessTokenVerifierContract, fixtures(verifier, good)) == set()
    assert await noticed_by(AccessTokenVerifierContract, fixtures(verifier, old)) == {GOOD, READ_ONLY, TWICE}


def test_each_test_of_the_contract_notices_something() -> None:
    assert set[str]().union(*(noticing for _, noticing in WRONG)) == EVERY
    assert {ISSUERS, GOOD, READ_ONLY, TWICE, GARBAGE, ALTERED} == EVERY


IMPORTS = """
import pytest
from types import MappingProxyType
from dpop_middleware import AccessToken, AccessTokenVerifier
from dpop_middleware.errors import InvalidToken

class MyVerifier:
    issuers = ("https://auth.example.test",)

    async def verify(self, token):
        if {refuses}:
            raise InvalidToken("unknown")
        return AccessToken(claims=MappingProxyType({{}}), issuer=self.issuers[0], subject="ann",
                           client_id="app", scopes=frozenset(), expires_at=2e9, jkt=None)
"""


@pytest.mark.parametrize(
    ("refuses", "passes"),
    [("token != 'a token that is valid now'", True), ("not token", False)],
    ids=["right", "accepts_anything"],
)
def test_the_recipe_of_the_contract_runs_as_it_stands(tmp_path: Path, refuses: str, passes: bool) -> None:
    passed, said = recipe_passes(verifier_contract, tmp_path, imports=IMPORTS.format(refuses=refuses))
    assert passed is passes, said
    assert passes or f"TestMyVerifier::{ALTERED}" in said
