"""The exception of jose."""

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError


def test_jose_error_says_which_check_failed() -> None:
    error = JOSEError("a fixed sentence", check=Check.JWK)
    assert (str(error), error.description, error.check) == ("a fixed sentence", "a fixed sentence", "jwk")
    assert isinstance(error, ValueError)
