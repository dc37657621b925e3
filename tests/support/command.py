"""The command `dpop-middleware`, run in this process or as one of its own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from dpop_middleware.cli import main

__all__ = ["ROOT", "Ran", "process", "run"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """The output and the exit status of one run of the command."""

    status: int
    out: str
    err: str

    def outcomes(self) -> dict[str, str]:
        """The result of each check by `explain --json`."""
        return {row["check"]: row["outcome"] for row in json.loads(self.out)["checks"]}

    def failed(self) -> str | None:
        """The first check that failed by `explain --json`."""
        return next((check for check, outcome in self.outcomes().items() if outcome == "failed"), None)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, if asked to."""

    encoding = "utf-8"

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def run(
    *argv: str, stdin: bytes | str = b"", terminal: bool = False, environ: Mapping[str, str] | None = None
) -> Ran:
    """Run `main` in this process; it prints no traceback, and raises SystemExit only for `--help`."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = Terminal(is_terminal=terminal), Terminal(is_terminal=terminal)
    with (
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))),
        mock.patch.dict(os.environ, environ or {}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        if environ is None:
            os.environ.pop("NO_COLOR", None)
        status = main(argv)
    assert "Traceback" not in err.getvalue()
    return Ran(status, out.getvalue(), err.getvalue())


def process(*argv: str, stdin: bytes | str = b"", **environ: str) -> Ran:
    """Run the command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dpop_middleware", *argv],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, **environ},
    )
    err = done.stderr.decode("utf-8")
    assert "Traceback" not in err
    return Ran(done.returncode, done.stdout.decode("utf-8"), err)
