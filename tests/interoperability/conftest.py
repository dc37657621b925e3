from collections.abc import Generator

import pytest

from tests.support.node import NodePeer, node_peers


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Generator[NodePeer]:
    """One Node.js process for all clients and judges from npm."""
    with node_peers(pytestconfig) as peer:
        yield peer
