"""The battery of the wire against the servers that want a process of their own."""

import json
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.attacks.wire_battery import *  # noqa: F403
from tests.frameworks.served import serving_apart
from tests.support.adapters import World
from tests.support.wire import Wire


@pytest.fixture(scope="module", params=["granian", "daphne"])
def wire(request: pytest.FixtureRequest) -> Generator[Wire]:
    with listening(request.param) as listener:
        yield listener


@pytest.fixture(scope="module")
def h2() -> Generator[Wire]:
    with listening("granian") as listener:
        yield listener


@contextmanager
def listening(kind: str) -> Generator[Wire]:
    world = World()
    jwks = json.dumps(world.issuer.jwks())
    with serving_apart(kind, "", factory="tests.support.wire:wire_app", arguments=(jwks,)) as origin:
        yield Wire(world, kind, origin)
