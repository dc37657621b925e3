"""Several workers with a store of one process each cause a warning, where they can be detected."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dpop_middleware
from dpop_middleware import MemoryReplayStore
from dpop_middleware.replay.memory import configured_workers, sign_here, sign_of_other_workers
from tests.support.replay import entry


def sign(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    configured: int | None = None,
    parent: int | None = None,
) -> str | None:
    arguments: Sequence[str] = ("server", *argv)
    return sign_of_other_workers(environ=environ or {}, argv=arguments, configured=configured, parent=parent)


@pytest.mark.parametrize(
    "argv", [("--workers", "4"), ("--workers=4",), ("-w", "4"), ("-w4",), ("app:app", "-w", "1", "-w", "4")]
)
def test_the_command_line_names_several_workers(argv: Sequence[str]) -> None:
    assert sign(*argv) == "--workers 4"


def test_the_environment_names_several_workers() -> None:
    assert sign(environ={"WEB_CONCURRENCY": "3"}) == "WEB_CONCURRENCY=3"
    assert sign(environ={"GRANIAN_WORKERS": "3"}) == "GRANIAN_WORKERS=3"
    assert sign(environ={"GUNICORN_CMD_ARGS": "--workers=3 --bind :80"}) == "--workers 3"
    assert sign("--workers", "1", environ={"WEB_CONCURRENCY": "3"}) is None, "the command line wins"


def test_a_multiprocessing_parent_may_have_several_workers() -> None:
    assert "process 17" in str(sign(parent=17))


def test_the_servers_own_configuration_decides() -> None:
    assert sign(configured=2) == "2 workers by the server's configuration"
    assert sign("--workers", "4", environ={"WEB_CONCURRENCY": "4"}, configured=1, parent=17) is None


def process(name: str = "SpawnProcess-1", args: tuple[Any, ...] = (), **kwargs: Any) -> Any:
    return SimpleNamespace(name=name, _args=args, _kwargs=kwargs)


@pytest.mark.parametrize(
    ("child", "siblings", "workers"),
    [
        (process(config=SimpleNamespace(workers=2, should_reload=False)), {}, 2),
        (process(config=SimpleNamespace(workers=2, should_reload=True)), {}, 1),
        (process(config=SimpleNamespace(workers=1)), {}, 1),
        (process(config=SimpleNamespace(workers="2")), {}, None),
        (process(config=SimpleNamespace(workers=True)), {}, None),
        (process(config={"workers": 2}), {}, None),
        (process("granian-worker", (2, None)), {}, 2),
        (process("granian-worker", (1, None)), {}, 1),
        (process("granian-worker"), {}, None),
        (process(), {17: SimpleNamespace(cfg=SimpleNamespace(workers=3))}, 3),
        (process(), {17: SimpleNamespace(cfg=SimpleNamespace(workers=1))}, 1),
        (process(), {17: object()}, None),
        (process(), {}, None),
        (object(), {}, None),
    ],
)
def test_the_configuration_that_a_server_gives_its_workers_is_read(
    child: Any, siblings: Mapping[int, object], workers: int | None
) -> None:
    assert configured_workers(child, siblings) == workers


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        ((), {}),
        (("--workers", "1"), {}),
        (("-w", "1"), {}),
        ((), {"WEB_CONCURRENCY": "1"}),
        ((), {"WEB_CONCURRENCY": "many"}),
        (("--workers",), {}),
        (("-warn",), {}),
    ],
)
def test_a_single_process_causes_no_warning(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    assert sign(*argv, environ=environ) is None


def test_a_reloading_server_has_one_worker() -> None:
    assert sign("--reload", parent=17) is None


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the command line nor the environment names workers."""
    monkeypatch.setattr(sys, "argv", ["serve"])
    for name in ("WEB_CONCURRENCY", "GRANIAN_WORKERS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)


@pytest.mark.usefixtures("alone")
def test_a_process_without_multiprocessing_has_no_such_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "multiprocessing.process", raising=False)
    assert sign_here() is None


@pytest.mark.usefixtures("alone")
def test_a_child_of_multiprocessing_says_who_its_parent_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(
        current_process=lambda: SimpleNamespace(name="SpawnProcess-1"),
        parent_process=lambda: SimpleNamespace(pid=17),
    )
    monkeypatch.setitem(sys.modules, "multiprocessing.process", known)
    assert sign_here() == "a multiprocessing parent, process 17"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("is_opened", [True, False])
async def test_the_store_warns_once_when_opened_or_at_its_first_entry(
    is_opened: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["serve", "--workers", "4"])
    store = MemoryReplayStore()
    for _ in range(2):
        if is_opened:
            await store.open()
            assert len(caplog.records) == 1
        assert await store.add(entry()) is True
    (line,) = [record.getMessage() for record in caplog.records]
    assert "(--workers 4): a proof passes once in each" in line


CHILD = """
import logging, multiprocessing, asyncio, sys
from dpop_middleware import MemoryReplayStore
def serve():
    asyncio.run(MemoryReplayStore().open())
if __name__ == "__main__":
    serve()
    child = multiprocessing.get_context("spawn").Process(target=serve)
    child.start()
    child.join(30)
"""


def test_a_real_child_process_is_warned_and_its_parent_is_not(tmp_path: Path) -> None:
    script = tmp_path / "serving.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(Path(dpop_middleware.__path__[0]).parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert done.stderr.count("seems to be one of several") == 1
    assert "a multiprocessing parent" in done.stderr
