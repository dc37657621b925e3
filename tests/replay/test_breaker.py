import pytest

from dpop_middleware.replay.breaker import CircuitBreaker


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.failed(0.0)
    breaker.failed(0.0)
    return breaker


def test_one_failure_opens_nothing() -> None:
    breaker = CircuitBreaker()
    breaker.failed(0.0)
    assert not breaker.is_open
    assert not breaker.refuses(0.0)


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.failed(0.0)
        breaker.succeeded()
    assert not breaker.is_open


def test_the_breaker_opens_and_lets_one_request_through_after_the_pause() -> None:
    breaker = opened()
    assert breaker.is_open
    assert breaker.refuses(0.0)
    assert breaker.refuses(0.099)
    assert not breaker.refuses(0.1)
    assert not breaker.is_open
    assert breaker.refuses(0.1)
    assert breaker.refuses(50.0)


def test_to_ask_whether_a_request_would_be_refused_changes_nothing() -> None:
    breaker = opened()
    assert [breaker.would_refuse(time) for time in (0.0, 0.1, 0.1)] == [True, False, False]
    breaker.let_through(0.1)
    assert breaker.would_refuse(0.1)
    breaker.succeeded()
    breaker.let_through(0.1)
    assert not breaker.would_refuse(0.1)


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    breaker = opened()
    assert not breaker.refuses(0.1)
    breaker.succeeded()
    assert not breaker.refuses(0.1)
    assert not breaker.refuses(0.1)


def test_pauses_double_up_to_the_longest() -> None:
    breaker = opened()
    time, pauses = 0.0, []
    for _ in range(5):
        start = time
        while breaker.refuses(time):
            time += 0.01
        pauses.append(time - start)
        breaker.failed(time)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4], abs=0.02)


def test_the_first_pause_is_short_again_after_a_success() -> None:
    breaker = opened()
    assert not breaker.refuses(1.0)
    breaker.failed(1.0)
    assert not breaker.refuses(2.0)
    breaker.succeeded()
    breaker.failed(3.0)
    breaker.failed(3.0)
    assert breaker.refuses(3.09)
    assert not breaker.refuses(3.1)


def test_a_probe_that_was_never_sent_makes_room_for_another() -> None:
    breaker = opened()
    assert not breaker.refuses(0.1)
    breaker.abandoned()
    assert not breaker.refuses(0.1)


def test_a_probe_without_a_result_for_too_long_counts_as_lost() -> None:
    breaker = CircuitBreaker(threshold=1, longest_probe=5.0)
    breaker.failed(0.0)
    assert not breaker.refuses(0.1)
    assert breaker.refuses(5.0)
    assert not breaker.refuses(5.2), "this is the probe now"
    assert breaker.refuses(10.0)
    breaker.failed(10.0)
    assert breaker.refuses(10.1)
    assert not breaker.refuses(10.3)


def test_the_longest_pause_and_one_request_take_less_than_a_second() -> None:
    breaker = opened()
    for time in range(1, 10):
        breaker.refuses(float(time))
        breaker.failed(float(time))
    assert not breaker.refuses(9.0 + 1.0 - 0.25)
