"""The README's and the chapters' blocks of code, by document, heading and language."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CHAPTERS", "ROOT", "Block", "blocks", "text_of"]

ROOT = Path(__file__).parents[2]
CHAPTERS = tuple(sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/README.md")))


@dataclass(frozen=True)
class Block:
    """One fenced block: document, heading above it, language, first line's number, text."""

    document: str
    heading: str
    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, where its first line says so."""
        match = re.match(r"# (\w+\.py)\n", self.text)
        return None if match is None else match[1]


def text_of(document: str) -> str:
    """The text of a document, by its path below the checkout."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(language: str, document: str = "README.md") -> list[Block]:
    """The blocks of one language in `document`, `""` for those that name none."""
    found: list[Block] = []
    heading, fence, start = "", None, 0
    lines = text_of(document).split("\n")
    for number, line in enumerate(lines):
        if fence is None and (match := re.match(r"#+ (.*)", line)):
            heading = match[1]
        if not line.startswith("```"):
            continue
        if fence is None:
            fence, start = line.removeprefix("```"), number + 1
            continue
        if fence == language:
            text = "\n".join(lines[start:number]) + "\n"
            found.append(Block(document, heading, fence, start + 1, text))
        fence = None
    return found
