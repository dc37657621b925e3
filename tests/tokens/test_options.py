"""What a verifier may be configured with."""

from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.options import checked_token_types


def test_token_types() -> None:
    assert checked_token_types(["AT+JWT", "JWT", None]) == ("at+jwt", "jwt", None)
    assert checked_token_types(["application/at+jwt", "at+jwt", "x/y"]) == ("at+jwt", "x/y")


@pytest.mark.parametrize("types", ["at+jwt", [], None, 5, [""], [5], ["\u212a"]])
def test_what_token_types_are_not(types: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_types takes the accepted values of typ"):
        checked_token_types(types)
