"""Whether another process may be serving the same application, as far as that can be seen from inside."""

import os
import sys
from collections.abc import Mapping, Sequence

__all__ = ["configured_workers", "sign_here", "sign_of_other_workers"]

_VARIABLES = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")
_ARGUMENTS_OF_GUNICORN = "GUNICORN_CMD_ARGS"
_WORKERS = ("--workers", "-w")
_RELOADING = "--reload"
_WORKER_OF_GRANIAN = "granian-worker"


def sign_of_other_workers(
    *, environ: Mapping[str, str], argv: Sequence[str], configured: int | None, parent: int | None
) -> str | None:
    """Return what says that this process is one of several workers, None where nothing does.

    - `environ`, `argv`: of this process.
    - `configured`: the number of workers by the server's own account, which settles it; None where it
      doesn't say.
    - `parent`: the process id of the `multiprocessing` parent, None without one.

    A server that reloads its application runs it in a child process too: its command line says so.
    """
    if configured is not None:
        return f"{configured} workers by the server's configuration" if configured > 1 else None
    arguments = [*environ.get(_ARGUMENTS_OF_GUNICORN, "").split(), *argv]
    named = _named_workers(arguments)
    if named is not None:
        return f"--workers {named}" if named > 1 else None
    for variable in _VARIABLES:
        number = _number(environ.get(variable, ""))
        if number is not None:
            return f"{variable}={number}" if number > 1 else None
    if parent is None or _RELOADING in arguments:
        return None
    return f"a multiprocessing parent, process {parent}"


def configured_workers(process: object, siblings: Mapping[int, object]) -> int | None:
    """Return how many workers the server that started this process wants, None where it doesn't say.

    - `process`: this one, as `multiprocessing` knows it. uvicorn and hypercorn hand a child their
      configuration, granian its number, counted from 1: at least so many are there.
    - `siblings`: what gunicorn's arbiter knew of its other workers when it made this one.
    """
    for sibling in siblings.values():
        return _workers_of(getattr(sibling, "cfg", None))
    if getattr(process, "name", None) == _WORKER_OF_GRANIAN:
        return _whole(next(iter(getattr(process, "_args", ())), None))
    config = getattr(process, "_kwargs", {}).get("config")
    # A server that reloads has one worker, whatever number it was told.
    return 1 if getattr(config, "should_reload", False) is True else _workers_of(config)


def sign_here() -> str | None:
    """Return what `sign_of_other_workers` says of this process."""
    # Not imported for this: who was started by it has it, and it takes long.
    multiprocessing = sys.modules.get("multiprocessing.process")
    process = parent = None
    if multiprocessing is not None:
        process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    arbiter = getattr(sys.modules.get("gunicorn.arbiter"), "Arbiter", None)
    return sign_of_other_workers(
        environ=os.environ,
        argv=sys.argv,
        configured=configured_workers(process, getattr(arbiter, "WORKERS", {})),
        parent=None if parent is None else parent.pid,
    )


def _workers_of(config: object) -> int | None:
    return _whole(getattr(config, "workers", None))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _named_workers(arguments: Sequence[str]) -> int | None:
    """Return the number in the last `--workers 4`, `--workers=4`, `-w 4` or `-w4`."""
    found = None
    for option, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = option.partition("=")
        if name in _WORKERS:
            found = _number(value or following)
        elif option.startswith("-w") and option[2:].isdecimal():
            found = _number(option[2:])
    return found
