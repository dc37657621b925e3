"""The battery of the wire against the servers of the plain run."""

import json
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.attacks.wire_battery import *  # noqa: F403
from tests.attacks.wire_battery import not_reached
from tests.support.adapters import ORIGIN, World
from tests.support.servers import SERVERS, ServerKind, serving
from tests.support.wire import Wire, wire_app


@pytest.fixture(scope="module", params=SERVERS)
def wire(request: pytest.FixtureRequest) -> Generator[Wire]:
    with listening(request.param) as listener:
        yield listener


@pytest.fixture(scope="module")
def h2() -> Generator[Wire]:
    with listening("hypercorn") as listener:
        yield listener


@contextmanager
def listening(kind: ServerKind, *public_urls: str, root_path: str = "") -> Generator[Wire]:
    world = World()
    jwks = json.dumps(world.issuer.jwks())
    with serving(kind, lambda _: wire_app(jwks, *public_urls), root_path=root_path) as origin:
        yield Wire(world, kind, origin)


PREFIXES = (f"{ORIGIN}/v1", f"{ORIGIN}/v2")


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    ("root_path", "target", "public"),
    [
        ("", "/v1/a", "/v1/a"),
        ("", "/v2/a", "/v2/a"),
        ("", f"{ORIGIN}/v2/a", "/v2/a"),
        ("/v1", "/a", "/v1/a"),
        ("/v2", "/a", "/v2/a"),
    ],
)
def test_a_proof_for_one_version_is_not_accepted_for_another(
    kind: ServerKind, root_path: str, target: str, public: str
) -> None:
    with listening(kind, *PREFIXES, root_path=root_path) as wire:
        other = public.replace("v1", "v3").replace("v2", "v1").replace("v3", "v2")
        for path in (other, "/a", public + "/", f"/v1{public}", f"/v2{public}"):
            for line in ("X-A: b", f"X-Forwarded-Prefix: {path.removesuffix('/a')}"):
                not_reached(wire.send(target, *wire.lines(path), line))
        lines = wire.lines(public)
        seen = wire.send(target, *lines)
        assert seen.told is not None, seen.answer
        assert seen.told["htu"] == ORIGIN + public
        not_reached(wire.send(target, *lines))
        if not root_path:
            refused = wire.send("/a", *wire.lines("/v1/a"))
            assert refused.status == 401
            assert b"begins with no prefix" in refused.answer
