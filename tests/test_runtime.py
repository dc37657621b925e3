"""Patched clocks reach every default; parts are opened and closed, under asyncio only; late imports.

Rarely used modules are imported at their first use.
"""

import asyncio
import inspect
import pkgutil
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import freezegun
import httpx
import httpx2
import pytest
import time_machine

import dpop_middleware
from dpop_middleware import (
    JWTAccessTokenVerifier,
    ResourceServer,
    _runtime,
    client,
    introspection,
    replay,
    tokens,
)
from dpop_middleware._runtime import (
    Deferred,
    Moment,
    aclose_parts,
    begin,
    check_event_loop,
    importing,
    installed,
    library_of,
    open_parts,
    system_time,
)
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPAuth
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.testing import TestIssuer


def test_nothing_is_younger_because_a_clock_was_set_back_or_stood_still() -> None:
    moment = Moment(wall=1000.0, monotonic=50.0)
    assert moment.age(wall=1007.0, monotonic=57.0) == 7
    assert moment.age(wall=400.0, monotonic=57.0) == 7
    assert moment.age(wall=1007.0, monotonic=50.0) == 7


def test_a_frozen_or_patched_clock_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with freezegun.freeze_time("2001-09-09 01:46:40"):
        assert system_time() == 1_000_000_000
    with time_machine.travel(1_000_000_000, tick=False):
        assert system_time() == 1_000_000_000
    monkeypatch.setattr(time, "time", lambda: 7.0)
    assert system_time() == 7


@pytest.mark.parametrize("of", [ResourceServer, JWTAccessTokenVerifier, TokenEndpoint, DPoPAuth, TestIssuer])
def test_the_default_clock_looks_up_the_time(of: type) -> None:
    assert inspect.signature(of).parameters["clock"].default is system_time


class Part:
    def __init__(self, calls: list[str], name: str) -> None:
        self.calls = calls
        self.name = name

    async def open(self) -> None:
        self.calls.append(f"open {self.name}")
        if self.name == "locked":
            raise OSError(self.name)

    async def aclose(self) -> None:
        self.calls.append(f"close {self.name}")
        if self.name == "broken":
            raise OSError(self.name)


async def test_parts_that_can_be_opened_are_opened() -> None:
    calls: list[str] = []
    await open_parts(Part(calls, "a"), object(), Part(calls, "b"))
    assert calls == ["open a", "open b"]


async def test_where_one_can_not_be_opened_those_before_it_are_closed() -> None:
    calls: list[str] = []
    with pytest.raises(OSError, match="locked"):
        await open_parts(Part(calls, "a"), object(), Part(calls, "locked"), Part(calls, "b"))
    assert calls == ["open a", "open locked", "close a"]


async def test_all_are_closed_even_if_one_fails() -> None:
    calls: list[str] = []
    with pytest.raises(OSError, match="broken"):
        await aclose_parts(Part(calls, "a"), object(), Part(calls, "broken"), Part(calls, "b"))
    assert calls == ["close a", "close broken", "close b"]


def test_without_a_loop_of_asyncio_it_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="asyncio only.*not trio"):
        check_event_loop()
    asyncio.run(_checked())


async def _checked() -> None:
    check_event_loop()


LAZY = {
    "JWTAccessTokenVerifier": "dpop_middleware.tokens.jwt",
    "JWTOrOpaqueVerifier": "dpop_middleware.tokens.several_verifiers",
    "MultiIssuerVerifier": "dpop_middleware.tokens.several_verifiers",
    "RedisReplayStore": "dpop_middleware.replay.redis",
    "ResourceMetadata": "dpop_middleware._resource_metadata",
    "WebSocketTickets": "dpop_middleware.websocket_tickets",
}


def test_a_name_comes_from_its_module_and_no_other_name_is_there() -> None:
    found = importing("dpop_middleware", {"Check": "checks"})
    assert found("Check") is dpop_middleware.checks.Check
    with pytest.raises(AttributeError, match="module 'dpop_middleware' has no attribute 'Checks'"):
        found("Checks")


