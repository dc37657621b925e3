"""A clock for a server alone, which a test sets, by libfaketime (Debian: libfaketime)."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["ServerClock", "can_have_clock", "missing"]

_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_LIBRARY = "faketime/libfaketime.so.1"
_STARTS_WITHIN = 60.0


def missing() -> NoReturn:
    """Skip the test, or fail where tox runs it and CI is set."""
    reason = "no libfaketime with which Valkey starts is installed (Debian: libfaketime)"
    if os.environ.get("CI") and os.environ.get("TOX_ENV_NAME") == "slow":
        pytest.fail(reason)
    pytest.skip(reason)


class ServerClock:
    """The clock of a server that is started with `environment`; `file` holds how far ahead it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)
        library = _libfaketime()
        self.environment: dict[str, str] = {} if library is None else {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip

    def set(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of the machine's."""
        self.ahead = seconds
        # In one piece: the server reads it all the time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


def can_have_clock(binary: Path) -> bool:
    """Whether that server starts with such a clock: some memory allocators don't go with the library."""
    with tempfile.TemporaryDirectory() as directory:
        clock = ServerClock(Path(directory, "clock"))
        if not clock.environment:
            return False
        try:
            done = subprocess.run(
                [binary, "--version"],
                env=os.environ | clock.environment,
                capture_output=True,
                timeout=_STARTS_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and not done.stderr


def _libfaketime() -> Path | None:
    """The library, by `LIBFAKETIME` or where distributions put it."""
    named = os.environ.get("LIBFAKETIME")
    if named:
        return Path(named)
    found = [library for place in _PLACES for library in Path(place).glob(f"**/{_LIBRARY}")]
    return found[0] if found else None
