"""Fresh by the nonce alone or by `iat` alone, and remembered for longer than either."""

import pytest

from dpop_middleware import DPoPPolicy, DPoPProof, HMACNonceProvider, Nonce
from dpop_middleware._proof.freshness import (
    acceptance_window,
    check_freshness,
    dated_nonce,
    issued_nonce,
    known_nonce,
    reach_of,
    retention,
)
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidToken, Unavailable, UseDPoPNonce
from dpop_middleware.policy import NonceMode
from tests.support.api import NOW, Api, edited

OFF, REQUIRED, FALLBACK = (DPoPPolicy(nonce=mode) for mode in ("off", "required", "fallback"))
PROVIDER = HMACNonceProvider(bytes(32)).for_server(purpose="resource server", server="")
HOUR = 3600


def proof(
    iat: float = NOW, nonce: str | None = None, exp: float | None = None, nbf: float | None = None
) -> DPoPProof:
    return DPoPProof(
        jti="j",
        htm="GET",
        htu="https://a/",
        iat=iat,
        ath=None,
        nonce=nonce,
        jkt="k",
        algorithm="ES256",
        exp=exp,
        nbf=nbf,
    )


def check(presented: DPoPProof, policy: DPoPPolicy, now: float = NOW) -> None:
    nonce = known_nonce(presented, PROVIDER, now)
    check_freshness(presented, policy, nonces=PROVIDER, nonce=nonce, now=now)


@pytest.mark.parametrize("policy", [OFF, FALLBACK])
@pytest.mark.parametrize("age", [-30, -29.5, -16, 0, 60, 90])
def test_an_iat_inside_the_window_is_fresh(policy: DPoPPolicy, age: float) -> None:
    check(proof(NOW - age), policy)
    with pytest.raises((InvalidDPoPProof, UseDPoPNonce)):
        check(proof(NOW - age), policy, now=NOW + HOUR)


@pytest.mark.parametrize("age", [-HOUR, -30.001, 90.001, HOUR, NOW])
def test_an_iat_outside_the_window_is_refused(age: float) -> None:
    with pytest.raises(InvalidDPoPProof) as caught:
        check(proof(NOW - age), OFF)
    assert caught.value.check is Check.IAT
    assert (caught.value.expected, caught.value.actual) == ((NOW - 90, NOW + 30), NOW - age)
    with pytest.raises(UseDPoPNonce) as asked:
        check(proof(NOW - age), FALLBACK)
    assert asked.value.nonce == PROVIDER.issue(NOW)


def test_the_window_is_the_policys() -> None:
    strict = DPoPPolicy(proof_lifetime=10, clock_skew=0)
    check(proof(NOW - 10), strict)
    for iat in (NOW - 10.5, NOW + 0.5):
        with pytest.raises(InvalidDPoPProof):
            check(proof(iat), strict)


@pytest.mark.parametrize("policy", [REQUIRED, FALLBACK])
@pytest.mark.parametrize("iat", [0.0, NOW - HOUR, NOW, NOW + HOUR, 253_402_300_799.0])
def test_a_proof_with_a_nonce_is_judged_by_it_alone(policy: DPoPPolicy, iat: float) -> None:
    check(proof(iat, PROVIDER.issue(NOW)), policy)
    for nonce in ("", "x", "\u1234", PROVIDER.issue(NOW - 300), PROVIDER.issue(NOW + 300)):
        with pytest.raises(UseDPoPNonce, match="unknown or stale") as caught:
            check(proof(iat, nonce), policy)
        assert caught.value.nonce == PROVIDER.issue(NOW)


@pytest.mark.parametrize("mode", ["required", "fallback"])
def test_iat_may_be_limited_beside_a_nonce(mode: NonceMode) -> None:
    # RFC 9449 section 11.1 lets a server limit iat in addition; some ecosystems demand both.
    policy, nonce = DPoPPolicy(nonce=mode, iat_limit_with_nonce=300), PROVIDER.issue(NOW)
    for age in (-300, -299.5, -31, 0, 91, 300):
        check(proof(NOW - age, nonce), policy)
    for age in (-HOUR, -303, -300.001, 300.001, 303, HOUR, NOW):
        with pytest.raises(InvalidDPoPProof, match="iat of the DPoP proof is not recent") as caught:
            check(proof(NOW - age, nonce), policy)
        assert caught.value.check is Check.IAT
        assert (caught.value.expected, caught.value.actual) == ((NOW - 300, NOW + 300), NOW - age)
        # The check of the nonce comes first: a client without one gets one.
        with pytest.raises(UseDPoPNonce):
            check(proof(NOW - age, "unknown"), policy)
        with pytest.raises(UseDPoPNonce):
            check(proof(NOW - age), policy)


