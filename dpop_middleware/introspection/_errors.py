"""Why an introspection endpoint gave no answer; the messages are for logs."""

from typing import Final

__all__ = ["AnswerError", "ConnectionLostError", "EndpointError", "NotNamedError", "error_of_status"]

_LONGEST_RETRY_AFTER: Final = 60
# Nothing can be asked now, or this server may not ask. Any other status is about one token.
_OVERLOADED: Final = frozenset({408, 429, 502, 503, 504})
_NOT_ALLOWED: Final = frozenset({401, 403, 404, 405, 407, *range(300, 400)})


class AnswerError(Exception):
    """An answer that won't be read."""


class EndpointError(Exception):
    """There is no answer.

    `of_token` says that the server is there, and couldn't or wouldn't judge this one token; `declined` that
    it would judge others; `blocked` that the token may be the reason: a filter in front of the server may
    object to it. `retry_after` is in seconds, None where the server doesn't say.
    """

    def __init__(
        self,
        reason: str,
        *,
        of_token: bool = False,
        declined: bool = False,
        blocked: bool = False,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.of_token = of_token
        self.declined = declined
        self.blocked = blocked
        self.retry_after = retry_after


class ConnectionLostError(EndpointError):
    """The connection ended before the answer did."""


class NotNamedError(EndpointError):
    """The issuer's metadata was read, and names no acceptable endpoint or is another issuer's."""


def error_of_status(url: str, status: int, retry_after: str) -> EndpointError:
    """Return the error for an answer of `url` with a status other than 200, and with this `Retry-After`."""
    of_token = status not in _OVERLOADED | _NOT_ALLOWED
    return EndpointError(
        f"{url}: the status is {status}, not 200",
        of_token=of_token,
        declined=of_token and status in range(400, 500),
        blocked=status in _NOT_ALLOWED,
        retry_after=_seconds_to_wait(retry_after),
    )


def _seconds_to_wait(retry_after: str) -> int | None:
    """Return the seconds that the server asks for, within bounds; None for a date and for anything else."""
    if not retry_after.isascii() or not retry_after.isdecimal() or len(retry_after) > 9:
        return None
    return min(max(int(retry_after), 1), _LONGEST_RETRY_AFTER)
