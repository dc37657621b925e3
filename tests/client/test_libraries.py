"""Which of the two HTTP libraries are installed, and what none of their copies may have."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import libraries
from dpop_middleware.client.libraries import UncopiedHeaders


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


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_a_copy_has_neither_proof_nor_token_and_the_fields_themselves_have_both(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Authorization": "DPoP t", "DPoP": "p", "Accept": "text/plain"}))
    assert (fields["dpop"], fields["authorization"], len(fields)) == ("p", "DPoP t", 3)
    assert sorted(fields) == ["accept", "authorization", "dpop"]
    assert dict(module.Headers(fields)) == {"accept": "text/plain"}
    assert (b"DPoP", b"p") in fields.raw


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_fields_can_be_set_and_removed(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Authorization": "Basic eDp5"}))
    fields["X-Request"] = "1"
    del fields["authorization"]
    assert dict(module.Headers(fields)) == {"x-request": "1"}


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_fields_can_be_shown_and_the_object_can_be_copied(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Accept": "text/plain"}))
    assert repr(fields) == repr(module.Headers({"Accept": "text/plain"}))
    assert copy.copy(fields)["accept"] == "text/plain"
