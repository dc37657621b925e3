"""What two looks at a server show of its clock and its evictions, and when the next one is due."""

import math

import pytest
from redis.exceptions import InvalidResponse

from dpop_middleware.replay.redis.clocks import Looks, is_behind, time_shown
from dpop_middleware.replay.redis.resp import command


def look(
    looks: Looks, sent: float, answered: float, told: float | None, evicted: int = 0
) -> tuple[bool, bool]:
    looks.question(sent, by_sections=True)
    looks.answered(answered)
    return looks.note("a", evicted=evicted, shown=told)


def test_an_event_loop_that_was_blocked_is_no_step() -> None:
    looks = Looks()
    assert look(looks, 0, 0.1, 1000.0) == (False, False)
    assert look(looks, 10, 13.0, 1012.9) == (False, False)
    assert look(looks, 20, 20.1, 1020.0) == (False, False)


@pytest.mark.parametrize(("told", "steps"), [(1012.0, False), (1012.1, True), (1110.0, True), (900.0, False)])
def test_a_step_is_more_than_a_clock_shows_that_is_being_corrected(told: float, steps: bool) -> None:
    looks = Looks()
    look(looks, 0, 0.1, 1000.0)
    assert look(looks, 10, 10.1, told) == (False, steps)


def test_a_clock_that_shows_exactly_what_one_may_that_is_being_corrected_has_not_stepped() -> None:
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    assert not looks.steps("a", 1013.0, sent=11, received=11)


@pytest.mark.parametrize(("ahead", "steps"), [(6.4, False), (6.5, True), (30.0, True)])
def test_what_is_put_down_to_a_correction_does_not_grow_with_the_time_between_two_looks(
    ahead: float, steps: bool
) -> None:
    """Entries of other workers are younger, and allow only for what happened since."""
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    assert looks.steps("a", 1600.0 + ahead, sent=600, received=600) is steps


def test_each_step_is_told_once() -> None:
    looks = Looks()
    look(looks, 0, 0.1, 1000.0)
    assert looks.steps("a", 1100.0, sent=0.2, received=0.3)
    assert not looks.steps("a", 1100.1, sent=0.3, received=0.4)
    assert looks.steps("a", 1200.0, sent=0.4, received=0.5)


def test_small_steps_within_a_second_add_up() -> None:
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    assert not looks.steps("a", 1000.8, sent=0.2, received=0.2)
    assert looks.steps("a", 1001.6, sent=0.4, received=0.4)


def test_small_steps_within_a_minute_add_up_to_what_a_clock_gains_that_is_being_corrected() -> None:
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    steps = [looks.steps("a", 1000.0 + second * 1.9, sent=second, received=second) for second in range(1, 25)]
    # From each of them on it counts anew.
    assert [second for second, step in enumerate(steps, start=1) if step] == [8, 16, 24]


def test_what_a_clock_gained_counts_for_a_minute() -> None:
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    assert not looks.steps("a", 1066.0, sent=60, received=60)
    # By 6.75 seconds since the beginning, but by 0.75 since then.
    assert not looks.steps("a", 1067.75, sent=61, received=61)


def test_a_clock_that_is_being_corrected_for_hours_has_not_stepped() -> None:
    looks = Looks()
    look(looks, 0, 0.0, 1000.0)
    for second in range(1, 10_000):
        assert not looks.steps("a", 1000.0 + second * 13 / 12, sent=second, received=second)


def test_another_server_has_another_clock_and_counts_anew() -> None:
    looks = Looks()
    look(looks, 0, 0.1, 1000.0, evicted=5)
    looks.connected(1, 1.1)
    assert looks.note("b", evicted=9, shown=5000.0) == (True, False)
    assert looks.note("b", evicted=9, shown=5000.0) == (False, False)
    # One that once doesn't report its time is compared with the time that it reported before.
    assert looks.note("b", evicted=10, shown=None) == (True, False)
    assert looks.note("b", evicted=10, shown=9000.0) == (False, True)


def test_the_server_is_asked_once_a_second_and_an_old_one_for_everything() -> None:
    looks = Looks()
    assert looks.question(10, by_sections=True) == command(
        b"INFO", b"server", b"replication", b"stats", b"commandstats"
    )
    looks.answered(10.1)
    assert looks.due > 11
    assert looks.due <= 11.2
    looks.hurry()
    assert looks.due < 10
    assert looks.question(11.2, by_sections=False) == command(b"INFO", b"all")


