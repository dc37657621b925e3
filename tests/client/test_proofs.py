"""Nonces are remembered per origin, bounded, and only when they are well-formed; of either HTTP library."""

import importlib
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import proofs
from dpop_middleware.client.proofs import OriginMemory, is_refused_for, one_nonce


def test_each_origin_has_its_own_nonce_and_the_last_counts() -> None:
    memory: OriginMemory[str] = OriginMemory()
    memory.remember("https://a", "1")
    memory.remember("https://b", "2")
    memory.remember("https://a", "3")
    assert [memory.get(origin) for origin in ("https://a", "https://b", "https://c")] == ["3", "2", None]


def test_the_origin_with_the_oldest_nonce_is_forgotten() -> None:
    memory: OriginMemory[str] = OriginMemory(limit=2)
    for origin in ("a", "b", "a", "c"):
        memory.remember(origin, f"nonce of {origin}")
    assert [memory.get(origin) for origin in ("a", "b", "c")] == ["nonce of a", None, "nonce of c"]


@pytest.mark.parametrize(
    ("fields", "nonce"),
    [
        (["eyJ7S_zG.eyJH0-Z.HX4w-7v"], "eyJ7S_zG.eyJH0-Z.HX4w-7v"),
        ([" a\t"], "a"),
        (["a", "a"], "a"),
        (["!#[]~"], "!#[]~"),
        (["x" * 2048], "x" * 2048),
        ([], None),
        ([""], None),
        (["a", "b"], None),
        (["a b"], None),
        (['a"b'], None),
        (["a\\b"], None),
        (["a\x7f"], None),
        (["ä"], None),
        (["x" * 2049], None),
    ],
)
def test_exactly_one_well_formed_nonce_is_accepted(fields: list[str], nonce: str | None) -> None:
    assert one_nonce(fields) == nonce


@pytest.mark.parametrize(
    ("challenges", "body", "demanded"),
    [
        (['DPoP error="use_dpop_nonce", error_description="Resource server requires nonce"'], None, True),
        (["dpop realm=x, error=use_dpop_nonce"], None, True),
        (["Bearer", 'DPoP algs="ES256", error = "use_dpop_nonce"'], None, True),
        (['Bearer realm="x", DPoP error="use_dpop_nonce"'], None, True),
        ([], {"error": "use_dpop_nonce"}, True),
        ([], None, False),
        (["DPoP"], None, False),
        (['DPoP error="invalid_token"'], {"error": "invalid_token"}, False),
        (['Bearer error="use_dpop_nonce"'], None, False),
        (['DPoP error="use_dpop_nonces"'], None, False),
        (['DPoP realm="a, b", error="use_dpop_nonce"'], None, True),
        (['Bearer error="use_dpop_nonce", DPoP'], None, False),
        # A search that backtracks for each of these takes minutes.
        (["DPoP " * 200_000], None, False),
        (["DPoP " + "error=" * 200_000], None, False),
        ([], ["use_dpop_nonce"], False),
        ([], {"error": ["use_dpop_nonce"]}, False),
    ],
)
def test_the_nonce_demand_of_both_kinds_of_server_is_recognised(
    challenges: list[str], body: object, demanded: bool
) -> None:
    assert is_refused_for("use_dpop_nonce", challenges, body) is demanded


@pytest.mark.parametrize(
    ("challenges", "body", "refused"),
    [
        (['DPoP error="invalid_dpop_proof"'], None, True),
        ([], {"error": "invalid_dpop_proof"}, True),
        (['DPoP error="use_dpop_nonce"'], {"error": "use_dpop_nonce"}, False),
    ],
)
def test_a_refused_proof_differs_from_a_nonce_demand(
    challenges: list[str], body: object, refused: bool
) -> None:
    assert is_refused_for("invalid_dpop_proof", challenges, body) is refused


def test_one_library_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*names: str) -> Callable[[str], Any]:
        def imported(name: str) -> Any:
            if name not in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return importlib.import_module(name)

        return imported

    for name in ("httpx", "httpx2"):
        monkeypatch.setattr(proofs, "import_module", only(name))
        assert proofs.installed("Auth") == (importlib.import_module(name).Auth,)
    monkeypatch.setattr(proofs, "import_module", only())
    with pytest.raises(ModuleNotFoundError) as caught:
        proofs.installed("Auth")
    assert str(caught.value) == (
        "the client's side needs httpx2 or httpx: "
        "in a checkout of dpop_middleware, python -m pip install '.[client]'"
    )

    def broken(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'httpcore'", name="httpcore")

    monkeypatch.setattr(proofs, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="httpcore"):
        proofs.installed("Auth")


def test_one_library_with_both_names_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "import_module", lambda _name: httpx2)
    assert proofs.installed("Auth") == (httpx2.Auth,)


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_the_library_of_a_request_is_found(module: Any) -> None:
    assert proofs.library_of(module.Request("GET", "https://api.example.com/")) is module
