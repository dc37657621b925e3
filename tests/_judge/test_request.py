"""The order of the checks, and the calls of other parts."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from dpop_middleware import Nonce, ResourceRequest, ResourceServer
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import (
    ConfigurationError,
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    Unavailable,
    UseDPoPNonce,
)
from tests.support.api import NOW, RESOURCE, Api, Clock, Store, Tokens, edited, request

HOUR = 3600


async def refused(api: Api, asked: ResourceRequest) -> DPoPError:
    with pytest.raises(DPoPError) as caught:
        await api.server.authenticate(asked)
    return caught.value


async def test_an_honest_request_is_accepted() -> None:
    api = Api()
    verified = await api.server.authenticate(api.request())
    assert verified.access_token is api.tokens.known[api.token]
    assert verified.proof is not None
    assert (verified.proof.jkt, verified.proof.htm, verified.proof.iat) == (api.key.jkt, "GET", NOW)
    assert verified.response_headers == ()
    (entry,) = api.store.entries
    assert (entry.jkt, entry.now, entry.not_before, entry.expires_at) == (
        api.key.jkt,
        NOW,
        NOW - 30,
        NOW + 95,
    )
    assert verified.proof.jti not in entry.key


STRANGER = DPoPKey.generate()

# Each fault comes with all the faults of the checks after it: the first is the one that counts.
FAULTS: list[tuple[Check, Callable[[Api, dict[str, Any]], None]]] = [
    (Check.JTI, lambda api, made: made["used"].append(True)),
    (Check.IAT, lambda api, made: made["claims"].update(iat=NOW - 1000)),
    (Check.SIGNATURE, lambda api, made: made.update(bad_signature=True)),
    (Check.ATH, lambda api, made: made["claims"].update(ath="x")),
    (Check.HTU, lambda api, made: made["claims"].update(htu="https://evil.example/")),
    (Check.HTM, lambda api, made: made["claims"].update(htm="DELETE")),
    (Check.CLAIMS, lambda api, made: made["claims"].update(jti="")),
    (Check.JKT, lambda api, made: made.update(key=STRANGER)),
    (Check.JWK, lambda api, made: made["header"].update(jwk={})),
    (Check.ALG, lambda api, made: made["header"].update(alg="none")),
    (Check.CRIT, lambda api, made: made["header"].update(crit=[])),
    (Check.TYP, lambda api, made: made["header"].update(typ="JWT")),
    (Check.FORMAT, lambda api, made: made.update(suffix=".x.y")),
    (Check.BINDING, lambda api, made: made.update(token="unbound")),
    (Check.TOKEN_FORMAT, lambda api, made: made.update(token="invalid")),
    (Check.ONE_HEADER, lambda api, made: made.update(times=2)),
    (Check.TARGET, lambda api, made: made.update(raw_path="/../notes")),
    (Check.AUTHORIZATION, lambda api, made: made.update(token="to ken")),
]


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1), ids=lambda n: f"{n}-{FAULTS[n - 1][0]}")
async def test_the_first_fault_counts(number: int) -> None:
    api = Api()
    api.tokens.issue(name="unbound")
    api.tokens.known["invalid"] = InvalidToken("no", check=Check.TOKEN_FORMAT)
    made: dict[str, Any] = {"claims": {}, "header": {}, "used": [], "key": api.key, "token": api.token}
    for _, fault in FAULTS[:number]:
        fault(api, made)
    key = made["key"]
    jwk = {"jwk": key.public_jwk} | made["header"]
    proof = edited(key, api.proof(), header=jwk, **made["claims"])
    if made.get("bad_signature"):
        proof = proof[:-8] + "AAAAAAAA"
    asked = request(
        made["token"],
        *[proof + made.get("suffix", "")] * made.get("times", 1),
        raw_path=made.get("raw_path", "/notes"),
    )
    if made["used"] and number == 1:
        await api.server.authenticate(asked)
    written = len(api.store.entries)
    error = await refused(api, asked)
    assert error.check is FAULTS[number - 1][0]
    assert error.scheme == "DPoP"
    if number > 1:
        assert len(api.store.entries) == written, "what fails before writes nothing"


async def test_a_proof_that_failed_is_not_marked_as_used() -> None:
    api = Api()
    proof = api.proof()
    for wrong in (
        api.request(proof, method="POST"),
        api.request(proof, raw_path="/other"),
        api.request(proof[:-8] + "AAAAAAAA"),
        request("unknown", proof),
    ):
        await refused(api, wrong)
    verified = await api.server.authenticate(api.request(proof))
    assert verified.access_token is api.tokens.known[api.token]


async def test_size_and_counts_come_before_the_token_is_looked_at() -> None:
    api = Api()
    for asked in (request(api.token), request(api.token, "x" * 8193), request("x" * 16_385, api.proof())):
        await refused(api, asked)
    assert api.tokens.asked == []


async def test_the_nonce_is_asked_for_after_the_signature() -> None:
    api = Api(nonce="required")
    proof = api.proof()
    forged = api.request(proof[:-8] + "AAAAAAAA")
    assert (await refused(api, forged)).check is Check.SIGNATURE
    assert isinstance(await refused(api, api.request(proof)), UseDPoPNonce)
    assert api.store.entries == []


async def test_bearer_is_refused_unlooked_at_where_dpop_is_required() -> None:
    api = Api()
    error = await refused(api, request("anything", scheme="Bearer"))
    assert isinstance(error, InvalidToken)
    assert (error.check, error.scheme) == (Check.BINDING, "Bearer")
    assert error.description == "a DPoP-bound access token is required here"
    assert api.tokens.asked == []


async def test_an_unbound_token_is_good_as_bearer_where_that_is_accepted() -> None:
    api = Api(accept_bearer=True)
    unbound = api.tokens.issue(name="unbound")
    verified = await api.server.authenticate(request(unbound, scheme="bEARER"))
    assert verified.proof is None
    assert api.events[0].scheme == "Bearer"
    assert api.events[0].jkt is None
    await api.server.authenticate(request(unbound, scheme="Bearer"))
    assert api.store.entries == []


@pytest.mark.parametrize(
    "cnf",
    [
        {"jkt": "x"},
        {},
        None,
        "",
        [],
        0,
        {"x5t#S256": "x"},
        {"jwk": {}},
        {"kid": "x"},
        {"jkt": None},
        {"jkt": ""},
    ],
)
@pytest.mark.parametrize("with_proof", [True, False])
async def test_a_token_with_any_cnf_is_never_good_as_bearer(cnf: object, with_proof: bool) -> None:
    api = Api(accept_bearer=True)
    token = api.tokens.issue(name="odd", cnf=cnf)
    asked = request(token, *[api.proof(token=token)] * with_proof, scheme="Bearer")
    error = await refused(api, asked)
    assert isinstance(error, InvalidToken)
    assert error.check is Check.BINDING


async def test_a_bound_token_is_never_good_as_bearer_even_if_its_claims_do_not_show_it() -> None:
    api = Api(accept_bearer=True)
    token = api.tokens.issue(api.key.jkt, name="opaque")
    object.__setattr__(api.tokens.known[token], "claims", {})
    assert (await refused(api, request(token, scheme="Bearer"))).check is Check.BINDING


async def test_a_token_long_expired_is_refused_under_both_schemes_whatever_its_verifier_says() -> None:
    api = Api(accept_bearer=True)
    for scheme, jkt, proofs in (("Bearer", None, ()), ("DPoP", api.key.jkt, (api.proof(),))):
        api.tokens.issue(jkt, expires_in=-300)
        error = await refused(api, request(api.token, *proofs, scheme=scheme))
        assert isinstance(error, InvalidToken)
        assert (error.check, error.scheme, error.actual) == (Check.TOKEN_TIME, scheme, NOW - 300)
        api.tokens.issue(jkt, expires_in=-299)
        assert await api.server.authenticate(request(api.token, *proofs, scheme=scheme))


@pytest.mark.parametrize("accept_bearer", [True, False])
async def test_an_unbound_token_is_never_good_as_dpop(accept_bearer: bool) -> None:
    api = Api(accept_bearer=accept_bearer)
    token = api.tokens.issue(name="unbound")
    error = await refused(api, request(token, api.proof(token=token)))
    assert isinstance(error, InvalidToken)
    assert (error.check, error.scheme) == (Check.BINDING, "DPoP")


async def test_a_stolen_token_with_another_key_is_refused() -> None:
    api = Api()
    error = await refused(
        api,
        request(
            api.token,
            STRANGER.proof("GET", "https://api.example.test/notes", access_token=api.token, now=NOW),
        ),
    )
    assert isinstance(error, InvalidToken)
    assert (error.check, error.expected, error.actual) == (Check.JKT, api.key.jkt, STRANGER.jkt)


async def test_the_header_of_a_client_that_is_known_is_still_judged() -> None:
    api = Api()
    refused_first = api.proof()
    await refused(api, api.request(refused_first, method="POST"))
    await api.server.authenticate(api.request(refused_first))
    await api.server.authenticate(api.request())
    assert (
        await refused(api, api.request(edited(api.key, api.proof(), header={"typ": "JWT"})))
    ).check is Check.TYP
    strict = api.server.with_policy(algorithms=("EdDSA",))
    with pytest.raises(InvalidDPoPProof) as caught:
        await strict.authenticate(api.request())
    assert caught.value.check is Check.ALG
    rebound = api.tokens.issue(STRANGER.jkt)
    assert rebound == api.token
    assert (await refused(api, api.request())).check is Check.JKT


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", [], False])
async def test_only_true_is_the_first_time(answer: object) -> None:
    api = Api()

    async def add(entry: object) -> Any:
        return answer

    api.store.add = add  # type: ignore[method-assign]
    error = await refused(api, api.request())
    assert isinstance(error, InvalidDPoPProof)
    assert error.check is Check.JTI


@pytest.mark.parametrize(
    "fault",
    # The last one: something that it awaits was cancelled, for another request for instance.
    [ConnectionError("x"), TimeoutError(), KeyError("x"), RecursionError(), asyncio.CancelledError()],
)
async def test_a_store_that_fails_lets_no_request_through(fault: BaseException) -> None:
    api = Api()
    api.store.answer = fault
    error = await refused(api, api.request())
    assert isinstance(error, Unavailable)
    assert (error.check, error.actual, error.scheme) == (Check.JTI, type(fault).__name__, "DPoP")
    assert error.__cause__ is fault
    response = api.server.error_response(error)
    assert response.status == 503
    assert ("retry-after", "1") in response.headers


@pytest.mark.parametrize(
    "fault", [ConnectionError("x"), TimeoutError(), KeyError("x"), asyncio.CancelledError()]
)
@pytest.mark.parametrize("scheme", ["DPoP", "Bearer"])
async def test_a_verifier_that_fails_lets_no_request_through(fault: BaseException, scheme: str) -> None:
    api = Api(accept_bearer=True)
    api.tokens.known[api.token] = fault
    error = await refused(api, request(api.token, api.proof(), scheme=scheme))
    assert isinstance(error, Unavailable)
    assert (error.check, error.actual, error.scheme) == (Check.TOKEN_KEY, type(fault).__name__, scheme)
    assert error.__cause__ is fault


@pytest.mark.parametrize("part", ["store", "verifier"])
async def test_a_request_that_is_cancelled_ends(part: str) -> None:
    api = Api()
    asked = asyncio.Event()

    async def hangs(_: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    owner, name = (api.store, "add") if part == "store" else (api.tokens, "verify")
    setattr(owner, name, hangs)
    task = asyncio.create_task(api.server.authenticate(api.request()))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("mode", ["off", "required", "fallback"])
async def test_a_client_that_can_not_be_judged_gets_the_newest_nonce(mode: str) -> None:
    # A store that lost entries can judge later proofs: a proof is as old as its nonce.
    api = Api(nonce=mode)
    newest, older = (api.server_nonces.issue(NOW - age) for age in (0, 60))
    for newer_proof, nonce, handed in (
        (True, newest, False),
        (True, older, mode != "off"),
        (False, older, False),
    ):
        api.store.answer = Unavailable("lost", retry_after=3, newer_proof=newer_proof)
        error = await refused(api, api.request(api.proof(nonce=nonce)))
        response = api.server.error_response(error)
        assert response.status == 503
        headers = [field for field in response.headers if field[0] in {"dpop-nonce", "retry-after"}]
        assert headers == (
            [("dpop-nonce", newest), ("retry-after", "1")] if handed else [("retry-after", "3")]
        )
        assert ("cache-control", "no-store") in response.headers


async def test_an_error_of_the_store_for_one_client_is_not_shown_to_another() -> None:
    api = Api(nonce="required")
    api.store.answer = shared = Unavailable("lost", retry_after=30, newer_proof=True)
    first = await refused(api, api.request(api.proof(nonce=api.server_nonces.issue(NOW - 60))))
    assert isinstance(first, Unavailable)
    assert (first.retry_after, first.nonce) == (1, api.server_nonces.issue(NOW))
    assert (shared.check, shared.nonce) == (None, None), "an error is never written into"
    second = await refused(api, api.request(api.proof(nonce=api.server_nonces.issue(NOW))))
    assert isinstance(second, Unavailable)
    assert (second.retry_after, second.nonce) == (30, None)


class Silent:
    """A provider that accepts every nonce and issues none."""

    def issue(self, now: float) -> str:
        raise OSError("no entropy")

    def check(self, nonce: str, now: float) -> Nonce:
        return Nonce(issued_at=now - 60, expires_at=now + 60, current=False)


async def test_a_refusal_needs_no_nonce() -> None:
    api = Api(nonce="required", nonces=Silent())
    with pytest.raises(InsufficientScope) as caught:
        await api.server.authenticate(api.request(api.proof(nonce="x")), scopes=["admin"])
    assert (caught.value.nonce, caught.value.scheme) == (None, "DPoP")
    api.store.answer = Unavailable("lost", retry_after=30, newer_proof=True)
    lost = await refused(api, api.request(api.proof(nonce="x")))
    assert isinstance(lost, Unavailable)
    assert (lost.retry_after, lost.nonce) == (30, None)
    api.store.answer = None
    unknown = await refused(api, api.request(api.proof(nonce="x")))
    assert isinstance(unknown, Unavailable)
    assert (unknown.scheme, unknown.jkt) == ("DPoP", api.key.jkt)


class Quoting(Exception):
    """The error of some HTTP client."""


@pytest.mark.parametrize(
    "text",
    [
        "no answer to POST /introspect?token={token}",
        "no answer to /introspect/{quoted}",
        "token {token:.40}... is odd",
        "token {token:.16}... is odd",
        "segment {middle}",
    ],
)
async def test_a_cause_that_quotes_the_token_is_not_passed_on(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api()
    token = "+".join(["abcdefghijklmnopqrstuvwxyz0123456789ABCDE"] * 3)
    fault = Quoting(text.format(token=token, quoted=quote(token, safe=""), middle=token[30:70]))
    api.tokens.known[token] = fault
    error = await refused(api, request(token, api.proof(token=token)))
    assert (error.actual, error.__cause__) == ("Quoting", None)
    assert "abcdefghijklmnopqrstuvwxyz" not in caplog.text


async def test_the_end_of_a_short_token_is_a_part_too() -> None:
    api = Api()
    token = "abcdefghijklmnopqrstuvwxyz012345"
    api.tokens.known[token] = Quoting(f"odd: {token[1:]}")
    assert (await refused(api, request(token, api.proof(token=token)))).__cause__ is None


async def test_a_cause_that_says_something_else_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    fault = Quoting("a short end of it: " + api.token[-3:])
    api.tokens.known[api.token] = fault
    error = await refused(api, api.request())
    assert error.__cause__ is fault
    assert "a short end of it" in caplog.text


@pytest.mark.parametrize("answer", [{}, True, "subject", {"sub": "x"}])
@pytest.mark.parametrize("scheme", ["DPoP", "Bearer"])
async def test_a_verifier_must_answer_with_a_token(answer: object, scheme: str) -> None:
    api = Api(accept_bearer=True)
    api.tokens.known[api.token] = answer
    error = await refused(api, request(api.token, api.proof(), scheme=scheme))
    assert isinstance(error, Unavailable)
    assert (error.check, error.actual) == (Check.TOKEN_KEY, type(answer).__name__)


@pytest.mark.parametrize("subject", [None, ""])
@pytest.mark.parametrize("scheme", ["DPoP", "Bearer"])
async def test_a_verifiers_token_has_a_subject_or_a_client(subject: str | None, scheme: str) -> None:
    api = Api(accept_bearer=True)
    jkt = api.key.jkt if scheme == "DPoP" else None
    api.tokens.issue(jkt)
    anonymous = replace(api.tokens.known[api.token], subject=subject)
    api.tokens.known[api.token] = anonymous
    asked = request(api.token, api.proof(), scheme=scheme)
    assert (await api.server.authenticate(asked)).access_token.identity == "client:my_client"
    api.tokens.known[api.token] = replace(anonymous, client_id="")
    error = await refused(api, request(api.token, api.proof(), scheme=scheme))
    assert (error.code, error.check) == ("invalid_token", Check.TOKEN_CLAIMS)
    assert error.expected == ("subject", "client_id")


async def test_refusals_by_verifier_and_store_are_passed_on() -> None:
    api = Api()
    own = Unavailable("later", retry_after=9)
    api.store.answer = own
    refused_by_store = await refused(api, api.request())
    api.tokens.known[api.token] = own
    refused_by_verifier = await refused(api, api.request())
    for error in (refused_by_store, refused_by_verifier):
        assert isinstance(error, Unavailable)
        assert (error.description, error.retry_after, error.scheme) == ("later", 9, "DPoP")
    assert (own.check, own.scheme) == (None, None), "an error is never written into"
    assert (await refused(api, request("unknown", api.proof()))).description == "the access token is unknown"


async def test_two_authorization_fields_or_none_are_refused() -> None:
    api = Api()
    assert isinstance(await refused(api, request()), MissingCredentials)
    two = ResourceRequest(
        method="GET",
        raw_path="/notes",
        hosts=(),
        authorization=(f"DPoP {api.token}",) * 2,
        dpop=(api.proof(),),
    )
    error = await refused(api, two)
    assert isinstance(error, InvalidRequest)
    assert error.scheme is None


async def test_a_jti_is_used_once_for_each_key() -> None:
    api = Api()
    other_token = api.tokens.issue(STRANGER.jkt, name="of-the-stranger")
    url = "https://api.example.test/notes"
    await api.server.authenticate(
        api.request(api.key.proof("GET", url, access_token=api.token, now=NOW, jti="same"))
    )
    await api.server.authenticate(
        request(other_token, STRANGER.proof("GET", url, access_token=other_token, now=NOW, jti="same"))
    )
    again = api.key.proof("GET", url, access_token=api.token, now=NOW + 1, jti="same")
    assert (await refused(api, api.request(again))).check is Check.JTI


class Dynamic:
    """A verifier whose methods are looked up each time."""

    issuers = ("https://auth.example.test",)

    def __init__(self, jkt: str) -> None:
        self.tokens = Tokens()
        self.tokens.issue(jkt, expires_in=1)

    def __getattr__(self, name: str) -> Any:
        if name != "verify":
            raise AttributeError(name)
        return self.tokens.verify


async def test_a_verifier_that_promises_nothing_has_promised_nothing() -> None:
    key, store = DPoPKey.generate(), Store()
    verifier: Any = Dynamic(key.jkt)
    server = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=store, clock=Clock())
    proof = key.proof("GET", f"{RESOURCE}/notes", access_token="access-token", now=NOW)
    await server.authenticate(request("access-token", proof))
    (entry,) = store.entries
    assert entry.expires_at > NOW + 60, "not only as long as the token, which ends in a second"


async def test_a_login_grows_old_after_its_request_was_judged() -> None:
    api, recent = Api(), Requirements(max_age=60)
    api.tokens.issue(api.key.jkt, auth_time=NOW)
    authentication = await api.server.verify(api.request())
    api.server.authorize(authentication, recent)
    api.clock.now += 70
    with pytest.raises(InsufficientUserAuthentication):
        api.server.authorize(authentication, recent)


def test_what_needs_a_middleware_can_only_be_opened_with_one() -> None:
    verification = Api(nonce="required").server.verification
    verification.check_nonce_delivery()
    verification.needs_middleware = True
    with pytest.raises(
        ConfigurationError, match="a dependency can't put nonces on responses: add DPoPMiddleware"
    ):
        verification.check_nonce_delivery()
    verification.has_middleware = True
    verification.check_nonce_delivery()


def test_a_policy_that_is_added_later_is_one_of_the_gateways_too() -> None:
    server = Api().server
    gateway = server.verification.at_gateway()
    later = server.with_policy(accept_bearer=True)
    assert gateway.policies == server.verification.policies == (server.policy, later.policy)


def test_nonces_that_nobody_asks_for_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    without = ResourceServer(verifier=Tokens(), resource=RESOURCE, replay_store=Store())
    asked_for, idle = Api(nonce="required").server, Api().server
    asked_for.with_policy(nonce="off")
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        without.verification.check_nonce_delivery()
        asked_for.verification.check_nonce_delivery()
        assert caplog.messages == []
        idle.verification.check_nonce_delivery()
        idle.with_policy(accept_bearer=True)
        idle.verification.check_nonce_delivery()
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "nonces= of ResourceServer has no effect"
    ]
