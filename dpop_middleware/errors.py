"""What can go wrong, as RFC 9449 section 7.1 and RFC 6750 section 3.1 name it.

DPoPError
├ MissingCredentials              401, no error code
├ InvalidRequest                  400 invalid_request
├ InvalidToken                    401 invalid_token
├ InvalidDPoPProof                401 invalid_dpop_proof
├ UseDPoPNonce                    401 use_dpop_nonce
├ InsufficientScope               403 insufficient_scope
├ InsufficientUserAuthentication  401 insufficient_user_authentication
└ Unavailable                     503, Retry-After
ConfigurationError(ValueError)    the setup, no request
"""

from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from dpop_middleware.checks import Check, Reason

__all__ = [
    "ConfigurationError",
    "DPoPError",
    "InsufficientScope",
    "InsufficientUserAuthentication",
    "InvalidDPoPProof",
    "InvalidRequest",
    "InvalidToken",
    "MissingCredentials",
    "Refusal",
    "Scheme",
    "Unavailable",
    "UseDPoPNonce",
]

Scheme = Literal["DPoP", "Bearer"]
_Error = TypeVar("_Error", bound="DPoPError")


class ConfigurationError(ValueError):
    """The library's configuration is wrong; the message says what to change."""


class Refusal(NamedTuple):
    """What the server knew about the request that it refused.

    `scheme` is the authentication scheme that the request used, None where it used none or it is unknown.
    `jkt`, `client_id`, `issuer` and `subject` are the access token's, None where it wasn't verified, and
    `actor` is the party that acts with it (RFC 8693), None if there is none. `nonce` must be sent to the
    client with the answer (RFC 9449 section 8.2); None for no nonce. `reason` is why the check failed, where
    the check alone doesn't say.
    """

    scheme: Scheme | None = None
    jkt: str | None = None
    client_id: str | None = None
    nonce: str | None = None
    reason: Reason | None = None
    issuer: str | None = None
    actor: str | None = None
    subject: str | None = None


_NOTHING_KNOWN = Refusal()


class DPoPError(Exception):
    """A request that may not reach the application.

    `status` is the HTTP status of the answer, `code` its OAuth error code, None for an answer without one.
    `description` is a fixed sentence that the client may read. `check` is the check that failed, None where
    that is unknown. `expected` and `actual` are for logs and events only: they can contain values from the
    request, but never a token or a proof. `refusal` is what was known about the request; `scheme`, `jkt`,
    `client_id`, `nonce` and `reason` are some of its fields. An error never changes after it was raised.
    """

    status: ClassVar[int]
    code: ClassVar[str | None]

    def __init__(
        self,
        description: str,
        *,
        check: Check | None = None,
        expected: object = None,
        actual: object = None,
        refusal: Refusal = _NOTHING_KNOWN,
    ) -> None:
        super().__init__(description)
        self.description = description
        self.check = check
        self.expected = expected
        self.actual = actual
        self.refusal = refusal

    @property
    def scheme(self) -> Scheme | None:
        """The authentication scheme that the request used, None where it used none or it is unknown."""
        return self.refusal.scheme

    @property
    def jkt(self) -> str | None:
        """The thumbprint that the access token is bound to, None where the token wasn't verified."""
        return self.refusal.jkt

    @property
    def client_id(self) -> str | None:
        """The client of the access token, None where the token wasn't verified."""
        return self.refusal.client_id

    @property
    def nonce(self) -> str | None:
        """The nonce for the client (RFC 9449 section 8.2), None if there is none."""
        return self.refusal.nonce

    @property
    def reason(self) -> Reason | None:
        """Why the check failed, where the check alone doesn't say."""
        return self.refusal.reason

    def __reduce__(self) -> tuple[Any, ...]:
        return _unfinished, (type(self), self.args), self.__dict__

    def restated(self, *, check: Check | None = None, refusal: Refusal | None = None) -> Self:
        """Return a copy of this error with more knowledge about the request, and with the same cause.

        `check` and `refusal` replace the error's own; None keeps it.
        """
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        if check is not None:
            error.check = check
        if refusal is not None:
            error.refusal = refusal
        error.__cause__ = self.__cause__
        return error


def _unfinished(kind: type[_Error], args: tuple[Any, ...]) -> _Error:
    """Return an error without its attributes, for a copy: constructors differ from class to class."""
    return kind.__new__(kind, *args)


class MissingCredentials(DPoPError):
    """No `Authorization` field, or one with a scheme that isn't accepted here (RFC 9449 section 7.1)."""

    status = 401
    code = None


class InvalidRequest(DPoPError):
    """A request that is malformed or ambiguous (RFC 6750 section 3.1)."""

    status = 400
    code = "invalid_request"


class InvalidToken(DPoPError):
    """The access token is not valid here, or not for this scheme or key (RFC 9449 section 7.1)."""

    status = 401
    code = "invalid_token"


class InvalidDPoPProof(DPoPError):
    """The DPoP proof is missing, wrong, stale or used before (RFC 9449 section 7.1)."""

    status = 401
    code = "invalid_dpop_proof"


class UseDPoPNonce(DPoPError):
    """The proof needs the server's nonce; `nonce` is the one to use (RFC 9449 section 9).

    `actual` is the nonce of the proof, None for a proof without one.
    """

    status = 401
    code = "use_dpop_nonce"

    def __init__(self, description: str, *, nonce: str, actual: str | None = None) -> None:
        super().__init__(description, check=Check.NONCE, actual=actual, refusal=Refusal(nonce=nonce))


class InsufficientScope(DPoPError):
    """The token lacks a scope, or a claim doesn't have the value that the route needs (RFC 6750 section 3.1).

    `scopes` are the ones that the route needs, which may be none. `claim` is the name of the claim, None if
    the token lacks a scope.
    """

    status = 403
    code = "insufficient_scope"

    def __init__(
        self, description: str, *, scopes: tuple[str, ...], claim: str | None = None, actual: object = None
    ) -> None:
        super().__init__(
            description, check=Check.SCOPE, expected=scopes if claim is None else claim, actual=actual
        )
        self.scopes = scopes
        self.claim = claim


class InsufficientUserAuthentication(DPoPError):
    """The route needs a stronger or more recent login of the user (RFC 9470 section 3).

    `acr_values` are the acceptable authentication contexts, `max_age` is in whole seconds; each may be empty
    or None where the route doesn't ask for it.
    """

    status = 401
    code = "insufficient_user_authentication"

    def __init__(
        self, description: str, *, acr_values: tuple[str, ...], max_age: int | None, actual: object = None
    ) -> None:
        super().__init__(
            description, check=Check.AUTHENTICATION, expected=(acr_values, max_age), actual=actual
        )
        self.acr_values = acr_values
        self.max_age = max_age


class Unavailable(DPoPError):
    """The verdict can't be known now; `retry_after` is in whole seconds (RFC 9110 section 10.2.3).

    `newer_proof` says that a proof made later, or with a newer nonce, could be judged: a store lost entries.
    `judges_from`, in seconds since the epoch, says how new: the earliest time at which the proof could have
    been accepted must not be before it. None if the store doesn't know.
    """

    status = 503
    code = None

    def __init__(
        self,
        description: str,
        *,
        retry_after: int = 1,
        newer_proof: bool = False,
        judges_from: float | None = None,
        check: Check | None = None,
        actual: object = None,
        refusal: Refusal = _NOTHING_KNOWN,
    ) -> None:
        super().__init__(description, check=check, actual=actual, refusal=refusal)
        self.retry_after = retry_after
        self.newer_proof = newer_proof
        self.judges_from = judges_from
