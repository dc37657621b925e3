"""The access token that a client sends."""

from typing import Any

import pytest

from dpop_middleware.client.access_token import checked_access_token, is_access_token


def test_a_token_that_a_field_can_hold_is_returned() -> None:
    assert checked_access_token("ab.c~1=") == "ab.c~1="
    assert is_access_token("ab.c~1=")


@pytest.mark.parametrize("value", ["", "the-secret\n", "DPoP the-secret", "the-secret€", b"the-secret", None])
def test_any_other_is_refused_without_quoting_it(value: Any) -> None:
    assert not is_access_token(value)
    with pytest.raises(ValueError, match="does it end in a line break") as refused:
        checked_access_token(value)
    assert "secret" not in str(refused.value)
