"""What a verifier may be configured with."""

import math
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.options import checked_count, checked_names, checked_seconds, checked_token_types


@pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}])
def test_names(names: Any) -> None:
    assert checked_names("scope_claims", names) == ("a", "b")


@pytest.mark.parametrize("names", ["ab", b"ab", [], (), None, 5, ["a", ""], ["a", None], [b"a"]])
def test_what_names_are_not(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="scope_claims takes a sequence of non-empty strings"):
        checked_names("scope_claims", names)


@pytest.mark.parametrize("seconds", [1, 1.5, 60])
def test_seconds(seconds: float) -> None:
    assert checked_seconds("jwks_timeout", seconds, minimum=1, maximum=60) == seconds


@pytest.mark.parametrize("seconds", [True, "5", None, math.nan, math.inf])
def test_what_seconds_are_not(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="jwks_timeout takes a finite number of seconds"):
        checked_seconds("jwks_timeout", seconds, minimum=1)


@pytest.mark.parametrize("seconds", [0.9, -1, 61])
def test_seconds_out_of_bounds(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="jwks_timeout must be at least 1 and at most 60 seconds"):
        checked_seconds("jwks_timeout", seconds, minimum=1, maximum=60)


def test_counts() -> None:
    assert checked_count("max_cached_tokens", 0) == 0
    for wrong in (-1, 1.0, True, None):
        with pytest.raises(ConfigurationError, match="max_cached_tokens takes a whole number of at least 0"):
            checked_count("max_cached_tokens", wrong)


def test_token_types() -> None:
    assert checked_token_types(["AT+JWT", "JWT", None]) == ("at+jwt", "jwt", None)
    assert checked_token_types(["application/at+jwt", "at+jwt", "x/y"]) == ("at+jwt", "x/y")


@pytest.mark.parametrize("types", ["at+jwt", [], None, 5, [""], [5], ["\u212a"]])
def test_what_token_types_are_not(types: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_types takes the accepted values of typ"):
        checked_token_types(types)
