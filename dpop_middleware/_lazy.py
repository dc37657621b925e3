"""Names of a package that are imported at their first use: not everybody needs them, or has their extra."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Never

__all__ = ["Deferred", "importing"]


def importing(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for `package` (PEP 562), which imports each name from its module in `modules`.

    Modules are named from the package on, as in `{"RedisReplayStore": "replay.redis"}`. A name that isn't
    there raises AttributeError. Type checkers are told of the names under TYPE_CHECKING.
    """

    def imported(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module}"), name)

    return imported


class Deferred:
    """A module of which annotations in quotes speak, imported when somebody resolves them.

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
