"""Hints for values in a wrong place, and for the profile that would fit."""

import json
from typing import Any

import pytest

from dpop_middleware import JWTAccessTokenVerifier, MemoryReplayStore, ResourceRequest, ResourceServer, errors
from dpop_middleware._judge.misplaced import fitting_profile
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, InvalidToken
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.api import NOW, RESOURCE, Api, request
from tests.support.issuer_shapes import PROFILES, TOKENS, answered, server, signed

KEY = DPoPKey.generate()
ISSUER = TestIssuer(audience=RESOURCE, clock=lambda: NOW)
TOKEN = ISSUER.token(jkt=KEY.jkt)
UNBOUND = ISSUER.token()
PROOF = KEY.proof("GET", f"{RESOURCE}/notes", access_token=TOKEN, now=NOW)
# The first profile that accepts the token; where an issuer follows RFC 9068, that is the default.
RIGHT = {
    "Keycloak": "KEYCLOAK",
    "Keycloak, a client for itself": "RFC9068",
    "Okta": "OKTA",
    "Auth0": "AUTH0",
    "Duende": "RFC9068",
    "HelseID, a client for itself": "DUENDE",
    "oidc-provider": "RFC9068",
    "Better Auth": "RFC9068",
}


async def event_of(asked: ResourceRequest, **options: Any) -> AuthenticationEvent:
    """Return the event of a refused request."""
    events: list[AuthenticationEvent] = []
    server = ResourceServer(
        issuer=ISSUER.issuer,
        resource=RESOURCE,
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        clock=lambda: NOW,
        on_event=events.append,
        **options,
    )
    with pytest.raises(DPoPError) as caught:
        await server.authenticate(asked)
    told = json.dumps([caught.value.description, caught.value.code])
    hint = events[0].hint
    assert hint is None or hint not in told
    for secret in (TOKEN, UNBOUND, PROOF):
        assert secret[:16] not in str(hint)
    return events[0]


def asking(authorization: str | None, *dpop: str) -> ResourceRequest:
    fields = () if authorization is None else (authorization,)
    return ResourceRequest(
        method="GET", raw_path="/notes", hosts=(), authorization=fields, dpop=dpop, root_path=""
    )


IS_BOUND = "the token is bound to a key: send it with the scheme DPoP, not Bearer"

IS_PROOF = "this is a proof: it belongs in the DPoP field, and Authorization takes the access token"

IS_TOKEN = "this is an access token: it belongs in Authorization, and the DPoP field takes a proof"

TWICE = "the scheme is there twice: send Authorization: DPoP <token>"

ALONE = "the DPoP field takes the proof alone: no scheme before it"

NO_SCHEME = "a token without a scheme? send it as Authorization: DPoP <token>"

NO_TOKEN = "did the client have no token yet, and send that in its place?"

REFRESH = "a refresh token? it is for the token endpoint only: send the access token"

ID_TOKEN = "an ID token? it is for the client only: send the access token"


