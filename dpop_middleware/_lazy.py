"""Names of a package that are imported at their first use: not everybody needs them, or has their extra."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["importing"]


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