@pytest.mark.parametrize("name", LAZY)
def test_rarely_used_modules_are_imported_at_their_first_use(name: str) -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        f"assert {LAZY[name]!r} not in sys.modules; from dpop_middleware import {name}; "
        f"assert {LAZY[name]!r} in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


def test_the_redis_client_is_not_imported_without_its_store() -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        "assert 'redis' not in sys.modules; from dpop_middleware import RedisReplayStore; "
        "assert 'redis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


@pytest.mark.parametrize("package", ["", ".client", ".introspection", ".replay", ".tokens"])
def test_completion_shows_what_is_not_imported_yet_and_imports_nothing(package: str) -> None:
    program = (
        f"import sys; import dpop_middleware{package} as package; modules = set(sys.modules); "
        "names = dir(package); assert set(sys.modules) - modules <= {'importlib.util', 'importlib._abc'}; "
        "assert names == sorted(set(names)); assert {*package.__all__, '__name__'} < set(names)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


@pytest.mark.parametrize("package", ["client", "introspection"])
def test_without_the_library_that_they_need_completion_shows_the_names_that_are_there(package: str) -> None:
    program = (
        "import inspect, sys; sys.modules.update(httpx=None, httpx2=None); "
        f"import dpop_middleware.{package} as package; names = dict(inspect.getmembers(package)); "
        "missing = set(package.__all__) - set(names); assert 0 < len(missing) < len(package.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


@pytest.mark.parametrize("package", [dpop_middleware, client, introspection, replay, tokens])
def test_every_public_name_of_a_package_is_there_and_no_other_one(package: object) -> None:
    assert all(hasattr(package, name) for name in getattr(package, "__all__", ()))
    assert set(dir(package)) >= set(getattr(package, "__all__", ()))
    assert not hasattr(package, "Nothing")


PUBLIC_MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(dpop_middleware.__path__)
    if not module.name.startswith("_")
)


def annotated(thing: object) -> Iterator[object]:
    """The annotated parts of a public object: a function, a class, and its methods and properties."""
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


async def test_a_task_begins_with_the_next_turn_whatever_the_task_factory_does() -> None:
    async def works() -> str:
        begun.append(1)
        return "done"

    def factory(*_: object, **__: object) -> Any:
        raise AssertionError("it may be eager")

    begun: list[int] = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        task = begin(works(), name="works")
    finally:
        loop.set_task_factory(None)
    assert (task.get_name(), begun) == ("works", [])
    assert await task == "done"


def test_a_deferred_module_is_imported_when_it_is_asked_for_a_class() -> None:
    assert Deferred("dpop_middleware.checks").Check is dpop_middleware.checks.Check


def test_nobody_has_an_instance_of_a_class_whose_library_is_missing() -> None:
    missing = Deferred("no_such_library")
    assert missing.Client is typing.Never
    assert not hasattr(missing, "__wrapped__")


def test_an_import_that_fails_inside_a_library_names_the_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library_with_a_hole.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        Deferred("library_with_a_hole").Client  # noqa: B018 - the look-up is what is tested


def test_one_library_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*names: str) -> Callable[[str], Any]:
        def imported(name: str) -> Any:
            if name not in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return import_module(name)

        return imported

    for name in ("httpx", "httpx2"):
        monkeypatch.setattr(_runtime, "import_module", only(name))
        assert installed("Auth") == (import_module(name).Auth,)
    monkeypatch.setattr(_runtime, "import_module", only())
    with pytest.raises(ModuleNotFoundError) as caught:
        installed("Auth")
    assert str(caught.value) == (
        "the client's side needs httpx2 or httpx: "
        "in a checkout of dpop_middleware, python -m pip install '.[client]'"
    )

    def broken(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'httpcore'", name="httpcore")

    monkeypatch.setattr(_runtime, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="httpcore"):
        installed("Auth")


def test_one_library_with_both_names_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtime, "import_module", lambda _name: httpx2)
    assert installed("Auth") == (httpx2.Auth,)


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_the_library_of_a_request_is_found(module: Any) -> None:
    assert library_of(module.Request("GET", "https://api.example.com/")) is module