@pytest.mark.parametrize("later", [0.2, 59.8])
def test_a_step_back_that_is_undone_is_a_step_forward(later: float) -> None:
    looks = Looks()
    look(looks, 100, 100.1, 1000.0)
    assert not looks.steps("a", 900.2, sent=100.2, received=100.3)
    # Entries of that moment expire when the clock is right again.
    assert looks.steps("a", 1000.2 + later, sent=100.2 + later, received=100.3 + later)


@pytest.mark.parametrize(("evicted", "evicts"), [(4, True), (5, False), (0, False), (1, True), (6, True)])
def test_a_server_that_counts_evictions_anew_has_evicted_as_many(evicted: int, evicts: bool) -> None:
    looks = Looks()
    look(looks, 0, 0.1, 1000.0, evicted=5)
    assert look(looks, 2, 2.1, 1002.0, evicted=evicted) == (evicts, False)


def test_a_time_is_read_as_text_or_as_numbers() -> None:
    assert time_shown([b"1000", b"500000"]) == time_shown([1000, 500000]) == 1000.5


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"1000",
        [],
        [b"1000"],
        [b"1000", 5],
        [b"-1", b"5"],
        [b"", b"5"],
        [b"1000", None],
        [b"9" * 5000, b"5"],
        [b"9" * 400, b"5"],
        [10**400, 5],
        [1000, 10**400],
    ],
)
def test_what_is_no_time_puts_the_connection_in_doubt(reply: object) -> None:
    with pytest.raises(InvalidResponse, match="^the server sent an unexpected reply to TIME$"):
        time_shown(reply)


def test_a_time_of_too_many_digits_is_given_as_the_cause() -> None:
    with pytest.raises(InvalidResponse) as caught:
        time_shown([b"9" * 5000, b"5"])
    assert isinstance(caught.value.__cause__, ValueError)


def test_how_far_a_clock_is_ahead_lies_between_what_the_question_and_its_answer_show() -> None:
    looks = Looks()
    assert looks.ahead == (-math.inf, math.inf)
    look(looks, 10.0, 10.5, None)
    assert looks.ahead == (-math.inf, math.inf)
    look(looks, 20.0, 20.5, 1020.25)
    assert looks.ahead == (999.75, 1000.25)


@pytest.mark.parametrize(
    ("other", "behind"), [(1001.2, True), (1001.0, False), (999.0, False), (-math.inf, False)]
)
def test_a_clock_is_behind_where_entries_that_come_from_it_expire_too_early(
    other: float, behind: bool
) -> None:
    assert is_behind(1000.0, other) is behind
    assert not is_behind(math.inf, other)


@pytest.mark.parametrize(("told", "is_watched"), [(1010.0, False), (1008.17, False), (1008.16, True)])
def test_a_clock_that_was_set_back_is_watched_for_an_hour(told: float, is_watched: bool) -> None:
    """One that is being corrected may be slow by a twelfth."""
    looks = Looks()
    assert looks.patience(0, None) is None
    look(looks, 0, 0.0, 1000.0)
    assert looks.patience(0, None) is None
    assert look(looks, 10, 10.0, told) == (False, False)
    assert looks.patience(10 + 3599, None) == (1.0 if is_watched else None)
    assert looks.patience(10 + 3600, None) is None


@pytest.mark.parametrize(("shown", "is_watched"), [(1008.17, False), (1008.16, True), (1200.0, False)])
def test_a_clock_that_is_behind_the_replaced_servers_is_watched_for_an_hour(
    shown: float, is_watched: bool
) -> None:
    looks = Looks()
    looks.steps("a", 1000.0, sent=0, received=0)
    assert not looks.steps("b", shown, sent=10, received=10)
    assert looks.patience(10 + 3599, None) == (1.0 if is_watched else None)
    assert looks.patience(10 + 3600, None) is None


@pytest.mark.parametrize(("offset", "is_watched"), [(1005.0, False), (1005.1, True), (900.0, False)])
def test_a_clock_that_is_behind_the_entries_is_watched_as_long_as_it_is(
    offset: float, is_watched: bool
) -> None:
    looks = Looks()
    assert looks.patience(0, offset) is None
    looks.steps("a", 1000.0, sent=0, received=0.5)
    assert looks.patience(10_000, offset) == (1.0 if is_watched else None)
    looks.can_ask = False
    assert looks.patience(10_000, offset) is None
    looks.can_ask = True
    looks.steps("a", 11_001.5, sent=10_000, received=10_000)
    assert looks.patience(10_000, offset) is None


def test_a_reply_that_came_late_is_no_clock_that_was_set_back() -> None:
    looks = Looks()
    look(looks, 0, 5.0, 1004.9)
    look(looks, 10, 10.1, 1010.0)
    assert looks.patience(10.1, None) is None
    look(looks, 20, 25.0, 1020.0)
    assert looks.patience(25.0, None) is None
