"""The list of the mutants that may survive, and the reason of each."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.mutants.mutations import Name

LIST = Path(__file__).with_name("survivors.toml")
# No test can distinguish an equivalent mutant from the original; a harmless one needs no test.
KINDS = ("equivalent", "harmless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A mutant that no test notices, as the list names it."""

    name: Name
    kind: str
    reason: str

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Read one table of the list."""
        if table["kind"] not in KINDS or not table["reason"].strip():
            raise ValueError(f"a survivor has a kind, {' or '.join(KINDS)}, and a reason: {table}")
        name = Name(table.get("scope", ""), table["was"], table["becomes"], table.get("nth", 1))
        return cls(name=name, kind=table["kind"], reason=table["reason"])


def listed(text: str | None = None) -> dict[Name, Survivor]:
    """The list, by the names of the mutants."""
    given = LIST.read_text(encoding="utf-8") if text is None else text
    survivors = [Survivor.of(table) for table in tomllib.loads(given).get("survivor", [])]
    return {survivor.name: survivor for survivor in survivors}


def gone(survivors: Iterable[Survivor], names: Iterable[Name]) -> list[Survivor]:
    """The entries of the list that match no current mutant: the code has changed since."""
    there = set(names)
    return [survivor for survivor in survivors if survivor.name not in there]
