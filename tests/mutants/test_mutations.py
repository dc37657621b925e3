"""Mutants are programs, and differ from the file in one place that has behaviour."""

import pytest

from tests.mutants.mutations import Mutant, mutants_of, sample

SOURCE = b'''\
"""A module."""

from typing import TYPE_CHECKING, Final, cast, overload

if TYPE_CHECKING:
    import never

__all__ = ["checked"]
LIMIT: Final[int | None] = 8
Number = int | float


@overload
def checked(size: int) -> int: ...
@overload
def checked(size: str) -> str: ...
def checked(size: "int | str") -> "int | str":
    """A function."""
    if (size is None or
            size == 3):
        raise ValueError("a sentence of several words")
    return cast("int | str", (not size) + 1)
'''


def changes(source: bytes = SOURCE) -> set[tuple[str, str]]:
    found = [mutant for mutant in mutants_of("module.py", source) if mutant.differs(source)]
    return {(mutant.name.scope, " ".join(mutant.text.split())) for mutant in found}


def test_conditions_statements_and_values_are_changed() -> None:
    assert {
        ("", "LIMIT: Final[int | None] = None"),
        ("", "9"),
        ("checked", "not ((size is None or size == 3))"),
        ("checked", "size is None and size == 3"),
        ("checked", "4"),
        ("checked", "pass"),
        ("checked", "return None"),
        ("checked", "size"),
        ("checked", '"XXa sentence of several wordsXX"'),
    } <= changes()


def test_code_without_behaviour_is_not_mutated() -> None:
    texts = {text for _, text in changes()}
    assert not [text for text in texts if "XXcheckedXX" in text or "int & " in text or "A function" in text]
    assert not [text for text in texts if "XXint" in text or "never" in text]


def test_slots_are_left_alone_and_what_stands_beside_them_is_not() -> None:
    found = {text for _, text in changes(b"@dataclass(frozen=True, slots=True)\nclass A:\n    size: int\n")}
    assert "False" in found
    assert not [text for text in found if "slots=True" not in text and text != "False"]


def test_each_mutant_changes_what_its_name_says() -> None:
    for mutant in mutants_of("module.py", SOURCE):
        changed = " ".join(mutant.applied_to(SOURCE).decode().split())
        assert mutant.name.becomes in changed
        assert len(mutant.applied_to(SOURCE)) == len(SOURCE) - mutant.length + len(mutant.text.encode())


def test_a_sample_is_the_same_for_a_seed_and_has_one_mutant_of_a_place() -> None:
    everything = mutants_of("module.py", SOURCE)
    sources = {"module.py": SOURCE}
    first = sample(everything, sources, size=6, seed="a")
    assert first == sample(reversed(everything), sources, size=6, seed="a")
    assert first != sample(everything, sources, size=6, seed="b")
    assert len({(mutant.start, mutant.length) for mutant in first}) == 6
    assert len(sample(everything, sources, size=None, seed="a")) > len(
        sample(everything, sources, size=99, seed="a")
    )


def test_a_change_elsewhere_moves_no_mutant_in_the_order() -> None:
    def order(source: bytes) -> list[tuple[str, str]]:
        mutants = [mutant for mutant in mutants_of("module.py", source) if mutant.name.scope == "checked"]
        ranked: list[Mutant] = sorted(mutants, key=lambda mutant: mutant.rank("a"))
        return [(mutant.name.was, mutant.name.becomes) for mutant in ranked]

    assert order(SOURCE) == order(SOURCE.replace(b"LIMIT", b"# More.\n\nBOUND"))


@pytest.mark.parametrize("source", [b"x = 1.0\n", b"x = (1,)\n", b"def f():\n    return (a or b)\n"])
def test_brackets_around_a_place_stay(source: bytes) -> None:
    mutants = mutants_of("module.py", source)
    assert mutants
    for mutant in mutants:
        compile(mutant.applied_to(source), "module.py", "exec")


def test_two_places_that_look_alike_have_two_names() -> None:
    source = b"def f():\n    g(1)\n    h()\n    g(1)\n"
    names = [mutant.name for mutant in mutants_of("module.py", source) if mutant.text == "pass"]
    assert [(name.was, name.nth) for name in names] == [("g(1)", 1), ("h()", 1), ("g(1)", 2)]
