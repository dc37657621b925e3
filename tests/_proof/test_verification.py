"""The checks of a proof that resource server and token endpoint share."""

import pytest

from dpop_middleware import DPoPPolicy, Nonce
from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, Unavailable, UseDPoPNonce
from dpop_middleware.replay.store import ReplayKeyspace
from tests.support.api import NOW, Api, request

HOUR = 3600


async def test_where_no_token_is_presented_no_hash_of_one_is_asked_for() -> None:
    api = Api()
    part = ProofVerification(
        store=api.store,
        keyspace=ReplayKeyspace("token endpoint"),
        public_urls=PublicURLs("https://auth.example.test", insecure_http_hosts=()),
        nonces=None,
    )
    jws = split_proof(api.key.proof("POST", "https://auth.example.test/token", now=NOW + HOUR))
    policy = DPoPPolicy(clock_skew=2 * HOUR)
    judged = part.judge(
        jws,
        parse_header(jws.header, policy.algorithms),
        request=request(method="POST", raw_path="/token"),
        ath=None,
        policy=policy,
        policies=(policy,),
        now=NOW,
    )
    await part.mark_as_used(judged, policy)
    assert (judged.proof.ath, judged.nonce) == (None, None)
    assert api.store.entries[0].expires_at == NOW + HOUR + 60 + 2 * HOUR + 5


LOST = "the replay store lost entries: a newer proof is needed"


class Stepwise:
    """A provider of a user's own, whose nonces are a minute long."""

    def __init__(self, *, fails: bool = False, wrong: bool = False) -> None:
        self.fails, self.wrong = fails, wrong

    def issue(self, now: float) -> str:
        if self.fails:
            raise OSError("no nonces today")
        return "a b" if self.wrong else f"{now // 60:.0f}"

    def check(self, nonce: str, now: float) -> Nonce | None:
        start = now // 60 * 60
        return Nonce(issued_at=start, expires_at=start + 300, current=True)


@pytest.mark.parametrize("mode", ["required", "fallback"])
async def test_after_a_loss_a_nonce_from_later_brings_a_client_in(mode: str) -> None:
    api = Api(nonce=mode)
    nonce, errors = api.server_nonces.issue(NOW), list[DPoPError]()
    for second in range(7):
        api.clock.now = NOW + second
        api.store.answer = Unavailable(LOST, newer_proof=True, judges_from=NOW + 5.5)
        with pytest.raises(DPoPError) as caught:
            await api.server.authenticate(api.request(api.proof(nonce=nonce)))
        errors.append(caught.value)
    for second, early in enumerate(errors[:6]):
        assert isinstance(early, Unavailable)
        assert (early.description, early.retry_after, early.nonce) == (LOST, max(1, 6 - second), None)
    error = errors[6]
    assert isinstance(error, UseDPoPNonce)
    api.store.answer = None
    verified = await api.server.authenticate(api.request(api.proof(nonce=error.nonce)))
    assert verified.proof is not None
    assert api.store.entries[-1].not_before >= NOW + 5.5


@pytest.mark.parametrize(
    "provider", [Stepwise(), Stepwise(fails=True), Stepwise(wrong=True)], ids=["step", "fails", "wrong"]
)
async def test_no_client_is_challenged_with_a_nonce_that_would_be_refused(provider: Stepwise) -> None:
    api = Api(nonces=provider, nonce="fallback")
    start = NOW // 60 * 60
    for second in (0, 7, 59):
        api.clock.now = start + second
        api.store.answer = Unavailable(LOST, newer_proof=True, judges_from=start + 5)
        with pytest.raises(Unavailable) as caught:
            await api.server.authenticate(api.request())
        assert caught.value.description == LOST
    if not (provider.fails or provider.wrong):
        api.clock.now = start + 60
        with pytest.raises(UseDPoPNonce):
            await api.server.authenticate(api.request())


async def test_without_nonces_a_client_is_told_to_wait() -> None:
    api = Api()
    api.store.answer = Unavailable(LOST, newer_proof=True, judges_from=NOW - 100, retry_after=35)
    with pytest.raises(Unavailable) as caught:
        await api.server.authenticate(api.request())
    assert (caught.value.retry_after, caught.value.nonce) == (35, None)


async def test_a_refusal_by_the_store_is_the_stores_check() -> None:
    api = Api()
    api.store.answer = InvalidDPoPProof("this client has used too many proofs")
    with pytest.raises(InvalidDPoPProof, match="too many proofs") as caught:
        await api.server.authenticate(api.request())
    assert (caught.value.check, caught.value.scheme) == (Check.JTI, "DPoP")
