"""Proof headers that were accepted before."""

from dpop_middleware._proof.known_clients import KnownClients
from dpop_middleware._proof.proof import ProofHeader, parse_header
from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import SUPPORTED_ALGORITHMS


def header() -> tuple[str, ProofHeader]:
    segment = DPoPKey.generate().proof("GET", "https://api.example.test/").split(".")[0]
    return segment, parse_header(segment, SUPPORTED_ALGORITHMS)


def test_the_very_segment_with_the_very_token_is_known() -> None:
    (segment, parsed), (other, _) = header(), header()
    known = KnownClients(max_clients=2)
    known.remember(parsed, ath="token", segment=segment)
    assert known.header(ath="token", segment=segment) is parsed
    assert known.header(ath="token", segment=other) is None
    assert known.header(ath="another", segment=segment) is None


def test_a_token_has_one_header_the_last() -> None:
    (segment, parsed), (other, other_parsed) = header(), header()
    known = KnownClients(max_clients=1)
    known.remember(parsed, ath="token", segment=segment)
    known.remember(other_parsed, ath="token", segment=other)
    assert known.header(ath="token", segment=segment) is None
    assert known.header(ath="token", segment=other) is other_parsed


def test_a_known_header_is_not_replaced_by_its_double() -> None:
    segment, parsed = header()
    known = KnownClients(max_clients=1)
    known.remember(parsed, ath="token", segment=segment)
    known.remember(parse_header(segment, SUPPORTED_ALGORITHMS), ath="token", segment=segment)
    assert known.header(ath="token", segment=segment) is parsed


def test_the_one_not_used_for_longest_goes_first() -> None:
    segment, parsed = header()
    known = KnownClients(max_clients=2)
    for ath in ("one", "two", "one", "three"):
        known.remember(parsed, ath=ath, segment=segment)
    held = [ath for ath in ("one", "two", "three") if known.header(ath=ath, segment=segment)]
    assert held == ["one", "three"]
