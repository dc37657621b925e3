"""Latencies of honest clients under uvicorn in a flood of hostile requests, with the middleware and bare.

    python -m tests.benchmarks.flood [--seconds 10] [--megabytes 5] [--rate 100]

The flood is 16 KB requests without a valid token, of the costliest kinds of `tests.benchmarks.hostile`.
Known clients send a steady rate at the same time, each request with a fresh proof. One application is served
twice, bare and behind the middleware with its memory store and default logging; the two are measured in turn
in short slices, so that other work of the machine affects both. Exits with 1 when the honest clients' p50 is
more than three times that of the bare application under the same flood, or when the flood wasn't sent.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.benchmarks.flood_processes import HOST, LEAD, PATIENCE, Sent, flood, honest, pin, serve
from tests.benchmarks.hostile import strangers
from tests.benchmarks.workload import KNOWN_CLIENTS, RESOURCE, Scope, Workload

BAR = 3.0
# This part of the requested flood must have been sent and answered for the figures to count.
LEAST_FLOOD = 0.9
BARE, OURS = "without us", "with us"
# Of the kinds that reach the judge under a real server, these cost the most.
COSTLIEST = (
    "token header: at every bound",
    "forged token of 16 KB",
    "forged token, header at every bound",
    "token header: 4 KiB of blanks",
    "token header: 4 KiB of float",
    "token header: 4 KiB of string",
    "path: slashes",
    "path: 256 to rewrite",
)
_SIZE = 16_000
_SLICES = 10
_START_UP = 60.0


@dataclass
class Phase:
    """The figures of one application, with or without the flood, summed over the slices."""

    latencies: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    flood_statuses: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    answered: int = 0
    seconds: float = 0.0

    def add(self, honest_clients: Sent, flooded: Sent | None) -> None:
        """Add one slice."""
        self.latencies += honest_clients.latencies
        self.medians.append(statistics.median(honest_clients.latencies))
        self.statuses.update(honest_clients.statuses)
        if flooded is not None:
            self.flood_statuses.update(flooded.statuses)
            self.sent += flooded.sent
            self.answered += flooded.answered
            self.seconds += flooded.seconds

    def percentile(self, percent: int) -> float:
        """A latency in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] * 1e3

    def megabytes(self, count: int) -> float:
        """`count` bytes as MB a second."""
        return count / self.seconds / 1e6 if self.seconds else 0.0


def written(scope: Scope, size: int = 0) -> bytes:
    """The request as it is sent, padded to `size` bytes with a meaningless field."""
    path: bytes = scope["raw_path"]
    head = b"GET " + path + b" HTTP/1.1\r\n"
    fields: list[tuple[bytes, bytes]] = list(scope["headers"])
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    missing = size - len(head) - len(lines) - len(b"x-filler: \r\n\r\n")
    filler = b"x-filler: " + b"x" * missing + b"\r\n" if missing > 0 else b""
    return head + lines + filler + b"\r\n"


def hostile_requests(workload: Workload) -> list[bytes]:
    """One request of each of the costliest kinds."""
    kinds = strangers(workload.clients[0])
    return [written(kinds[name], _SIZE) for name in COSTLIEST]


def cores(*, pinned: bool) -> tuple[int | None, int | None]:
    """A core for the servers and another for the clients; None for both to leave it to the system."""
    if not pinned or not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


@contextlib.contextmanager
def serving(target: Callable[..., None], *arguments: object) -> Generator[int]:
    """Run `target` in a process of its own, with a pipe over which it sends its port; yield the port."""
    with serving_process(target, *arguments) as (port, _):
        yield port


