"""Issuers that a resolver knows: looked up once for many requests, again in time, and bounded if unknown."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware import AccessToken, AccessTokenVerifier
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.tokens import named_issuers
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE, MAX_WAITING
from dpop_middleware.tokens.named_issuers import Limits, ResolvedIssuers


class Verifier:
    def __init__(self, *issuers: str) -> None:
        self.issuers = issuers

    async def verify(self, token: str) -> AccessToken:
        raise NotImplementedError


class Tenants:
    """A resolver that a test controls, with the clock of what it resolved."""

    def __init__(self, patch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.known: dict[str, Any] = {}
        self.asked: list[str] = []
        self.prepared: list[AccessTokenVerifier] = []
        self.fault: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.now = 1000.0
        patch.setattr(named_issuers, "time", SimpleNamespace(monotonic=lambda: self.now))
        limits: dict[str, Any] = {"max_issuers": 3, "lifetime": 300, "unknown_lifetime": 5, "timeout": 60}
        self.resolved = ResolvedIssuers(self.resolve, self.prepare, Limits(**limits | changes))

    async def resolve(self, issuer: str) -> AccessTokenVerifier | None:
        self.asked.append(issuer)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.known.get(issuer)

    def prepare(self, verifier: AccessTokenVerifier) -> AccessTokenVerifier:
        self.prepared.append(verifier)
        return verifier

    def add(self, *names: str) -> None:
        for name in names:
            self.known[name] = Verifier(name)


@pytest.fixture
def tenants(monkeypatch: pytest.MonkeyPatch) -> Tenants:
    found = Tenants(monkeypatch)
    found.add("a", "b")
    return found


async def test_a_known_issuer_is_looked_up_once(tenants: Tenants) -> None:
    for _ in range(3):
        assert await tenants.resolved.verifier("a") is tenants.known["a"]
    assert (tenants.asked, tenants.prepared) == (["a"], [tenants.known["a"]])


async def test_many_requests_share_one_look_up(tenants: Tenants) -> None:
    tenants.gate = asyncio.Event()
    asking = [asyncio.create_task(tenants.resolved.verifier("a")) for _ in range(500)]
    await asyncio.sleep(0)
    tenants.gate.set()
    assert await asyncio.gather(*asking) == [tenants.known["a"]] * 500
    assert tenants.asked == ["a"]


async def test_a_cancelled_request_does_not_affect_the_others(tenants: Tenants) -> None:
    tenants.gate = asyncio.Event()
    first = asyncio.create_task(tenants.resolved.verifier("a"))
    second = asyncio.create_task(tenants.resolved.verifier("a"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    tenants.gate.set()
    assert await second is tenants.known["a"]


async def test_a_look_up_that_is_cancelled_ends(tenants: Tenants) -> None:
    tenants.gate = asyncio.Event()
    request = asyncio.create_task(tenants.resolved.verifier("a"))
    while not tenants.asked:
        await asyncio.sleep(0)
    (look_up,) = asyncio.all_tasks() - {request, asyncio.current_task()}
    look_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert look_up.cancelled()


async def test_a_resolver_that_was_cancelled_inside_has_failed() -> None:
    loading, asked = asyncio.get_running_loop().create_future(), list[str]()

    async def resolver(issuer: str) -> AccessTokenVerifier | None:
        # All look-ups wait for one: the first that takes too long cancels it for all.
        asked.append(issuer)
        await loading
        raise AssertionError

    limits = Limits(max_issuers=3, lifetime=300, unknown_lifetime=5, timeout=60)
    resolved = ResolvedIssuers(resolver, lambda verifier: verifier, limits)
    asking = [asyncio.create_task(resolved.verifier(issuer)) for issuer in "abc"]
    while len(asked) < len(asking):
        await asyncio.sleep(0)
    loading.cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert [getattr(outcome, "actual", None) for outcome in outcomes] == ["CancelledError"] * 3


async def test_an_issuer_is_looked_up_again_after_its_lifetime(tenants: Tenants) -> None:
    first = await tenants.resolved.verifier("a")
    tenants.now += 299
    assert await tenants.resolved.verifier("a") is first
    assert tenants.asked == ["a"]
    tenants.now += 1
    assert await tenants.resolved.verifier("a") is first
    assert tenants.asked == ["a", "a"]
    # The same verifier keeps its caches; another one takes its place.
    assert tenants.prepared == [first]
    tenants.add("a")
    tenants.now += 300
    assert await tenants.resolved.verifier("a") is tenants.known["a"] is not first


async def test_an_issuer_that_was_removed_is_no_longer_trusted(tenants: Tenants) -> None:
    assert await tenants.resolved.verifier("a") is not None
    del tenants.known["a"]
    tenants.now += 300
    assert await tenants.resolved.verifier("a") is None
    assert await tenants.resolved.verifier("a") is None
    assert tenants.asked == ["a", "a"]


async def test_an_unknown_issuer_is_remembered_for_a_while(tenants: Tenants) -> None:
    for _ in range(3):
        assert await tenants.resolved.verifier("x") is None
    assert tenants.asked == ["x"]
    tenants.add("x")
    tenants.now += 5
    assert await tenants.resolved.verifier("x") is tenants.known["x"]


async def test_it_says_whether_the_resolver_would_be_asked(tenants: Tenants) -> None:
    resolved = tenants.resolved
    assert [resolved.would_ask(issuer) for issuer in ("a", "x")] == [True, True]
    assert resolved.held("a") is None
    first = await resolved.verifier("a")
    assert await resolved.verifier("x") is None
    assert [resolved.would_ask(issuer) for issuer in ("a", "x")] == [False, False]
    assert (resolved.held("a"), resolved.held("x")) == (first, None)
    tenants.now += 5
    assert [resolved.would_ask(issuer) for issuer in ("a", "x")] == [False, True]
    tenants.now += 295
    assert resolved.would_ask("a")


async def test_no_more_issuers_are_kept_than_allowed(tenants: Tenants) -> None:
    tenants.add("c", "d")
    for name in "abcd":
        await tenants.resolved.verifier(name)
    assert await tenants.resolved.verifier("d") is not None
    assert tenants.asked == ["a", "b", "c", "d"]
    await tenants.resolved.verifier("a")
    assert tenants.asked[4:] == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        Verifier,
        "a",
        1,
        object(),
        Verifier(),
        Verifier("b"),
        SimpleNamespace(verify=print),
        SimpleNamespace(verify=print, issuers="cab"),
    ],
    ids=["class", "str", "int", "object", "no issuer", "another issuer", "no issuers", "issuers as one text"],
)
async def test_a_value_that_is_no_verifier_for_the_issuer_verifies_nothing(
    tenants: Tenants, wrong: Any
) -> None:
    tenants.known["a"] = wrong
    with pytest.raises(Unavailable) as caught:
        await tenants.resolved.verifier("a")
    assert caught.value.check is Check.TOKEN_ISS
    assert isinstance(caught.value.__cause__, ConfigurationError)


# The second one: something that it awaits was cancelled, for another request for instance.
@pytest.mark.parametrize("fault", [OSError("the database is away"), asyncio.CancelledError()])
async def test_a_resolver_that_fails_is_503(tenants: Tenants, fault: BaseException) -> None:
    tenants.fault = fault
    with pytest.raises(Unavailable) as caught:
        await tenants.resolved.verifier("a")
    assert (caught.value.actual, caught.value.__cause__) == (type(fault).__name__, fault)
    # It may be a tenant's: while made-up issuers aren't most, none is refused like one that isn't trusted.
    for number in range(2 * MAX_UNAVAILABLE):
        with pytest.raises(Unavailable):
            await tenants.resolved.verifier(f"a{number}")
    tenants.fault = None
    tenants.now += 1
    assert await tenants.resolved.verifier("a") is tenants.known["a"]


async def test_an_expired_verifier_is_not_used_while_the_resolver_fails(tenants: Tenants) -> None:
    await tenants.resolved.verifier("a")
    tenants.now += 300
    tenants.fault = OSError()
    # All of a tenant's own clients get 503, however many they are.
    for _ in range(2 * MAX_UNAVAILABLE):
        with pytest.raises(Unavailable):
            await tenants.resolved.verifier("a")


async def test_a_resolver_that_hangs_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = Tenants(monkeypatch, timeout=0.1)
    tenants.gate = asyncio.Event()
    with pytest.raises(Unavailable) as caught:
        await tenants.resolved.verifier("a")
    assert caught.value.actual == "TimeoutError"


async def test_where_most_issuers_are_made_up_a_resolver_that_fails_is_503_a_bounded_number_of_times(
    tenants: Tenants,
) -> None:
    for number in range(50):
        assert await tenants.resolved.verifier(f"https://{number}.example") is None
    tenants.fault = OSError("the database is away")
    tenants.now += 1
    for number in range(MAX_UNAVAILABLE):
        with pytest.raises(Unavailable):
            await tenants.resolved.verifier(f"https://other-{number}.example")
    tenants.now += 0.05
    assert await tenants.resolved.verifier("https://one-more.example") is None
    assert tenants.asked[-1] == "https://one-more.example"


async def test_tenants_are_looked_up_at_any_rate(tenants: Tenants) -> None:
    names = [f"tenant-{number}" for number in range(1000)]
    tenants.add(*names)
    assert [await tenants.resolved.verifier(name) for name in names] == [*map(tenants.known.get, names)]


async def test_of_tenants_that_come_at_once_none_is_taken_for_a_made_up_issuer(tenants: Tenants) -> None:
    names = [f"tenant-{number}" for number in range(1000)]
    tenants.add(*names)
    found = await asyncio.gather(*map(tenants.resolved.verifier, names), return_exceptions=True)
    assert {type(one) for one in found} == {Verifier, Unavailable}
    assert sum(isinstance(one, Verifier) for one in found) == named_issuers.LOOKUPS


async def test_made_up_issuers_are_looked_up_at_a_bounded_rate(tenants: Tenants) -> None:
    await tenants.resolved.verifier("a")
    verdicts: list[object] = []
    for number in range(10_000):
        try:
            verdicts.append(await tenants.resolved.verifier(f"https://{number}.example"))
        except Unavailable:
            verdicts.append("503")
    assert len(tenants.asked) == 1 + named_issuers.LOOKUPS, "the tenant's doesn't count"
    # The excess gets a bounded number of 503s; after that it is refused like an unknown issuer.
    assert verdicts.count("503") == MAX_UNAVAILABLE
    assert set(verdicts) == {None, "503"}
    # No tenant is evicted, and none waits: not even one that must be looked up again.
    assert await tenants.resolved.verifier("a") is tenants.known["a"]
    tenants.now += 300
    for number in range(200):
        try:
            await tenants.resolved.verifier(f"https://again-{number}.example")
        except Unavailable:
            continue
    assert await tenants.resolved.verifier("a") is tenants.known["a"]
    tenants.now += 1
    assert await tenants.resolved.verifier("b") is tenants.known["b"]


async def test_no_more_requests_wait_than_there_are_places(tenants: Tenants) -> None:
    tenants.gate = asyncio.Event()
    waiting = [asyncio.create_task(tenants.resolved.verifier("a")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await tenants.resolved.verifier("a")
    assert caught.value.actual == "TimeoutError"
    tenants.gate.set()
    assert set(await asyncio.gather(*waiting)) == {tenants.known["a"]}


def test_each_event_loop_asks_for_itself(tenants: Tenants) -> None:
    for _ in range(2):
        assert asyncio.run(tenants.resolved.verifier("a")) is tenants.known["a"]
    assert tenants.asked == ["a"]
