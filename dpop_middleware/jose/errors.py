"""The one exception of this package."""

from dpop_middleware.checks import Check, Reason

__all__ = ["JOSEError"]


class JOSEError(ValueError):
    """A JWS or a JWK that can't be accepted.

    `description` is a fixed sentence without anything of the input in it. `check` says which check failed:
    `Check.FORMAT`, `Check.ALG` or `Check.JWK`. `member` is the name of the JWK's member at fault, which the
    description ends with; None where no single one is. `reason` says more than the check where it can.
    """

    def __init__(
        self, description: str, *, check: Check, member: str | None = None, reason: Reason | None = None
    ) -> None:
        super().__init__(description)
        self.description = description
        self.check = check
        self.member = member
        self.reason = reason