@pytest.mark.parametrize(
    ("authorization", "dpop", "hint"),
    [
        (f"Bearer {TOKEN}", [PROOF], IS_BOUND),
        (f"bearer {TOKEN}", [], IS_BOUND),
        (f"Bearer {TOKEN}", ["garbage"], IS_BOUND),
        (f"Bearer {UNBOUND}", [], None),
        (
            f"Bearer {UNBOUND}",
            [PROOF],
            "a proof came along, so is the token bound? send it with the scheme DPoP",
        ),
        ("Bearer opaque", [PROOF], "a proof came along, so is the token bound? send it with the scheme DPoP"),
        ("Bearer opaque", [], None),
        (f"DPoP {PROOF}", [PROOF], IS_PROOF),
        (f"DPoP {PROOF}", [], IS_PROOF),
        (f"Bearer {PROOF}", [], IS_PROOF),
        (f"Bearer {PROOF}", [TOKEN], IS_PROOF),
        (f"DPoP {TOKEN}", [], "the client sent no DPoP field, or a proxy dropped it?"),
        (f"DPoP {TOKEN}", [TOKEN], IS_TOKEN),
        (f"DPoP {TOKEN}", [UNBOUND], IS_TOKEN),
        (f"DPoP {TOKEN}", [f"DPoP {PROOF}"], ALONE),
        (f"DPoP {TOKEN}", [f"Bearer {TOKEN}"], ALONE),
        (f"DPoP Bearer {TOKEN}", [PROOF], TWICE),
        (f"Bearer DPoP {TOKEN}", [PROOF], TWICE),
        (f"DPoP dpop {TOKEN}", [PROOF], TWICE),
        (f'DPoP "{TOKEN}"', [PROOF], "the token is in quotes: send it without them"),
        (f"DPoP '{TOKEN}'", [PROOF], "the token is in quotes: send it without them"),
        ("DPoP [object Object]", [PROOF], None),
        ("DPoP", [PROOF], None),
        ("DPoP ", [PROOF], None),
        ("DPoP undefined", [PROOF], NO_TOKEN),
        ("Bearer null", [], NO_TOKEN),
        (TOKEN, [PROOF], NO_SCHEME),
        ("Basic dXNlcjpwYXNz", [], None),
        (None, [PROOF], "a proof without its token: did a proxy drop Authorization?"),
        (None, [], None),
        ("Bearer a.b.c", [], None),
        ("DPoP a.b.c", [PROOF], "an opaque or an encrypted token, or one that was cut short?"),
        ("DPoP ...", ["..."], "an opaque or an encrypted token, or one that was cut short?"),
        (f"DPoP {TOKEN}", ["a.b.c"], "is it whole"),
    ],
)
async def test_a_field_that_holds_something_else(
    authorization: str | None, dpop: list[str], hint: str | None
) -> None:
    found = (await event_of(asking(authorization, *dpop))).hint
    assert (found is None) if hint is None else (found is not None and hint in found)


@pytest.mark.parametrize("text", ["undefined", "null", "None", "NaN", "false", "true"])
async def test_a_placeholder_for_a_missing_token_has_a_hint(text: str) -> None:
    found = (await event_of(asking(f"DPoP {text}", PROOF))).hint
    assert found is not None
    assert NO_TOKEN in found


async def test_an_opaque_token_in_the_dpop_field_has_a_hint() -> None:
    api = Api()
    with pytest.raises(DPoPError):
        await api.server.authenticate(request(api.token, api.token))
    assert api.events[-1].hint == IS_TOKEN


async def test_a_bound_token_as_bearer_where_bearer_is_accepted() -> None:
    api = Api(accept_bearer=True)
    with pytest.raises(DPoPError):
        await api.server.authenticate(request(api.token, scheme="Bearer"))
    assert api.events[-1].hint == IS_BOUND, "though the token is opaque: it was verified"


async def test_an_unbound_token_on_a_route_that_wants_dpop() -> None:
    api = Api(accept_bearer=True)
    api.tokens.issue(None, name="unbound")
    asked = request("unbound", scheme="Bearer")
    with pytest.raises(DPoPError):
        await api.server.with_policy(accept_bearer=False).authenticate(asked)
    assert api.events[-1].hint is None


async def test_a_verifier_of_ones_own_that_was_given_a_proof() -> None:
    api = Api()
    with pytest.raises(DPoPError):
        await api.server.authenticate(request(PROOF, api.proof()))
    assert api.events[-1].hint == IS_PROOF


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"header": {"typ": "JWT"}, "typ": "Refresh", "aud": ISSUER.issuer}, REFRESH),
        ({"header": {"typ": "JWT", "alg": "HS512"}, "key": b"k" * 64, "typ": "Offline"}, REFRESH),
        ({"header": {"alg": "HS256"}, "key": b"k" * 32}, "a token that only its issuer can verify"),
        ({"header": {"typ": "JWT"}, "at_hash": "x", "aud": "my_client"}, ID_TOKEN),
        ({"header": {"typ": "JWT"}, "nonce": "x", "aud": "my_client"}, ID_TOKEN),
        ({"nonce": "x", "aud": "my_client"}, ID_TOKEN),
        ({"header": {"typ": "JWT"}}, "with profile=profiles.KEYCLOAK"),
        ({"nonce": "x", "expires_in": -300}, "it expired 300 s ago"),
    ],
)
async def test_another_token_than_the_access_token_has_a_hint(changes: dict[str, Any], hint: str) -> None:
    token = ISSUER.token(**changes)
    assert hint in str((await event_of(asking(f"DPoP {token}", PROOF))).hint)