def test_the_limit_is_for_proofs_with_a_nonce_only() -> None:
    for policy in (
        DPoPPolicy(iat_limit_with_nonce=1),
        DPoPPolicy(nonce="fallback", iat_limit_with_nonce=1),
    ):
        check(proof(NOW - 90), policy)
        check(proof(NOW + 30), policy)
    with pytest.raises(InvalidDPoPProof):
        check(proof(NOW - 90, PROVIDER.issue(NOW)), policy)
    check(proof(NOW - 90, PROVIDER.issue(NOW)), DPoPPolicy(iat_limit_with_nonce=1))


def test_required_refuses_a_proof_without() -> None:
    with pytest.raises(UseDPoPNonce, match="needs a nonce") as caught:
        check(proof(), REQUIRED)
    assert caught.value.nonce == PROVIDER.issue(NOW)


@pytest.mark.parametrize("nonce", ["x", PROVIDER.issue(NOW), PROVIDER.issue(NOW - HOUR)])
def test_where_nonces_are_off_the_iat_alone_counts(nonce: str) -> None:
    check(proof(NOW, nonce), OFF)
    with pytest.raises(InvalidDPoPProof):
        check(proof(NOW - HOUR, nonce), OFF)


@pytest.mark.parametrize(("policy", "nonce"), [(OFF, None), (OFF, PROVIDER.issue(NOW)), (FALLBACK, None)])
def test_where_the_clients_clock_counts_its_exp_and_nbf_count_too(
    policy: DPoPPolicy, nonce: str | None
) -> None:
    check(proof(nonce=nonce, exp=NOW - 29.9, nbf=NOW + 30), policy)
    for wrong in (proof(nonce=nonce, exp=NOW - 30), proof(nonce=nonce, nbf=NOW + 30.1)):
        with pytest.raises(InvalidDPoPProof) as caught:
            check(wrong, policy)
        assert caught.value.check is Check.IAT
        assert caught.value.expected == NOW
        assert caught.value.actual == (wrong.exp if wrong.nbf is None else wrong.nbf)


@pytest.mark.parametrize("policy", [REQUIRED, FALLBACK])
def test_where_the_nonce_counts_no_clock_of_the_clients_does(policy: DPoPPolicy) -> None:
    nonce = PROVIDER.issue(NOW)
    check(proof(NOW - HOUR, nonce, exp=NOW - HOUR + 100), policy)
    check(proof(NOW + HOUR, nonce, nbf=NOW + HOUR), policy)
    for wrong_clock in (proof(NOW - HOUR, exp=NOW - HOUR + 100), proof(NOW + HOUR, nbf=NOW + HOUR)):
        with pytest.raises(UseDPoPNonce) as caught:
            check(wrong_clock, policy)
        assert caught.value.nonce == nonce


def test_a_nonce_policy_without_provider_is_iat_alone() -> None:
    # A server can't be built in this way; the rule must still accept nothing more.
    check_freshness(proof(), FALLBACK, nonces=None, nonce=None, now=NOW)
    with pytest.raises(InvalidDPoPProof):
        check_freshness(proof(0), FALLBACK, nonces=None, nonce=None, now=NOW)


