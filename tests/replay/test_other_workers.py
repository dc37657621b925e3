"""Several workers with a store that only one of them sees are warned of, where they can be told."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import dpop_middleware
from dpop_middleware import MemoryReplayStore
from dpop_middleware.replay import memory
from dpop_middleware.replay.other_workers import sign_of_other_workers
from tests.support.replay import entry


def sign(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    under_gunicorn: bool = False,
    parent: int | None = None,
) -> str | None:
    arguments: Sequence[str] = ("server", *argv)
    return sign_of_other_workers(
        environ=environ or {}, argv=arguments, under_gunicorn=under_gunicorn, parent=parent
    )


@pytest.mark.parametrize(
    "argv", [("--workers", "4"), ("--workers=4",), ("-w", "4"), ("-w4",), ("app:app", "-w", "1", "-w", "4")]
)
def test_the_command_line_names_several_workers(argv: Sequence[str]) -> None:
    assert sign(*argv) == "--workers 4"


def test_the_environment_names_several_workers() -> None:
    assert sign(environ={"WEB_CONCURRENCY": "3"}) == "WEB_CONCURRENCY=3"
    assert sign(environ={"GUNICORN_CMD_ARGS": "--workers=3 --bind :80"}) == "--workers 3"
    assert sign("--workers", "1", environ={"WEB_CONCURRENCY": "3"}) is None, "the command line wins"


def test_a_parent_or_gunicorn_may_have_several() -> None:
    assert "process 17" in str(sign(parent=17))
    assert "gunicorn" in str(sign(under_gunicorn=True))


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
def test_one_process_is_not_warned_of(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    assert sign(*argv, environ=environ) is None


def test_a_reloading_server_has_one_worker() -> None:
    assert sign("--reload", parent=17) is None


async def test_the_store_says_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "sign_here", lambda: "--workers 4")
    store = MemoryReplayStore()
    await store.open()
    await store.open()
    assert await store.add(entry()) is True
    (line,) = [record.getMessage() for record in caplog.records]
    assert "(--workers 4): a proof passes once in each" in line


async def test_a_store_that_is_never_opened_says_it_at_its_first_entry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "sign_here", lambda: "--workers 4")
    store = MemoryReplayStore()
    assert [await store.add(entry()), await store.add(entry())] == [True, True]
    assert len(caplog.records) == 1


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
        timeout=60,
    )
    assert done.stderr.count("seems to be one of several") == 1
    assert "a multiprocessing parent" in done.stderr
