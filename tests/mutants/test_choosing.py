"""Tests that run a mutant's line try it: its module's own first, then each file in turn."""

from tests.mutants.choosing import FIRST, candidates, stages
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.recording import Recording

SOURCE = b"LIMIT = 8\n\n\ndef checked(size):\n    return size > LIMIT\n"
OWN, OTHER, ANOTHER = "tests/jose/test_jwk.py", "tests/test_a.py", "tests/test_b.py"


def mutant(line: int) -> Mutant:
    return next(one for one in mutants_of("dpop_middleware/jose/jwk.py", SOURCE) if one.first == line)


def recording(*tests: str, line: int = 5, seconds: float = 0.1) -> Recording:
    taken = {test: seconds + number / 1000 for number, test in enumerate(tests)} | {
        "tests/test_c.py::test_x": 0.1
    }
    return Recording(lines={"dpop_middleware/jose/jwk.py": {line: frozenset(tests)}}, seconds=taken)


def test_a_line_of_a_function_is_tried_by_the_tests_that_run_it() -> None:
    assert candidates(mutant(5), recording(f"{OTHER}::test_1")) == {f"{OTHER}::test_1"}


def test_code_that_acts_at_import_is_tried_by_all_tests_that_run_the_module() -> None:
    assert candidates(mutant(1), recording(f"{OTHER}::test_1")) == {f"{OTHER}::test_1"}


def test_code_that_acts_at_import_is_tried_by_its_module_s_own_tests_that_only_look() -> None:
    known = recording(f"{OTHER}::test_1")
    looking = Recording(lines=known.lines, seconds={**known.seconds, f"{OWN}::test_1": 0.1})
    assert candidates(mutant(1), looking) == {f"{OTHER}::test_1", f"{OWN}::test_1"}
    assert candidates(mutant(5), looking) == {f"{OTHER}::test_1"}


def test_code_that_no_test_runs_is_tried_by_all() -> None:
    nothing = Recording(lines={}, seconds={"tests/test_c.py::test_x": 0.1})
    assert candidates(mutant(1), nothing) == {"tests/test_c.py::test_x"}


def test_the_module_s_own_tests_are_first_and_then_each_file_has_its_turn() -> None:
    tests = [f"{OTHER}::test_1", f"{OTHER}::test_2", f"{ANOTHER}::test_1", f"{OWN}::test_1"]
    first, second = stages(mutant(5), recording(*tests))
    assert first == [f"{OWN}::test_1", f"{OTHER}::test_1", f"{ANOTHER}::test_1", f"{OTHER}::test_2"]
    assert not second


def test_a_neighbour_s_tests_come_before_those_of_other_folders() -> None:
    near = ["tests/jose/test_z.py::test_1", "tests/jose/test_z.py::test_2"]
    first, _ = stages(mutant(5), recording(f"{OTHER}::test_1", *near))
    assert first == [*near, f"{OTHER}::test_1"]


def test_a_test_that_only_looks_at_the_module_comes_last() -> None:
    known = recording(f"{OTHER}::test_1")
    looking = Recording(lines=known.lines, seconds={**known.seconds, f"{OWN}::test_looks": 0.1})
    first, _ = stages(mutant(5), looking)
    assert first == [f"{OTHER}::test_1", f"{OWN}::test_looks"]


def test_the_first_part_ends_in_time_and_the_second_has_what_is_left() -> None:
    tests = [f"{OTHER}::test_{number}" for number in range(10)]
    first, second = stages(mutant(5), recording(*tests, seconds=FIRST[0] / 3))
    assert (len(first), len(second)) == (2, 8)
