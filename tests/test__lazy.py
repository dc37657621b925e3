"""What not everybody needs is imported at its first use."""

import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import dpop_middleware
from dpop_middleware import client, introspection, replay, tokens
from dpop_middleware._lazy import Deferred, importing

LAZY = {
    "JWTAccessTokenVerifier": "dpop_middleware.tokens.jwt",
    "JWTOrOpaqueVerifier": "dpop_middleware.tokens.jwt_or_opaque",
    "MultiIssuerVerifier": "dpop_middleware.tokens.multi_issuer",
    "RedisReplayStore": "dpop_middleware.replay.redis",
    "ResourceMetadata": "dpop_middleware._metadata",
    "WebSocketTickets": "dpop_middleware.websocket_tickets",
}


def test_a_name_comes_from_its_module_and_no_other_name_is_there() -> None:
    found = importing("dpop_middleware", {"Check": "checks"})
    assert found("Check") is dpop_middleware.checks.Check
    with pytest.raises(AttributeError, match="module 'dpop_middleware' has no attribute 'Checks'"):
        found("Checks")


@pytest.mark.parametrize("name", LAZY)
def test_what_only_some_need_is_imported_at_its_first_use(name: str) -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        f"assert {LAZY[name]!r} not in sys.modules; from dpop_middleware import {name}; "
        f"assert {LAZY[name]!r} in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_redis_client_is_not_imported_without_its_store() -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        "assert 'redis' not in sys.modules; from dpop_middleware import RedisReplayStore; "
        "assert 'redis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("package", [dpop_middleware, client, introspection, replay, tokens])
def test_every_public_name_of_a_package_is_there_and_no_other_one(package: object) -> None:
    assert all(hasattr(package, name) for name in getattr(package, "__all__", ()))
    assert not hasattr(package, "Nothing")


PUBLIC_MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(dpop_middleware.__path__)
    if not module.name.startswith("_")
)


def annotated(thing: object) -> Iterator[object]:
    """What of a public thing has annotations: a function, a class, and its methods and properties."""
    if inspect.isfunction(thing):
        yield thing
    if not inspect.isclass(thing):
        return
    yield thing
    for name, own in vars(thing).items():
        if not name.startswith("_") or name in ("__init__", "__call__"):
            function = own.fget if isinstance(own, property) else getattr(own, "__func__", own)
            if inspect.isfunction(function):
                yield function


@pytest.mark.parametrize("module", ["", "testing.conformance", "testing.fixtures", *PUBLIC_MODULES])
def test_frameworks_and_documentation_tools_can_resolve_every_public_type_hint(module: str) -> None:
    found = import_module(f"dpop_middleware.{module}".rstrip("."))
    things = [getattr(found, name) for name in found.__all__]
    assert things
    for thing in things:
        for each in annotated(thing):
            typing.get_type_hints(each)


def test_a_deferred_module_is_imported_when_it_is_asked_for_a_class() -> None:
    assert Deferred("dpop_middleware.checks").Check is dpop_middleware.checks.Check


def test_nobody_has_an_instance_of_a_class_whose_library_is_missing() -> None:
    missing = Deferred("no_such_library")
    assert missing.Client is typing.Never
    assert not hasattr(missing, "__wrapped__")


def test_what_a_library_of_others_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library_with_a_hole.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        Deferred("library_with_a_hole").Client  # noqa: B018 - the look-up is what is tested
