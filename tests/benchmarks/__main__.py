"""Every benchmark with bars, each in a process of its own; exits with 1 when a bar is missed.

    python -m tests.benchmarks [--quick]

`--quick` runs each for some seconds only, to see that they run: its figures are too rough to be judged by.
Each benchmark alone, with its own options: `python -m tests.benchmarks.judge`,
`python -m tests.benchmarks.serving`, `python -m tests.benchmarks.imports`,
`python -m tests.benchmarks.hostile`, `python -m tests.benchmarks.flood`,
`python -m tests.benchmarks.comparison` and `python -m tests.benchmarks.replay_store`.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

BENCHMARKS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "tests.benchmarks.judge": ((), ("--rounds=1", "--size=20")),
    "tests.benchmarks.serving": ((), ("--seconds=1",)),
    "tests.benchmarks.imports": ((), ("--rounds=3",)),
    "tests.benchmarks.hostile": ((), ("--rounds=1", "--size=5")),
    "tests.benchmarks.flood": ((), ("--seconds=1",)),
    "tests.benchmarks.comparison": ((), ("--seconds=0.2",)),
    "tests.benchmarks.replay_store": (("--cluster",), ("--operations=5000", "--entries=5000")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run them all, even if one fails; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What a verdict and an entry of the replay store cost"
    )
    parser.add_argument("--quick", action="store_true", help="see that they run, in some seconds")
    quick = parser.parse_args(argv).quick
    failed = False
    for module, (usual, short) in BENCHMARKS.items():
        print(f"\n== python -m {module}\n", flush=True)
        command = [sys.executable, "-m", module, *(short if quick else usual)]
        failed = subprocess.run(command, check=False).returncode != 0 or failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
