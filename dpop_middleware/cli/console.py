"""The common parts of all subcommands, and the output of the command.

Colours are used on a terminal only, and text from outside is always escaped.
"""

import contextlib
import json
import math
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, TextIO

from dpop_middleware._log import escaped

__all__ = ["PRIVATE_KEY", "Command", "CommandError", "Console", "FindingState", "printable"]

_Style = Literal["bold", "dim", "green", "red"]


class FindingState(StrEnum):
    """The result of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not reached"
    NOT_JUDGED = "not judged"


_NOT_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_CODES: Final[Mapping[_Style, str]] = {"bold": "1", "dim": "2", "green": "32", "red": "31"}
_MARKS: Final[Mapping[FindingState, tuple[str, str, _Style]]] = {
    FindingState.PASSED: ("✓", "ok", "green"),
    FindingState.FAILED: ("✗", "NO", "red"),
    FindingState.NOT_REACHED: ("·", ".", "dim"),
    FindingState.NOT_JUDGED: ("?", "?", "dim"),
}
PRIVATE_KEY = "a private key, JWK or PEM: the name of a file, or - for standard input"


class CommandError(Exception):
    """An error that the user can correct, in one sentence.

    `status` is the exit status: 2 for a usage error, 3 where a server or keys can't be reached.
    """

    def __init__(self, message: str, *, status: Literal[2, 3] = 2) -> None:
        super().__init__(message)
        self.status = status


def printable(text: str) -> str:
    """Return `text` on one line of printable ASCII, so that it can't control the terminal."""
    return _NOT_PRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


@contextlib.contextmanager
def _writing() -> Generator[None]:
    """Turns an error of the output into one that the user can correct, except for a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"standard output can't be written: {error.strerror}") from error


class Console:
    """Standard output and error of one run of the command; `environ` are its environment variables."""

    def __init__(self, out: TextIO, err: TextIO, *, environ: Mapping[str, str]) -> None:
        self._out = out
        self._err = err
        self._styled = out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._moves = err.isatty() and environ.get("TERM") != "dumb"
        self._has_marks = _can_say(out, "".join(mark for mark, _, _ in _MARKS.values()))

    def line(self, text: str = "", *, style: _Style | None = None) -> None:
        """Write a line to standard output; `text` must be the command's own, or escaped by `printable`."""
        with _writing():
            self._out.write(f"{text if style is None else self.styled(text, style)}\n")

    def json(self, value: Any) -> None:
        """Write `value` to standard output as JSON, in ASCII; a number that isn't finite is null."""
        text = json.dumps(_finite(value), indent=2, default=escaped, allow_nan=False)
        with _writing():
            self._out.write(f"{text}\n")

    def note(self, text: str) -> None:
        """Write a line to standard error, so that a pipe receives results only."""
        # If standard error can't be written, the failure can't be reported.
        with contextlib.suppress(OSError):
            self._err.write(f"{printable(text)}\n")

    def progress(self, text: str) -> None:
        """Show `text` on the last line of a terminal, in place of the previous one; empty to remove it.

        It does nothing if standard error isn't a terminal.
        """
        if self._moves:
            self._err.write(f"\r\x1b[K{printable(text)}")
            self._err.flush()

    def flush(self) -> None:
        """Flush standard output; raises BrokenPipeError when the reader has closed the pipe."""
        with _writing():
            self._out.flush()

    def styled(self, text: str, style: _Style) -> str:
        """Return `text` in `style` on a terminal that shows styles, otherwise `text`."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._styled else text

    def mark(self, outcome: FindingState) -> str:
        """Return the mark for `outcome`, such as a tick or a cross, two characters wide."""
        mark, spelled, style = _MARKS[outcome]
        return self.styled(f"{mark if self._has_marks else spelled:<2}", style)


def _finite(value: Any) -> Any:
    """Return `value` as JSON can represent it (RFC 8259 section 6)."""
    if isinstance(value, Mapping):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _can_say(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or sys.getdefaultencoding())
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand: its name, the texts for `--help`, its arguments, and its function.

    `run` returns the exit status, or raises CommandError.
    """

    name: str
    summary: str
    examples: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Console], int]
