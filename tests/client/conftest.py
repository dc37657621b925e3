from collections.abc import Generator

import pytest

from tests.support.clients import Answering, Loopback


@pytest.fixture(scope="session")
def answering() -> Generator[Answering]:
    """Real servers on loopback, started when first needed."""
    loopback = Loopback()
    yield loopback.answering
    loopback.close()
