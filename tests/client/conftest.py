from collections.abc import Generator
from pathlib import Path

import pytest
import trustme

from tests.support.clients import Answering, Loopback


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(autouse=True)
def few_authorities(one_authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transport loads the trusted authorities, but no test here connects with TLS: one is enough."""
    monkeypatch.setenv("SSL_CERT_FILE", str(one_authority))


@pytest.fixture(scope="session")
def answering() -> Generator[Answering]:
    """Real servers on loopback, started when first needed."""
    loopback = Loopback()
    yield loopback.answering
    loopback.close()
