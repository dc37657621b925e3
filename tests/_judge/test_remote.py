"""A verifier that asks another server is called just before the store, and only for good proofs."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dpop_middleware import AccessToken, DPoPPolicy, HMACNonceProvider, ResourceRequest, ResourceServer
from dpop_middleware._judge.hints import hint_of
from dpop_middleware._judge.remote import ProofFirst
from dpop_middleware.checks import CHECKS_OF_AN_OPAQUE_TOKEN, Check, Reason
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, InvalidToken, Unavailable, UseDPoPNonce
from tests.support.api import NOW, RESOURCE, SECRET, Clock, Store, Tokens, edited, request

STRANGER = DPoPKey.generate()


class RemoteTokens(Tokens):
    """Tokens that another server knows: it answers while `answers` is set, and `meanwhile` happens before."""

    remote = True
    meanwhile: Callable[[], None] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answers = asyncio.Event()
        self.answers.set()
        self.presented = 0

    async def verify(self, token: str) -> AccessToken:
        self.presented += 1
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.meanwhile is not None:
            self.meanwhile()
        return await super().verify(token)


class Api:
    """One server whose verifier is remote, and one client."""

    def __init__(self, tokens: Any = None, **policy: Any) -> None:
        self.clock = Clock()
        self.tokens = RemoteTokens() if tokens is None else tokens
        self.store = Store()
        self.key = DPoPKey.generate()
        self.nonces = HMACNonceProvider(SECRET)
        self.server = ResourceServer(
            verifier=self.tokens,
            resource=RESOURCE,
            replay_store=self.store,
            policy=DPoPPolicy(**policy),
            nonces=self.nonces,
            clock=self.clock,
        )
        self.token = self.tokens.issue(self.key.jkt)

    def proof(self, *, at: float = 0, nonce: str | None = None, token: str | None = None) -> str:
        return self.key.proof(
            "GET", f"{RESOURCE}/notes", access_token=token or self.token, nonce=nonce, now=self.clock.now + at
        )

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    async def refused(self, asked: ResourceRequest) -> DPoPError:
        with pytest.raises(DPoPError) as caught:
            await self.server.authenticate(asked)
        return caught.value


async def test_an_honest_request_is_accepted() -> None:
    api = Api()
    verified = await api.server.authenticate(request(api.token, api.proof()))
    assert verified.access_token is api.tokens.known[api.token]
    (entry,) = api.store.entries
    assert (entry.jkt, entry.now, entry.expires_at) == (api.key.jkt, NOW, NOW + 95)
    assert entry.speaks_for == "https://auth.example.test user123"


async def test_a_proof_passes_once() -> None:
    api = Api()
    asked = request(api.token, api.proof())
    await api.server.authenticate(asked)
    assert (await api.refused(asked)).check is Check.JTI


# Each fault comes with all the faults of the checks after it: the first is the one that counts.
FAULTS: list[tuple[Check, Callable[[Api, dict[str, Any]], object]]] = [
    (Check.JKT, lambda api, made: api.tokens.issue(STRANGER.jkt)),
    (Check.TOKEN_TIME, lambda api, made: api.tokens.issue(STRANGER.jkt, expires_in=-301)),
    (Check.BINDING, lambda api, made: api.tokens.issue(None, expires_in=-301)),
    (Check.TOKEN_ACTIVE, lambda api, made: api.tokens.known.update({api.token: inactive()})),
    (Check.SIGNATURE, lambda api, made: made.update(bad_signature=True)),
    (Check.IAT, lambda api, made: made["claims"].update(iat=NOW - 1000)),
    (Check.ATH, lambda api, made: made["claims"].update(ath="x")),
    (Check.HTU, lambda api, made: made["claims"].update(htu="https://evil.example/")),
    (Check.HTM, lambda api, made: made["claims"].update(htm="DELETE")),
    (Check.CLAIMS, lambda api, made: made["claims"].update(jti="")),
    (Check.JWK, lambda api, made: made["header"].update(jwk={})),
    (Check.ALG, lambda api, made: made["header"].update(alg="none")),
    (Check.CRIT, lambda api, made: made["header"].update(crit=[])),
    (Check.TYP, lambda api, made: made["header"].update(typ="JWT")),
    (Check.FORMAT, lambda api, made: made.update(suffix=".x.y")),
    (Check.ONE_HEADER, lambda api, made: made.update(times=2)),
    (Check.TARGET, lambda api, made: made.update(raw_path="/../notes")),
]


def inactive() -> InvalidToken:
    return InvalidToken("not active", check=Check.TOKEN_ACTIVE)


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1), ids=lambda n: f"{n}-{FAULTS[n - 1][0]}")
async def test_the_first_fault_counts(number: int) -> None:
    api = Api()
    made: dict[str, Any] = {"claims": {}, "header": {}}
    for _, fault in FAULTS[:number]:
        fault(api, made)
    proof = edited(
        api.key, api.proof(), header={"jwk": api.key.public_jwk} | made["header"], **made["claims"]
    )
    if made.get("bad_signature"):
        proof = proof[:-8] + "AAAAAAAA"
    fields = [proof + made.get("suffix", "")] * made.get("times", 1)
    error = await api.refused(request(api.token, *fields, raw_path=made.get("raw_path", "/notes")))
    assert error.check is FAULTS[number - 1][0]
    assert error.scheme == "DPoP"
    assert api.store.entries == []
    assert len(api.tokens.asked) == (1 if number <= 4 else 0)


def test_the_checks_are_listed_in_the_order_in_which_they_count() -> None:
    order = [CHECKS_OF_AN_OPAQUE_TOKEN.index(check) for check, _ in reversed(FAULTS)]
    # The claims of an answer are judged before the proof is compared with them.
    assert order[:-2] == sorted(order[:-2])


async def test_a_proof_that_can_not_be_remembered_for_long_enough_causes_no_question() -> None:
    api = Api(nonce="required")
    nonce = dict(api.server.nonce_headers())["dpop-nonce"]
    error = await api.refused(request(api.token, api.proof(at=2 * 86_400, nonce=nonce)))
    assert (error.check, api.tokens.asked) == (Check.IAT, [])


async def test_ten_thousand_bad_proofs_cause_no_question() -> None:
    api = Api()
    made_for_another = api.proof(token="another-token")
    old, forged = api.proof(at=-1000), api.proof()[:-8] + "AAAAAAAA"
    for number in range(10_000):
        proof = (made_for_another, old, forged, "no-proof")[number % 4]
        await api.refused(request(f"made-up-{number}" if number % 2 else api.token, proof))
    assert api.tokens.asked == []
    assert api.store.entries == []


async def test_a_nonce_is_asked_for_before_the_token() -> None:
    api = Api(nonce="required")
    error = await api.refused(request(api.token, api.proof()))
    assert isinstance(error, UseDPoPNonce)
    assert api.tokens.asked == []
    await api.server.authenticate(request(api.token, api.proof(nonce=error.nonce)))


async def test_a_proof_that_went_stale_while_the_token_was_asked_about_is_refused() -> None:
    api = Api()
    api.tokens.meanwhile = lambda: api.advance(91)
    assert (await api.refused(request(api.token, api.proof()))).check is Check.IAT
    assert api.store.entries == []


async def test_a_nonce_that_expires_during_the_question_is_stale() -> None:
    api = Api(nonce="required")
    first = await api.refused(request(api.token, api.proof()))
    api.tokens.meanwhile = lambda: api.advance(599)
    error = await api.refused(request(api.token, api.proof(nonce=first.nonce)))
    assert isinstance(error, UseDPoPNonce)
    assert error.nonce != first.nonce


async def test_a_proof_with_a_nonce_is_remembered_for_as_long_as_its_nonce_counts() -> None:
    entries = []
    for tokens in (RemoteTokens(), Tokens()):
        api = Api(tokens, nonce="required")
        nonce = (await api.refused(request(api.token, api.proof()))).nonce
        await api.server.authenticate(request(api.token, api.proof(nonce=nonce)))
        entries += api.store.entries
    remote, local = entries
    assert remote.expires_at > NOW + 95
    assert not remote.by_iat
    assert remote._replace(key="", jkt="") == local._replace(key="", jkt="", expires_at=remote.expires_at)


async def test_a_key_that_the_token_is_not_bound_to_is_named_beside_its_own() -> None:
    api = Api()
    token = api.tokens.issue(STRANGER.jkt)
    error = await api.refused(request(token, api.proof(token=token)))
    assert (error.expected, error.actual) == (STRANGER.jkt, api.key.jkt)


async def test_a_verifier_that_says_nothing_of_another_server_is_asked_first() -> None:
    api = Api(Tokens())
    assert api.server.verification.proof_first is None
    await api.refused(request(api.token, "no-proof"))
    assert api.tokens.asked == [api.token]


async def test_the_entry_counts_from_the_moment_at_which_it_is_written() -> None:
    api = Api()
    api.tokens.meanwhile = lambda: api.advance(1)
    await api.server.authenticate(request(api.token, api.proof()))
    (entry,) = api.store.entries
    assert (entry.now, entry.expires_at) == (NOW + 1, NOW + 95)


@pytest.mark.parametrize("promise", [True, False])
async def test_an_answer_that_changes_its_exp_brings_no_proof_back(promise: bool) -> None:
    api = Api(tokens=RemoteTokens(expiry_is_final=promise), proof_lifetime=3600)
    api.tokens.issue(api.key.jkt, expires_in=1)
    asked = request(api.token, api.proof())
    await api.server.authenticate(asked)
    for _ in range(8):
        api.advance(400)
        api.tokens.issue(api.key.jkt, expires_in=api.clock.now - NOW + 1)
        assert (await api.refused(asked)).check is Check.JTI


async def test_bearer_is_asked_about_where_it_is_accepted() -> None:
    api = Api(accept_bearer=True)
    unbound = api.tokens.issue(name="unbound")
    assert (await api.server.authenticate(request(unbound, scheme="Bearer"))).proof is None


async def test_an_unknown_verdict_is_503() -> None:
    api = Api()
    api.tokens.known[api.token] = OSError("no route")
    error = await api.refused(request(api.token, api.proof()))
    assert isinstance(error, Unavailable)
    assert api.store.entries == []


class PerToken(Tokens):
    """Asks another server about some tokens only."""

    remote = False

    def is_remote(self, token: str) -> bool:
        if token == "odd":
            raise RuntimeError
        return token.startswith("far")


@pytest.mark.parametrize(
    ("token", "asked"), [("far-away", []), ("near", ["near"]), ("odd", [])], ids=["remote", "local", "faulty"]
)
async def test_it_may_depend_on_the_token(token: str, asked: list[str]) -> None:
    api = Api(tokens=PerToken())
    api.tokens.issue(api.key.jkt, name=token)
    await api.refused(request(token, api.proof()))
    assert api.tokens.asked == asked
    await api.server.authenticate(request(token, api.proof(token=token)))


class Bounded:
    """What judges proofs before their tokens, with its own clock, and one client; `outcome` tells an end."""

    def __init__(self, algorithm: str = "ES512", *, remote: bool = True, **policy: Any) -> None:
        self.api = Api(**policy)
        self.seconds = Clock(1000.0)
        self.first = ProofFirst(lambda _: remote, monotonic=self.seconds)
        self.api.server.verification.proof_first = self.first
        self.key = DPoPKey.generate(algorithm)

    def token(self, name: str = "good") -> str:
        """Return an active token that is bound to this client's key."""
        return self.api.tokens.issue(self.key.jkt, name=name)

    def proof(self, token: str, **options: Any) -> str:
        return self.key.proof(
            "GET", f"{RESOURCE}/notes", access_token=token, now=self.api.clock.now, **options
        )

    def forged(self, token: str) -> str:
        """Return a proof of anybody's: its signature is another proof's."""
        signed, _, _ = self.proof(token).rpartition(".")
        return f"{signed}.{self.proof(token).rpartition('.')[2]}"

    async def asked(self, count: int) -> None:
        """Let the requests begin; as many tokens are asked about then."""
        await asyncio.sleep(0)
        assert self.api.tokens.presented == count

    async def outcome(self, token: str, proof: str | None = None) -> str:
        try:
            await self.api.server.authenticate(request(token, proof or self.proof(token)))
        except DPoPError as error:
            verified = error.reason is not Reason.TOO_MANY
            return f"{error.status} {error.check}" + ("" if verified else ", not verified")
        return "accepted"

    async def outcomes(self, token: str, proof: str, count: int) -> dict[str, int]:
        found = [await self.outcome(token, proof) for _ in range(count)]
        return {outcome: found.count(outcome) for outcome in found}


