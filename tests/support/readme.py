"""The README's blocks of code, by heading and language."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["README", "Block", "blocks"]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """One fenced block: the heading above it, its language, its first line's number, its text."""

    heading: str
    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, where its first line says so."""
        match = re.match(r"# (\w+\.py)\n", self.text)
        return None if match is None else match[1]


def blocks(language: str) -> list[Block]:
    """The blocks of one language, `""` for those that name none."""
    found: list[Block] = []
    heading, fence, start = "", None, 0
    lines = README.split("\n")
    for number, line in enumerate(lines):
        if fence is None and (match := re.match(r"#+ (.*)", line)):
            heading = match[1]
        if not line.startswith("```"):
            continue
        if fence is None:
            fence, start = line.removeprefix("```"), number + 1
            continue
        if fence == language:
            found.append(Block(heading, fence, start + 1, "\n".join(lines[start:number]) + "\n"))
        fence = None
    return found
