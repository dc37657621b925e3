"""How long the import takes, compared with that of its dependencies, each in fresh interpreters.

    python -m tests.benchmarks.imports [--rounds 15]

Both take turns; what counts is the median of the quotients. CPU time is measured, inside the interpreter, so
that its own start is in neither, with modules that were compiled before. Exits with 1 when the bar is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

BAR = 1.3
DEPENDENCIES = "import jwt, starlette.applications, cryptography.hazmat.primitives.asymmetric.ec"
OURS = "from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer"
_TIMED = "import time; started = time.process_time(); {}; print(time.process_time() - started)"


def seconds(statement: str, compiled: str) -> float:
    """Return the seconds that a fresh interpreter takes for an import; `compiled` is its cache's folder."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statement)],
        env=environ | {"PYTHONPYCACHEPREFIX": compiled},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def measured(rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of the dependencies and ours, round by round."""
    with tempfile.TemporaryDirectory() as compiled:
        # The first of each compiles.
        for statement in (DEPENDENCIES, OURS):
            seconds(statement, compiled)
        return [(seconds(DEPENDENCIES, compiled), seconds(OURS, compiled)) for _ in range(rounds)]


def show(pairs: Sequence[tuple[float, float]]) -> bool:
    """Print the figures; whether the bar is met."""
    dependencies, ours = (statistics.median(each) * 1e3 for each in zip(*pairs, strict=True))
    quotient = statistics.median(theirs_and_ours[1] / theirs_and_ours[0] for theirs_and_ours in pairs)
    print(f"{DEPENDENCIES}: {dependencies:.0f} ms\n{OURS}: {ours:.0f} ms")
    print(f"quotient: {quotient:.2f}   bar {BAR}   {'MISSED' if quotient > BAR else 'ok'}")
    return quotient <= BAR


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; return 1 when the bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.imports", description="How long the import takes"
    )
    parser.add_argument("--rounds", type=int, default=15, help="fresh interpreters for each")
    return 0 if show(measured(parser.parse_args(argv).rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