@contextlib.contextmanager
def serving_process(target: Callable[..., None], *arguments: object) -> Generator[tuple[int, int]]:
    """Do what `serving` does, and yield the process id too."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_UP):
            raise TimeoutError(f"no server on {HOST} after {_START_UP:.0f} s")
        assert process.pid is not None
        yield ours.recv(), process.pid
    finally:
        ours.close()
        process.join(PATIENCE)
        if process.is_alive():
            process.terminate()


def measured(*, seconds: float, megabytes: float, rate: float, pinned: bool) -> dict[tuple[str, bool], Phase]:
    """Return the figures of each application, without (False) and with the flood (True)."""
    workload = Workload()
    attack = hostile_requests(workload)
    protection = {"issuer": workload.issuer.issuer, "resource": RESOURCE, "jwks": workload.issuer.jwks()}
    server_core, client_core = cores(pinned=pinned)
    each = seconds / _SLICES
    lifetime = 4 * (seconds + _SLICES * (LEAD + 1)) + _START_UP
    phases = {(name, flooded): Phase() for flooded in (False, True) for name in (BARE, OURS)}
    spawn = multiprocessing.get_context("spawn")
    with (
        serving(serve, server_core, None, lifetime) as bare,
        serving(serve, server_core, protection, lifetime) as protected,
        ProcessPoolExecutor(1, spawn, pin, (client_core,)) as honest_clients,
        ProcessPoolExecutor(1, spawn, pin, (client_core,)) as strangers_flood,
    ):
        ports = {BARE: bare, OURS: protected}

        def slice_of(name: str, count: int, *, at: float, flooded: bool) -> tuple[Sent, Sent | None]:
            requests = [written(scope) for scope in workload.known(count)]
            sending = None
            if flooded:
                sending = strangers_flood.submit(
                    flood, ports[name], attack, megabytes * 1e6, LEAD + count / at
                )
            seen = honest_clients.submit(honest, ports[name], requests, at).result(seconds + _START_UP)
            return seen, None if sending is None else sending.result(seconds + _START_UP)

        for name in ports:
            slice_of(name, 2 * KNOWN_CLIENTS, at=500.0, flooded=False)
        for number in range(_SLICES):
            for (name, flooded), phase in phases.items():
                beside = f"beside {megabytes:g} MB/s" if flooded else "in quiet"
                print(f"slice {number + 1} of {_SLICES}: {name}, {beside}", file=sys.stderr, flush=True)
                phase.add(*slice_of(name, max(2, round(each * rate)), at=rate, flooded=flooded))
    return phases


def show(phases: Mapping[tuple[str, bool], Phase], *, megabytes: float) -> bool:
    """Print the table; whether the bar is met by a flood that was really sent."""
    print(f"{'honest clients':32}{'p50 ms':>8}{'p99 ms':>8}{'count':>7}{'sent MB/s':>11}{'answered':>10}")
    met = True
    for (name, flooded), phase in phases.items():
        title = f"{name}, {'beside the flood' if flooded else 'in quiet'}"
        print(
            f"{title:32}{phase.percentile(50):8.2f}{phase.percentile(99):8.2f}{len(phase.latencies):7}"
            f"{phase.megabytes(phase.sent):11.2f}{phase.megabytes(phase.answered):10.2f}"
        )
        if set(phase.statuses) != {200}:
            print(f"{title}: honest clients were refused: {dict(phase.statuses)}")
            met = False
        if flooded and set(phase.flood_statuses) != {200 if name == BARE else 401}:
            print(f"{title}: the flood was not judged: {dict(phase.flood_statuses)}")
            met = False
        if flooded and phase.megabytes(phase.answered) < LEAST_FLOOD * megabytes:
            print(f"{title}: under {LEAST_FLOOD:.0%} of the flood was answered, the figures don't count")
            met = False
    # The median over the slices: other work of the machine affects only some of them.
    pairs = zip(phases[OURS, True].medians, phases[BARE, True].medians, strict=True)
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    print(
        f"\np50 beside the flood, with us ÷ without us, median of the slices: {ratio:.2f}   bar {BAR}",
        end="   ",
    )
    print("MISSED" if ratio > BAR else "ok")
    return met and ratio <= BAR


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; each phase is bounded in time and count."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.flood", description="What honest clients see beside a flood"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each of four phases, at most 120")
    parser.add_argument("--megabytes", type=float, default=5.0, help="of flood a second, at most 50")
    parser.add_argument("--rate", type=float, default=100.0, help="honest requests a second, at most 1000")
    parser.add_argument("--pin", action="store_true", help="servers on one core, clients on another")
    options = parser.parse_args(argv)
    for name, most in (("seconds", 120), ("megabytes", 50), ("rate", 1000)):
        if not 0 < getattr(options, name) <= most:
            parser.error(f"--{name} takes a number above 0 and at most {most}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; return 1 when the bar is missed."""
    options = arguments(argv)
    server_core, client_core = cores(pinned=options.pin)
    where = (
        "nothing is pinned to a core"
        if server_core is None
        else f"servers on core {server_core}, both kinds of clients on core {client_core}"
    )
    print(
        f"uvicorn on loopback; {where}.\n"
        f"{options.rate:g} honest requests a second; beside them {options.megabytes:g} MB/s of "
        f"{_SIZE:,}-byte requests of {len(COSTLIEST)} kinds.\n",
        flush=True,
    )
    phases = measured(
        seconds=options.seconds, megabytes=options.megabytes, rate=options.rate, pinned=options.pin
    )
    return 0 if show(phases, megabytes=options.megabytes) else 1


if __name__ == "__main__":
    sys.exit(main())