@pytest.mark.parametrize(
    ("algorithm", "bound"),
    [
        ("ES256", 320),
        ("RS256", 320),
        ("PS512", 320),
        ("ES384", 40),
        ("ES512", 40),
        ("EdDSA", 160),
        ("Ed25519", 160),
        ("ML-DSA-44", 160),
        ("ML-DSA-65", 106),
        ("ML-DSA-87", 80),
    ],
)
async def test_bad_proofs_are_verified_a_number_of_times_in_a_fifth_of_a_second(
    algorithm: str, bound: int
) -> None:
    client = Bounded(algorithm, algorithms=(algorithm,))
    forged = client.forged("made-up")
    assert await client.outcomes("made-up", forged, bound + 110) == {
        "401 signature": bound,
        "503 signature, not verified": 100,
        "401 signature, not verified": 10,
    }
    client.seconds.now += 0.21
    assert await client.outcomes("made-up", forged, bound + 1) == {
        "401 signature": bound,
        "503 signature, not verified": 1,
    }


@pytest.mark.parametrize("excess", [1, 120], ids=["503", "401"])
async def test_the_log_says_why_a_proof_was_not_verified(
    excess: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = Bounded()
    forged = client.forged("made-up")
    await client.outcomes("made-up", forged, 40 + excess)
    error = await client.api.refused(request("made-up", forged))
    assert error.description == "the DPoP proof can't be verified now"
    assert error.actual == "too many proofs by ES512 were bad, or came with unknown access tokens"
    assert "see the refusals before this one" in str(hint_of(error))
    warned = [text for text in caplog.messages if text.startswith("too many DPoP proofs were bad, or came")]
    assert len(warned) == (1 if excess > 100 else 0)


async def test_good_proofs_of_made_up_tokens_count_too() -> None:
    client = Bounded()
    assert await client.outcomes("made-up", client.proof("made-up"), 45) == {
        "401 None": 40,
        "503 signature, not verified": 5,
    }


async def test_good_proofs_of_tokens_bound_to_another_key_count_too() -> None:
    client = Bounded()
    stolen = client.api.token
    assert await client.outcomes(stolen, client.proof(stolen), 45) == {
        "401 jkt": 40,
        "503 signature, not verified": 5,
    }


async def test_good_proofs_of_tokens_that_are_not_bound_or_have_expired_count_too() -> None:
    client = Bounded()
    unbound = client.api.tokens.issue(name="unbound")
    expired = client.api.tokens.issue(client.key.jkt, name="expired", expires_in=-301)
    assert await client.outcomes(unbound, client.proof(unbound), 20) == {"401 binding": 20}
    assert await client.outcomes(expired, client.proof(expired), 25) == {
        "401 token_time": 20,
        "503 signature, not verified": 5,
    }


async def test_while_the_issuer_fails_every_client_gets_503_for_that_reason() -> None:
    client = Bounded()
    client.api.tokens.known["good"] = OSError("no route")
    assert await client.outcomes("good", client.proof("good"), 60) == {"503 token_key": 60}


async def test_requests_that_end_before_the_answer_count_too() -> None:
    client = Bounded()
    client.api.tokens.answers.clear()
    senders = [asyncio.create_task(client.outcome("made-up")) for _ in range(40)]
    await client.asked(40)
    for sender in senders:
        sender.cancel()
    await asyncio.wait(senders)
    assert all(sender.cancelled() for sender in senders)
    client.api.tokens.answers.set()
    assert await client.outcome("made-up") == "503 signature, not verified"


async def test_where_most_were_in_vain_proofs_count_while_their_tokens_are_asked_about() -> None:
    client = Bounded()
    assert await client.outcomes("made-up", client.forged("made-up"), 20) == {"401 signature": 20}
    client.api.tokens.answers.clear()
    tokens = [client.token(f"good-{number}") for number in range(200)]
    senders = [asyncio.create_task(client.outcome(token)) for token in tokens]
    await client.asked(200)
    excess = asyncio.create_task(client.outcome("made-up"))
    await asyncio.sleep(0)
    client.api.tokens.answers.set()
    assert await excess == "503 signature, not verified"
    assert await asyncio.gather(*senders) == ["accepted"] * 200


async def test_proofs_whose_tokens_were_answered_wait_no_more() -> None:
    client = Bounded()
    for number in range(200):
        assert await client.outcome(client.token(f"good-{number}")) == "accepted"
    assert await client.outcomes("made-up", client.forged("made-up"), 20) == {"401 signature": 20}
    assert await client.outcome(client.token()) == "accepted"


async def test_honest_clients_who_come_in_a_flood_end_it() -> None:
    client = Bounded()
    assert await client.outcomes("made-up", client.forged("made-up"), 20) == {"401 signature": 20}
    for number in range(20):
        assert await client.outcome(client.token(f"good-{number}")) == "accepted"
    client.api.tokens.answers.clear()
    senders = [asyncio.create_task(client.outcome(client.token(f"new-{number}"))) for number in range(201)]
    await asyncio.sleep(0)
    client.api.tokens.answers.set()
    assert await asyncio.gather(*senders) == ["accepted"] * 201


@pytest.mark.parametrize(("in_vain", "later"), [(0, 0), (5, 0), (20, 1)], ids=["quiet", "few", "ended flood"])
async def test_many_new_clients_may_come_at_once(in_vain: int, later: float) -> None:
    client = Bounded()
    await client.outcomes("made-up", client.forged("made-up"), in_vain)
    client.seconds.now += later
    client.api.tokens.answers.clear()
    senders = [asyncio.create_task(client.outcome(client.token(f"good-{number}"))) for number in range(500)]
    await client.asked(500)
    client.api.tokens.answers.set()
    assert await asyncio.gather(*senders) == ["accepted"] * 500


async def test_a_flood_with_one_algorithm_refuses_nobody_with_another_and_no_token_that_was_active() -> None:
    client = Bounded()
    known, new = client.token("known"), client.token("new")
    assert await client.outcome(known) == "accepted"
    flood = await client.outcomes("made-up", client.forged("made-up"), 50)
    assert flood["503 signature, not verified"] == 10
    assert await client.outcome(new) == "503 signature, not verified"
    assert await client.outcome(known) == "accepted"
    assert (await client.outcomes(known, client.forged(known), 50)) == {"401 signature": 50}
    api = client.api
    assert (await api.server.authenticate(request(api.token, api.proof()))).proof is not None
    client.seconds.now += 0.1
    assert await client.outcome(new) == "accepted"


async def test_a_token_that_was_active_exempts_its_own_key_only_and_only_until_it_is_revoked() -> None:
    client, thief = Bounded(), DPoPKey.generate("ES512")
    known = client.token()
    assert await client.outcome(known) == "accepted"
    await client.outcomes("made-up", client.forged("made-up"), 40)
    stolen = thief.proof("GET", f"{RESOURCE}/notes", access_token=known, now=client.api.clock.now)
    assert await client.outcome(known, stolen) == "503 signature, not verified"
    client.api.tokens.known[known] = inactive()
    assert await client.outcome(known) == "401 token_active"
    assert await client.outcome(known) == "503 signature, not verified"


async def test_a_gateway_and_the_server_behind_it_have_one_bound_and_know_the_same_clients() -> None:
    client = Bounded()
    known = client.token()
    assert await client.outcome(known) == "accepted"
    await client.outcomes("made-up", client.forged("made-up"), 40)
    gateway, policy = client.api.server.verification.at_gateway(), DPoPPolicy()
    new = client.token("new")
    refused = await gateway.judge(request(new, client.proof(new)), policy)
    assert isinstance(refused, DPoPError)
    assert refused.reason is Reason.TOO_MANY
    accepted = await gateway.judge(request(known, client.proof(known)), policy)
    assert not isinstance(accepted, DPoPError)


async def test_stale_proofs_and_those_without_a_nonce_are_refused_unverified_and_do_not_count() -> None:
    client = Bounded(nonce="required")
    assert await client.outcomes("made-up", client.forged("made-up"), 100) == {"401 nonce": 100}
    client = Bounded()
    old = client.forged("made-up")
    client.api.advance(100)
    assert await client.outcomes("made-up", old, 100) == {"401 iat": 100}
    assert await client.outcome(client.token()) == "accepted"


async def test_where_the_token_is_judged_first_nothing_is_bounded() -> None:
    client = Bounded(remote=False)
    known = client.token()
    assert await client.outcomes(known, client.forged(known), 50) == {"401 signature": 50}


async def test_a_token_that_was_judged_first_exempts_its_key_when_it_is_asked_about_later() -> None:
    client, remote = Bounded(), False
    client.first.is_remote = lambda _: remote
    known = client.token()
    assert await client.outcome(known) == "accepted"
    assert await client.outcome(known, client.forged(known)) == "401 signature"
    remote = True
    await client.outcomes("made-up", client.forged("made-up"), 40)
    assert await client.outcome("made-up") == "503 signature, not verified"
    assert await client.outcome(known) == "accepted"


async def test_the_keys_of_ten_thousand_tokens_of_each_kind_are_remembered() -> None:
    client, asks = Bounded(), True
    client.first.is_remote = lambda _: asks
    asked = [client.token(f"asked-{number}") for number in range(2)]
    assert [await client.outcome(token) for token in asked] == ["accepted"] * 2
    asks = False
    judged_first = [client.token(f"first-{number}") for number in range(2)]
    assert [await client.outcome(token) for token in judged_first] == ["accepted"] * 2
    proof = (await client.api.server.authenticate(request(asked[0], client.proof(asked[0])))).proof
    assert proof is not None
    for number in range(9_999):
        client.first.remember(proof._replace(ath=str(number)))
    asks = True
    await client.outcomes("made-up", client.forged("made-up"), 40)
    found = [await client.outcome(token) for token in (*asked, *judged_first)]
    assert found == ["accepted", "accepted", "503 signature, not verified", "accepted"]


async def test_a_token_that_is_not_active_any_more_is_forgotten_however_it_was_judged() -> None:
    client, asks = Bounded(), False
    client.first.is_remote = lambda _: asks
    known = client.token()
    assert await client.outcome(known) == "accepted"
    asks = True
    client.api.tokens.known[known] = inactive()
    assert await client.outcome(known) == "401 token_active"
    await client.outcomes("made-up", client.forged("made-up"), 39)
    assert await client.outcome(known) == "503 signature, not verified"
