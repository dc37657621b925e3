"""A run is judged by its survivors, each of which the list knows with a reason."""

import pytest

from tests.mutants.__main__ import described, findings, shares
from tests.mutants.mutations import Mutant, Name, mutants_of
from tests.mutants.survivors import Survivor, gone, listed
from tests.mutants.trial import Verdict

MUTANTS = mutants_of(
    "dpop_middleware/module.py", b"A = 1\n" + b"\n".join(b"B%d = %d" % (n, n) for n in range(60))
)


def verdicts(survived: int, *, of: int = 100) -> list[Verdict]:
    return [
        Verdict(mutant=mutant, killed=number >= survived, by="tests/a.py::test", tests=1, seconds=0.1)
        for number, mutant in enumerate(MUTANTS[:of])
    ]


def known(kind: str, *mutants: Mutant) -> dict[Name, Survivor]:
    return {one.name: Survivor(name=one.name, kind=kind, reason="for a reason") for one in mutants}


def test_a_run_that_kills_all_is_good() -> None:
    assert findings(verdicts(0), {}) == []


def test_a_survivor_that_is_not_listed_is_found() -> None:
    (found,) = findings(verdicts(1), {})
    assert found == f"survived, and is not listed: {described(MUTANTS[0])}"


def test_three_listed_of_a_hundred_are_good_and_four_are_not() -> None:
    assert findings(verdicts(3), known("harmless", *MUTANTS[:3])) == []
    assert findings(verdicts(4), known("harmless", *MUTANTS[:4])) == ["96 of 100 were killed: less than 97%"]


def test_equivalent_mutants_are_not_counted() -> None:
    equivalent = known("equivalent", *MUTANTS[:4])
    assert findings(verdicts(4), equivalent) == []
    assert shares(verdicts(4), equivalent) == (96, 96)


def test_a_listed_mutant_that_is_killed_is_found() -> None:
    (found,) = findings(verdicts(0), known("equivalent", MUTANTS[0]))
    assert found.startswith("killed, and listed as a survivor: ")


def test_the_list_reads_the_output_of_a_run() -> None:
    printed = described(MUTANTS[0]).partition("\n")[2]
    (read,) = listed(f"{printed}\nkind = 'harmless'\nreason = 'for a reason'\n").values()
    assert read.name == MUTANTS[0].name


@pytest.mark.parametrize("rest", ["kind = 'harmless'\nreason = ' '", "kind = 'unknown'\nreason = 'a reason'"])
def test_a_survivor_without_a_kind_or_a_reason_is_refused(rest: str) -> None:
    printed = described(MUTANTS[0]).partition("\n")[2]
    with pytest.raises(ValueError, match="a survivor has a kind"):
        listed(f"{printed}\n{rest}\n")


def test_the_list_names_each_once() -> None:
    from tests.mutants.survivors import LIST

    assert len(listed()) == LIST.read_text(encoding="utf-8").count("[[survivor]]")


def test_an_entry_whose_code_was_changed_is_found() -> None:
    entries = known("equivalent", *MUTANTS[:2]).values()
    assert [one.name for one in gone(entries, [MUTANTS[0].name])] == [MUTANTS[1].name]
