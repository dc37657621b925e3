"""Do the tests test? Changes the package, one expression at a time, and sees that the tests notice.

    python -m tests.mutants [--size 400] [--seed N] [--all] [--only PATH ...] [--workers 2] [--keep DIRECTORY]

The sample is always the same for a seed, and a change of one line moves little of it. Each mutant is tried in
a copy of the checkout, by the tests that run its line. A line every few seconds shows where it is. The exit
status is 1 if a mutant survives that `survivors.toml` doesn't list with a reason, if one of the list is
killed or no longer there, or if less than 97 % of the mutants that aren't equivalent are killed.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.mutants.choosing import stages
from tests.mutants.mutations import Mutant, Name, mutants_of, sample
from tests.mutants.recording import Recording, RecordingError, record
from tests.mutants.sandbox import ROOT, copy_to
from tests.mutants.survivors import Survivor, gone, listed
from tests.mutants.trial import Verdict, control, prepare, trial

LEAST = 0.97
SIZE = 400
SEED = "dpop"
# The checks, the tokens, the store, the adapters and the client.
ROOMS = (
    "_proof", "_request", "_judge", "jose", "tokens", "replay", "_adapter", "client",
    "asgi.py", "starlette.py", "fastapi.py", "django.py", "forward_auth.py", "mcp.py", "metadata.py",
    "nonce_endpoint.py", "websocket_tickets.py",
)  # fmt: skip


def sources(only: Sequence[str], checkout: Path = ROOT) -> dict[str, bytes]:
    """The files that are mutated, by their paths."""
    package = checkout / "dpop_middleware"
    found: dict[str, bytes] = {}
    for room in only or ROOMS:
        path = package / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[file.relative_to(checkout).as_posix()] = file.read_bytes()
    return found


def tried(
    mutants: Sequence[Mutant], recording: Recording, *, workers: int, checkout: Path, verbose: bool
) -> list[Verdict]:
    """Try them all, and show how far it is.

    At the end the tests that killed are run without any mutant: one that fails then has killed nothing.
    """
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare, initargs=(checkout,)) as pool:
        futures: list[Future[Verdict]] = []
        for mutant in mutants:
            chosen = stages(mutant, recording)
            took = [sum(recording.seconds[test] for test in tests) for tests in chosen]
            futures.append(pool.submit(trial, mutant, chosen, took))
        for future in as_completed(futures):
            verdict = future.result()
            verdicts.append(verdict)
            if verbose:
                print(f"{verdict.seconds:5.1f} s, {verdict.tests} tests: {verdict.mutant.name} "
                      f"killed by {verdict.by}" if verdict.killed else "survived", flush=True)  # fmt: skip
            if not verdict.killed:
                print(f"survived: {described(verdict.mutant)}", flush=True)
            if len(verdicts) % 10 == 0 or len(verdicts) == len(mutants):
                spent = time.monotonic() - begun
                killed = sum(verdict.killed for verdict in verdicts)
                left = spent / len(verdicts) * (len(mutants) - len(verdicts))
                print(f"{len(verdicts)} of {len(mutants)}: {killed} killed; {spent / 60:.1f} min, "
                      f"about {left / 60:.1f} min to go", flush=True)  # fmt: skip
        killers = sorted({verdict.by for verdict in verdicts if "::" in verdict.by})
        failed = pool.submit(control, killers).result() if killers else None
    if failed is not None:
        raise RecordingError(f"fails without any mutant too: {failed}")
    return verdicts


def described(mutant: Mutant) -> str:
    """A mutant, in the form of the list of survivors."""
    return "\n".join((
        f"{mutant.path}:{mutant.first}",
        "[[survivor]]",
        *(f"{key} = {_quoted(getattr(mutant.name, key))}" for key in ("scope", "was", "becomes")),
        *([f"nth = {mutant.name.nth}"] if mutant.name.nth > 1 else []),
    ))  # fmt: skip


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if "'" in text else f"'{text}'"


def findings(verdicts: Iterable[Verdict], known: dict[Name, Survivor]) -> list[str]:
    """What is wrong with a run; none if it is good."""
    verdicts = list(verdicts)
    found = [
        f"killed, and listed as a survivor: {described(verdict.mutant)}"
        for verdict in verdicts
        if verdict.killed and verdict.mutant.name in known
    ]
    found += [
        f"survived, and is not listed: {described(verdict.mutant)}"
        for verdict in verdicts
        if not verdict.killed and verdict.mutant.name not in known
    ]
    killed, judged = shares(verdicts, known)
    if killed < LEAST * judged:
        found.append(f"{killed} of {judged} were killed: less than {LEAST:.0%}")
    return found


def shares(verdicts: Iterable[Verdict], known: dict[Name, Survivor]) -> tuple[int, int]:
    """How many were killed, and how many aren't equivalent."""
    verdicts = list(verdicts)
    killed = sum(verdict.killed for verdict in verdicts)
    equivalent = sum(
        not verdict.killed
        and verdict.mutant.name in known
        and known[verdict.mutant.name].kind == "equivalent"
        for verdict in verdicts
    )
    return killed, len(verdicts) - equivalent


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Do the tests test?")
    parser.add_argument("--size", type=int, default=SIZE, help=f"how many mutants ({SIZE})")
    parser.add_argument("--seed", default=SEED, help="another sample")
    parser.add_argument("--all", action="store_true", help="every mutant there is: a day")
    parser.add_argument("--only", nargs="+", default=(), metavar="PATH", help="such as jose/jwk.py")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="keep what was recorded there, and use it while no file changes"
    )
    parser.add_argument("--verbose", action="store_true", help="say of each mutant which test killed it")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        directory = Path(temporary)
        # Edits during the run don't affect it.
        checkout = copy_to(directory / "checkout")
        files = sources(arguments.only, checkout)
        everything = [mutant for path, source in files.items() for mutant in mutants_of(path, source)]
        size = None if arguments.all else arguments.size
        mutants = sample(everything, files, size=size, seed=arguments.seed)
        print(f"{len(mutants)} of {len(everything)} mutants, seed {arguments.seed}", flush=True)
        known = listed()
        try:
            recording = record(checkout, kept=arguments.keep or directory, workers=arguments.workers)
            verdicts = tried(
                mutants, recording, workers=arguments.workers, checkout=checkout, verbose=arguments.verbose
            )
        except RecordingError as error:
            print(error)
            return 1
        found = findings(verdicts, known)
        if not arguments.only:
            found += [
                f"listed, and no longer there: {one.name}"
                for one in gone(known.values(), (m.name for m in everything))
            ]
    killed, judged = shares(verdicts, known)
    print(f"\n{killed} of {judged} mutants killed that aren't equivalent: {killed / max(judged, 1):.1%}")
    print("\n\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
