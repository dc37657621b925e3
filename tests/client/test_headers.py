"""The header fields of an authenticated request: all there for what sends it, fewer in a copy."""

import copy
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client.headers import UncopiedHeaders


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