async def test_a_token_without_subject_and_client_is_refused() -> None:
    events: list[AuthenticationEvent] = []
    server = ResourceServer(
        verifier=JWTAccessTokenVerifier(
            issuer=ISSUER.issuer,
            audience=RESOURCE,
            jwks=ISSUER.jwks(),
            clock=lambda: NOW,
            required_claims=("iss", "exp", "aud"),
        ),
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
        clock=lambda: NOW,
        on_event=events.append,
    )
    nobody: dict[str, Any] = {"client_id": ABSENT, "cid": "x"}
    token = ISSUER.token(sub=None, **nobody)
    with pytest.raises(DPoPError, match="neither a subject nor a client"):
        await server.authenticate(asking(f"DPoP {token}", PROOF))
    assert "name it in client_id_claims" in str(events[0].hint)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "....", "é.é.é", "\ud800.\ud800.x", "A.A.A", "=.=.=", "a" * 100_000, "." * 100_000, "\0"],
)
async def test_no_value_makes_a_hint_fail_or_cost_much(text: str) -> None:
    for authorization in (f"DPoP {text}", f"Bearer {text}", f" {text}", f"DPoP {TOKEN}"):
        assert (await event_of(asking(authorization, text))).outcome == "refused"


async def test_only_the_beginning_is_looked_at() -> None:
    def jwt(header: dict[str, str], payload: dict[str, str]) -> str:
        return ".".join(base64url.encode(json.dumps(part).encode()) for part in (header, payload)) + ".x"

    far = jwt({"typ": "at+jwt"}, {"a": "x" * 9000, "jkt": "x"})
    near = jwt({"typ": "at+jwt"}, {"jkt": "x", "a": "x" * 9000})
    assert (await event_of(asking(f"Bearer {near}"))).hint == IS_BOUND
    assert (await event_of(asking(f"Bearer {far}"))).hint is None
    late = jwt({"a": "x" * 2000, "typ": "dpop+jwt"}, {})
    assert (await event_of(asking(f"Bearer {late}"))).hint is None


@pytest.mark.parametrize("name", TOKENS)
async def test_the_refusal_names_the_profile_that_accepts_the_token(name: str) -> None:
    _, issuer, header, claims = TOKENS[name]
    token = signed(issuer, header, claims)
    refused: dict[str, object] = {}
    for set_profile in (None, *PROFILES.values()):
        events: list[AuthenticationEvent] = []
        api = server(issuer, profile=set_profile, on_event=events.append)
        try:
            await answered(api, token)
        except errors.InvalidToken:
            refused[str(set_profile)] = events[0].hint
    hint = f"a token of this shape is accepted with profile=profiles.{RIGHT[name]}"
    assert set(refused.values()) == {hint}
    await answered(server(issuer, profile=PROFILES[RIGHT[name]]), token)


@pytest.mark.parametrize(
    ("error", "header", "payload"),
    [
        (InvalidToken("", check=Check.TOKEN_AUD, expected="a"), b'{"typ":"jwt"}', b'"iss"'),
        (InvalidToken("", check=Check.TOKEN_CLAIMS, expected="exp", actual="soon"), b'{"typ":"jwt"}', b""),
        (InvalidToken("", check=Check.TOKEN_CLAIMS), b'{"typ":"jwt"}', b""),
        (InvalidToken("", check=Check.TOKEN_TYP), b'{"typ":"jwt"}', b'"iss" "exp" "aud" "sub" "iat"'),
        (InvalidToken("", check=Check.TOKEN_TYP), b'{"typ":"\xff"}', b"\xff"),
        (InvalidToken("", check=Check.TOKEN_TYP), b"", b""),
    ],
)
def test_nothing_is_named_where_no_profile_fits(error: InvalidToken, header: bytes, payload: bytes) -> None:
    assert fitting_profile(error, header, payload) is None
