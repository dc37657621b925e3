"""Why an introspection endpoint gave no answer; the messages are for logs."""

from typing import Final

__all__ = ["AnswerError", "ConnectionLostError", "EndpointError", "NotNamedError", "seconds_to_wait"]

_LONGEST_RETRY_AFTER: Final = 60


class AnswerError(Exception):
    """An answer that won't be read."""


class EndpointError(Exception):
    """There is no answer.

    `of_token` says that the server is there, and couldn't or wouldn't judge this one token; `declined` that
    it would judge others. `retry_after` is in seconds, None where the server doesn't say.
    """

    def __init__(
        self,
        reason: str,
        *,
        of_token: bool = False,
        declined: bool = False,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.of_token = of_token
        self.declined = declined
        self.retry_after = retry_after


class ConnectionLostError(EndpointError):
    """The connection ended before the answer did."""


class NotNamedError(EndpointError):
    """The issuer's metadata were read, and name no acceptable endpoint, or are another issuer's."""


def seconds_to_wait(retry_after: str) -> int | None:
    """Return the seconds that the server asks for, within bounds; None for a date and for anything else."""
    if not retry_after.isascii() or not retry_after.isdecimal() or len(retry_after) > 9:
        return None
    return min(max(int(retry_after), 1), _LONGEST_RETRY_AFTER)
