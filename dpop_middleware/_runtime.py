"""What this process runs under: its clock, its event loop, parts that open and close, late imports."""

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any, Final, Never

from dpop_middleware.errors import ConfigurationError

__all__ = ["Deferred", "aclose_parts", "check_event_loop", "importing", "open_parts", "system_time"]


def system_time() -> float:
    """Return seconds since the epoch by `time.time`, looked up now, so that a test may replace it."""
    return time.time()


def check_event_loop() -> None:
    """Raise ConfigurationError where the caller runs under another library than asyncio, such as trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "dpop_middleware runs under asyncio only: let the server use its asyncio worker, not trio "
            "(hypercorn --worker-class asyncio)"
        ) from None


async def open_parts(*parts: object) -> None:
    """Await `part.open()` of each part that has it: it then begins to connect, and doesn't wait for it.

    Where one can't be opened, those before it are closed.
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
    """Await `part.aclose()` of each part that has it, of all even if one fails."""
    async with AsyncExitStack() as stack:
        for part in reversed(parts):
            close = getattr(part, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)


def importing(
    package: str, modules: Mapping[str, str], *, either: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return a `__getattr__` for `package` (PEP 562), which imports each name from its module in `modules`.

    Modules are named from the package on, as in `{"RedisReplayStore": "replay.redis"}`. A name that isn't
    there raises AttributeError. Type checkers are told of the names under TYPE_CHECKING, and whoever asks for
    `dir(package)`, as completion does, by what is in its `__all__`: not where all these names need one of the
    libraries `either` and none is installed, since who asks for names looks at each of them next.
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
    """A module that is imported when somebody looks at it: code that only some run, or annotations in quotes.

    So `typing.get_type_hints`, and the tools that call it, know what type checkers know. Of a library that
    isn't installed every class is `Never`: nobody has an instance.
    """

    def __init__(self, module: str) -> None:
        self._module: Final = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # who looks at all that a module holds imports nothing
            raise AttributeError(name)
        try:
            module = import_module(self._module)
        except ModuleNotFoundError as error:
            if error.name != self._module:
                raise
            return Never
        return getattr(module, name)
