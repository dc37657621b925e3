"""The error tree."""

import copy
import pickle
from collections.abc import Callable

import pytest

from dpop_middleware import errors
from dpop_middleware.checks import Check


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (errors.MissingCredentials, 401, None),
        (errors.InvalidRequest, 400, "invalid_request"),
        (errors.InvalidToken, 401, "invalid_token"),
        (errors.InvalidDPoPProof, 401, "invalid_dpop_proof"),
        (errors.UseDPoPNonce, 401, "use_dpop_nonce"),
        (errors.InsufficientScope, 403, "insufficient_scope"),
        (errors.InsufficientUserAuthentication, 401, "insufficient_user_authentication"),
        (errors.Unavailable, 503, None),
    ],
)
def test_each_error_has_its_status_and_code(
    kind: type[errors.DPoPError], status: int, code: str | None
) -> None:
    assert (kind.status, kind.code) == (status, code)
    assert issubclass(kind, errors.DPoPError)


def test_an_error_says_what_was_checked() -> None:
    error = errors.InvalidDPoPProof("no", check=Check.HTM, expected="GET", actual="POST")
    assert (str(error), error.description) == ("no", "no")
    assert (error.check, error.expected, error.actual, error.scheme) == (Check.HTM, "GET", "POST", None)


def test_some_errors_have_further_attributes() -> None:
    nonce = errors.UseDPoPNonce("no", nonce="n")
    assert (nonce.check, nonce.nonce) == (Check.NONCE, "n")
    scope = errors.InsufficientScope("no", scopes=("a", "b"), actual=("c",))
    assert (scope.check, scope.scopes, scope.expected, scope.actual) == (
        Check.SCOPE,
        ("a", "b"),
        ("a", "b"),
        ("c",),
    )
    step_up = errors.InsufficientUserAuthentication("no", acr_values=("high",), max_age=60, actual="low")
    assert (step_up.check, step_up.acr_values, step_up.max_age) == (Check.AUTHENTICATION, ("high",), 60)
    assert (step_up.expected, step_up.actual) == ((("high",), 60), "low")
    unavailable = errors.Unavailable("no", retry_after=7, check=Check.JTI, actual="TimeoutError")
    assert (unavailable.retry_after, unavailable.check, unavailable.actual) == (7, Check.JTI, "TimeoutError")
    assert errors.Unavailable("no").retry_after == 1


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidToken("no", check=Check.TOKEN_AUD, expected=("a",), actual="b"),
        errors.UseDPoPNonce("no", nonce="n"),
        errors.InsufficientScope("no", scopes=("a",), claim="roles"),
        errors.InsufficientUserAuthentication("no", acr_values=("high",), max_age=60),
        errors.Unavailable("no", retry_after=7),
    ],
)
def test_an_error_can_be_copied_and_sent_to_another_process(
    error: errors.DPoPError, copied: Callable[[errors.DPoPError], errors.DPoPError]
) -> None:
    other = copied(error)
    assert (type(other), str(other), vars(other)) == (type(error), "no", vars(error))


def test_a_wrong_configuration_is_no_refusal() -> None:
    assert issubclass(errors.ConfigurationError, ValueError)
    assert not issubclass(errors.ConfigurationError, errors.DPoPError)
