"""The environment of this process: its clock, its event loop, parts that open and close, late imports."""

import asyncio
import contextvars
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any, Final, NamedTuple, Never, TypeVar

from dpop_middleware.errors import ConfigurationError

__all__ = [
    "Deferred",
    "Moment",
    "aclose_parts",
    "begin",
    "check_event_loop",
    "importing",
    "installed",
    "is_cancellation",
    "library_of",
    "open_parts",
    "system_time",
]

_Result = TypeVar("_Result")


def system_time() -> float:
    """Return seconds since the epoch by `time.time`, looked up now, so that a test may replace it."""
    return time.time()


class Moment(NamedTuple):
    """A moment by the wall clock and by the monotonic one, in seconds."""

    wall: float
    monotonic: float

    def age(self, *, wall: float, monotonic: float) -> float:
        """Return the seconds since this moment: the most by the two clocks, of which these are the times now.

        So nothing lasts longer when the wall clock is set back, or when the machine slept.
        """
        return max(wall - self.wall, monotonic - self.monotonic)


def check_event_loop() -> None:
    """Raise ConfigurationError if the caller doesn't run under asyncio, but under trio for example."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "dpop_middleware runs under asyncio only: let the server use its asyncio worker, not trio "
            "(hypercorn --worker-class asyncio)"
        ) from None


def begin(
    coroutine: Coroutine[Any, Any, _Result], *, name: str, context: contextvars.Context | None = None
) -> asyncio.Task[_Result]:
    """Return a task that runs `coroutine` from the event loop's next turn on.

    The loop's task factory isn't asked: an eager one would run it before the caller has recorded the task.
    Give an empty `context` where it isn't only the current request that needs the task.
    """
    return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)


def is_cancellation(error: BaseException) -> bool:
    """Return whether `error` cancels the running task, which then must end.

    A user's own part may raise CancelledError without that: where something that it awaits was cancelled,
    such as a task that requests share. That is an error like any other.
    """
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is not None and task.cancelling() > 0


async def open_parts(*parts: object) -> None:
    """Await `part.open()` of each part that has it: the part then begins to connect in the background.

    If one can't be opened, those before it are closed.
    """
    check_event_loop()
    for number, part in enumerate(parts):
        start = getattr(part, "open", None)
        try:
            if start is not None:
                await start()
        except BaseException:
            await aclose_parts(*parts[:number])
            raise


async def aclose_parts(*parts: object) -> None:
    """Await `part.aclose()` of each part that has it, even if one of them fails."""
    async with AsyncExitStack() as stack:
        for part in reversed(parts):
            close = getattr(part, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)


def importing(
    package: str, modules: Mapping[str, str], *, either: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return a `__getattr__` for `package` (PEP 562), which imports each name from its module in `modules`.

    Modules are named relative to the package, as in `{"RedisReplayStore": "replay.redis"}`. A missing name
    raises AttributeError. For type checkers the names are imported under TYPE_CHECKING. `dir(package)`, which
    completion uses, shows all of `__all__`, unless these names need one of the libraries `either` and none is
    installed: a tool that lists names also looks them up.
    """
    known = vars(sys.modules[package])

    def names() -> list[str]:
        # Nobody else needs that module.
        there = not either or any(map(import_module("importlib.util").find_spec, either))
        return sorted({*known, *(known["__all__"] if there else ())})

    known["__dir__"] = names

    def imported(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module}"), name)

    return imported


class Deferred:
    """A module that is imported at its first use: rarely used code, or annotations in quotes.

    With it, `typing.get_type_hints`, and the tools that call it, find the same types as type checkers. Every
    class of a library that isn't installed is `Never`: no instance can exist.
    """

    def __init__(self, module: str) -> None:
        self._module: Final = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a tool that inspects all names of a module imports nothing
            raise AttributeError(name)
        try:
            module = import_module(self._module)
        except ModuleNotFoundError as error:
            if error.name != self._module:
                raise
            return Never
        return getattr(module, name)


def installed(*names: str) -> tuple[Any, ...]:
    """Return the classes with these names from httpx2 and httpx, as far as they are installed.

    Raises ModuleNotFoundError where neither is.
    """
    return tuple(getattr(library, name) for library in _libraries() for name in names)


def library_of(request: object) -> Any:
    """Return the one of httpx2 and httpx to which `request` belongs."""
    return next(library for library in _libraries() if isinstance(request, library.Request))


def _libraries() -> list[Any]:
    found: list[Any] = []
    for name in ("httpx2", "httpx"):
        try:
            library = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            # After `httpx2.alias_httpx()` both names are one library's.
            if library not in found:
                found.append(library)
    if not found:
        raise ModuleNotFoundError(
            "the client's side needs httpx2 or httpx: "
            "in a checkout of dpop_middleware, python -m pip install '.[client]'",
            name="httpx2",
        )
    return found