class Strange:
    """A user's own provider that fails for unexpected nonces."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def issue(self, now: float) -> str:
        return "abc"

    def check(self, nonce: str, now: float) -> Nonce | None:
        self.asked.append(nonce)
        raise KeyError(nonce)


@pytest.mark.parametrize("nonce", ["", " ", "é", "a b", 'a"b', "a\\b", "a\n", "\x7f", "a\x00"])
def test_a_malformed_nonce_never_reaches_the_provider(nonce: str) -> None:
    provider = Strange()
    assert known_nonce(proof(nonce=nonce), provider, NOW) is None
    assert provider.asked == []


def test_a_provider_that_fails_lets_no_request_through() -> None:
    with pytest.raises(Unavailable) as caught:
        known_nonce(proof(nonce="abc"), Strange(), NOW)
    assert (caught.value.check, caught.value.actual) == (Check.NONCE, "KeyError")
    assert caught.value.description == "the nonce of the DPoP proof can't be checked now"


@pytest.mark.parametrize("answer", [True, "abc", object()])
def test_a_provider_that_does_not_recognise_its_nonces_lets_no_request_through(answer: object) -> None:
    class Odd(Strange):
        def check(self, nonce: str, now: float) -> Nonce | None:
            return answer  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with pytest.raises(Unavailable) as caught:
        known_nonce(proof(nonce="abc"), Odd(), NOW)
    assert caught.value.actual == type(answer).__name__


@pytest.mark.parametrize("issued", [None, "", "a b", "a\r\nset-cookie: x", "é", 5])
def test_an_issued_nonce_is_checked_before_it_goes_into_a_header(issued: object) -> None:
    class Odd(Strange):
        def issue(self, now: float) -> str:
            return issued  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with pytest.raises(Unavailable) as caught:
        issued_nonce(Odd(), NOW)
    assert (caught.value.check, caught.value.actual) == (Check.NONCE, type(issued).__name__)
    with pytest.raises(Unavailable):
        check_freshness(proof(), REQUIRED, nonces=Odd(), nonce=None, now=NOW)


def test_a_provider_that_can_t_issue_makes_it_unavailable() -> None:
    class Odd(Strange):
        def issue(self, now: float) -> str:
            raise OverflowError

    with pytest.raises(Unavailable) as caught:
        issued_nonce(Odd(), NOW)
    assert (caught.value.check, caught.value.actual) == (Check.NONCE, "OverflowError")
    assert caught.value.description == "a nonce can't be issued now"


def test_the_issued_nonce_is_the_providers() -> None:
    assert issued_nonce(PROVIDER, NOW) == PROVIDER.issue(NOW)


def test_nothing_is_known_without_nonce_or_provider() -> None:
    assert known_nonce(proof(), PROVIDER, NOW) is None
    assert known_nonce(proof(nonce=PROVIDER.issue(NOW)), None, NOW) is None


KNOWN = Nonce(issued_at=NOW - 30, expires_at=NOW + 270, current=True)
BY_IAT = (NOW + HOUR - 30, NOW + HOUR + 90 + 5)
BY_NONCE = (NOW - 30, NOW + 270 + 5)
BY_EITHER = (BY_NONCE[0], BY_IAT[1])


@pytest.mark.parametrize(
    ("policies", "nonce", "window"),
    [
        ([OFF], None, BY_IAT),
        ([FALLBACK], None, BY_IAT),
        ([OFF], KNOWN, BY_EITHER),
        ([REQUIRED], KNOWN, BY_EITHER),
        ([FALLBACK], KNOWN, BY_EITHER),
        ([OFF, REQUIRED], KNOWN, BY_EITHER),
        (
            [OFF, DPoPPolicy(proof_lifetime=600, clock_skew=60)],
            None,
            (NOW + HOUR - 60, NOW + HOUR + 660 + 5),
        ),
    ],
)
def test_a_proof_is_remembered_for_all_that_could_accept_it(
    policies: list[DPoPPolicy], nonce: Nonce | None, window: tuple[float, float]
) -> None:
    assert acceptance_window(proof(NOW + HOUR), reach_of(policies), nonce) == window


@pytest.mark.parametrize(
    ("policy", "lifetime", "nonce", "expected"),
    [
        (OFF, None, None, 90 + 5),
        (REQUIRED, 300, None, 300 + 5),
        (REQUIRED, None, KNOWN, 300 + 5),
        (FALLBACK, None, None, 600 + 5),
    ],
)
def test_where_the_lifetime_of_nonces_is_unknown_a_proof_is_remembered_for_no_shorter_time(
    policy: DPoPPolicy, lifetime: float | None, nonce: Nonce | None, expected: float
) -> None:
    assert retention([policy], lifetime, nonce) == expected


LIMITED = DPoPPolicy(nonce="required", iat_limit_with_nonce=100)


@pytest.mark.parametrize("iat", [NOW - 90, NOW, NOW + 90])
@pytest.mark.parametrize("policies", [[LIMITED], [LIMITED, REQUIRED], [OFF, LIMITED], [REQUIRED]])
def test_a_limit_does_not_shorten_what_is_remembered(iat: float, policies: list[DPoPPolicy]) -> None:
    # A worker without the limit may be running at the same time.
    assert acceptance_window(proof(iat), reach_of(policies), KNOWN) == BY_NONCE


def test_a_nonce_from_a_worker_whose_clock_is_ahead_makes_no_entry_that_has_expired() -> None:
    ahead = Nonce(issued_at=NOW + 4, expires_at=NOW + 304, current=True)
    check_freshness(proof(NOW - 99), LIMITED, nonces=PROVIDER, nonce=ahead, now=NOW)
    assert acceptance_window(proof(NOW - 99), reach_of([LIMITED]), ahead)[1] == NOW + 304 + 5


def test_a_proof_is_not_older_than_its_nonce() -> None:
    # A store that lost its entries can't judge what could have been accepted before. A client whose clock is
    # slow would be refused long after that, if its iat counted.
    slow = proof(NOW - HOUR)
    assert acceptance_window(slow, reach_of([OFF, REQUIRED]), KNOWN) == BY_NONCE
    assert acceptance_window(slow, reach_of([OFF]), None)[0] == NOW - HOUR - 30


async def accepted(api: Api, presented: str, **policy: str) -> bool:
    server = api.server.with_policy(**policy) if policy else api.server
    try:
        await server.authenticate(api.request(presented))
    except DPoPError as error:
        assert error.check in {Check.IAT, Check.NONCE, Check.JTI}
        return False
    return True


@pytest.mark.parametrize(
    ("base", "siblings"), [("required", ("off", "fallback")), ("fallback", ("off",)), ("required", ())]
)
async def test_a_client_whose_clock_is_an_hour_fast_is_heard_once(
    base: str, siblings: tuple[str, ...]
) -> None:
    api = Api(nonce=base)
    servers = [api.server, *(api.server.with_policy(nonce=mode) for mode in siblings)]
    api.tokens.issue(api.key.jkt, expires_in=3 * HOUR)
    presented = api.proof(at=HOUR, nonce=api.server_nonces.issue(NOW))
    assert await accepted(api, presented)
    # Each second of the minutes in which its iat would be accepted, and some times before.
    for second in (*range(1, HOUR - 120, 7), *range(HOUR - 120, HOUR + 120)):
        api.clock.now = NOW + second
        for server in servers:
            with pytest.raises(DPoPError):
                await server.authenticate(api.request(presented))


@pytest.mark.parametrize("limits", [(None, 100), (100, None), (100, 20), (20, 100)])
@pytest.mark.parametrize("at", [-99, -19, 0, 19, 99])
async def test_with_a_limit_in_the_family_a_proof_is_heard_once(
    limits: tuple[float | None, float | None], at: float
) -> None:
    api = Api(nonce="required", iat_limit_with_nonce=limits[0])
    sibling = api.server.with_policy(iat_limit_with_nonce=limits[1])
    presented = api.proof(at=at, nonce=api.server_nonces.issue(NOW))
    heard = 0
    for second in range(-10, 320):
        api.clock.now = NOW + second
        for server in (api.server, sibling):
            try:
                await server.authenticate(api.request(presented))
                heard += 1
            except DPoPError as error:
                assert error.check in {Check.IAT, Check.NONCE, Check.JTI}
    assert heard == 1


async def test_a_route_can_tighten_the_limit() -> None:
    api = Api(nonce="required")
    limited = api.server.with_policy(iat_limit_with_nonce=300)
    for at, refused in ((-303, True), (-300, False), (300, False), (303, True)):
        asked = api.request(api.proof(at=at, nonce=api.server_nonces.issue(NOW)))
        authentication = await api.server.verify(asked)
        if not refused:
            limited.authorize(authentication)
            continue
        with pytest.raises(InvalidDPoPProof) as caught:
            limited.authorize(authentication)
        assert caught.value.check is Check.IAT
        assert api.events[-1].hint is not None
        assert "3 s too" in api.events[-1].hint


async def test_a_proof_accepted_by_its_iat_is_not_accepted_again_by_its_nonce() -> None:
    api = Api(nonce="off")
    required = api.server.with_policy(nonce="required")
    nonce = api.server_nonces.issue(NOW)
    presented = api.proof(at=-70, nonce=nonce)
    assert await accepted(api, presented)
    for second in range(301):
        api.clock.now = NOW + second
        with pytest.raises(DPoPError):
            await required.authenticate(api.request(presented))


async def test_without_the_store_each_of_these_would_have_come_back() -> None:
    # The tests above are meaningful only if iat or nonce alone would accept the proof again.
    api = Api(nonce="required")
    off = api.server.with_policy(nonce="off")
    presented = api.proof(at=HOUR, nonce=api.server_nonces.issue(NOW))
    assert await accepted(api, presented)
    api.clock.now = NOW + HOUR
    api.tokens.issue(api.key.jkt, expires_in=3 * HOUR)
    api.store.answer = True
    await off.authenticate(api.request(presented))


@pytest.mark.parametrize("worker", [-5.0, 5.0])
async def test_another_workers_clock_brings_nothing_back(worker: float) -> None:
    api = Api()
    presented = api.proof(at=30)
    assert await accepted(api, presented)
    for second in range(130):
        api.clock.now = NOW + second + worker
        assert not await accepted(api, presented)


async def test_a_distant_future_does_not_fill_the_store() -> None:
    # Judged by its nonce, but a sibling that ignores nonces could accept it in the year 9999. The token, to
    # which it is bound by ath, is long gone by then.
    api = Api(nonce="required", expiry_is_final=True)
    api.server.with_policy(nonce="off")
    api.tokens.issue(api.key.jkt, expires_in=600)
    presented = api.proof(nonce=api.server_nonces.issue(NOW))
    assert await accepted(api, edited(api.key, presented, iat=253_402_300_799))
    assert api.store.entries[-1].expires_at == api.store.entries[-1].iat == NOW + 600 + 300


async def test_where_a_token_may_last_longer_no_proof_dies_with_it() -> None:
    api = Api(nonce="required")
    api.tokens.issue(api.key.jkt, expires_in=60)
    presented = edited(api.key, api.proof(nonce=api.server_nonces.issue(NOW)), iat=NOW + 3600)
    assert await accepted(api, presented)
    assert api.store.entries[-1].expires_at == NOW + 3600 + 90 + 5
    assert api.store.entries[-1].iat == NOW + 3600


@pytest.mark.parametrize(("ahead", "is_accepted"), [(86_400, True), (86_401, False)])
async def test_a_proof_that_must_be_remembered_for_more_than_a_day_is_refused(
    ahead: float, is_accepted: bool
) -> None:
    api = Api(nonce="required")
    presented = edited(api.key, api.proof(nonce=api.server_nonces.issue(NOW)), iat=NOW + ahead)
    assert await accepted(api, presented) is is_accepted
    if not is_accepted:
        assert api.events[-1].check is Check.IAT
        assert api.store.entries == []


async def test_with_any_verifier_a_token_ends_300_seconds_after_its_expiry() -> None:
    # Until then the store remembers its proofs.
    api = Api()
    api.tokens.issue(api.key.jkt, expires_in=-300)
    with pytest.raises(InvalidToken) as caught:
        await api.server.authenticate(api.request())
    assert (caught.value.check, caught.value.description) == (
        Check.TOKEN_TIME,
        "the access token has expired",
    )
    assert api.store.entries == []


@pytest.mark.parametrize("expires_in", [-299, 0, 30, 10_000])
async def test_a_verifier_that_is_wrong_about_expiry_shortens_nothing(expires_in: float) -> None:
    api = Api()
    api.tokens.issue(api.key.jkt, expires_in=expires_in)
    assert await accepted(api, api.proof(at=10))
    assert api.store.entries[-1].expires_at == NOW + 10 + 95


def test_without_a_provider_there_is_no_dated_nonce() -> None:
    assert dated_nonce(None, NOW, not_before=0) is None
