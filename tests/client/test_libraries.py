"""Which of the two HTTP libraries are installed."""

import importlib
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import libraries


def test_one_library_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*names: str) -> Callable[[str], Any]:
        def imported(name: str) -> Any:
            if name not in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return importlib.import_module(name)

        return imported

    for name in ("httpx", "httpx2"):
        monkeypatch.setattr(libraries, "import_module", only(name))
        assert libraries.installed("Auth") == (importlib.import_module(name).Auth,)
    monkeypatch.setattr(libraries, "import_module", only())
    with pytest.raises(ModuleNotFoundError) as caught:
        libraries.installed("Auth")
    assert str(caught.value) == (
        "the client's side needs httpx2 or httpx: "
        "in a checkout of dpop_middleware, python -m pip install '.[client]'"
    )

    def broken(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'httpcore'", name="httpcore")

    monkeypatch.setattr(libraries, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="httpcore"):
        libraries.installed("Auth")


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_a_request_tells_its_library(module: Any) -> None:
    assert libraries.library_of(module.Request("GET", "https://api.example.com/")) is module
