"""Whether another process may be serving the same application, as far as that can be seen from inside."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence

__all__ = ["sign_here", "sign_of_other_workers"]

_VARIABLE = "WEB_CONCURRENCY"
_ARGUMENTS_OF_GUNICORN = "GUNICORN_CMD_ARGS"
_WORKERS = ("--workers", "-w")
_RELOADING = "--reload"


def sign_of_other_workers(
    *, environ: Mapping[str, str], argv: Sequence[str], under_gunicorn: bool, parent: int | None
) -> str | None:
    """Return what says that this process is one of several workers, None where nothing does.

    - `environ`, `argv`: of this process. `under_gunicorn`: whether gunicorn started it.
    - `parent`: the process id of the `multiprocessing` parent, None without one.

    A server that reloads its application runs it in a child process too: its command line says so.
    """
    arguments = [*environ.get(_ARGUMENTS_OF_GUNICORN, "").split(), *argv]
    named = _named_workers(arguments)
    if named is None:
        named = _number(environ.get(_VARIABLE, ""))
        if named is not None and named > 1:
            return f"{_VARIABLE}={named}"
    if named is not None:
        return f"--workers {named}" if named > 1 else None
    if _RELOADING in arguments:
        return None
    if under_gunicorn:
        return "gunicorn, whose number of workers isn't on its command line"
    return None if parent is None else f"a multiprocessing parent, process {parent}"


def sign_here() -> str | None:
    """Return what `sign_of_other_workers` says of this process."""
    parent = multiprocessing.parent_process()
    return sign_of_other_workers(
        environ=os.environ,
        argv=sys.argv,
        under_gunicorn="gunicorn.arbiter" in sys.modules,
        parent=None if parent is None else parent.pid,
    )


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
