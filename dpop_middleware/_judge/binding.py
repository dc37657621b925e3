"""Whether an access token may come with a proof, and with this one."""

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.options import LONGEST_CLOCK_SKEW

__all__ = ["bound_to_another", "check_bound", "check_not_expired", "check_unbound"]


def check_bound(token: AccessToken, now: float) -> None:
    """Raise InvalidToken for a token without a key, and as `check_not_expired` does."""
    if token.jkt is None:
        raise InvalidToken("the access token is not bound to a key", check=Check.BINDING)
    check_not_expired(token, now)


def check_unbound(token: AccessToken) -> None:
    """Raise InvalidToken for a token that is bound to anything: no Bearer token is."""
    if token.jkt is not None or "cnf" in token.claims:
        raise InvalidToken("the access token is bound to a key: use it with DPoP", check=Check.BINDING)


def check_not_expired(token: AccessToken, now: float) -> None:
    """Raise InvalidToken for a token that expired so long ago that all clocks agree."""
    if token.expires_at + LONGEST_CLOCK_SKEW <= now:
        raise InvalidToken(
            "the access token has expired", check=Check.TOKEN_TIME, expected=now, actual=token.expires_at
        )


def bound_to_another(jkt: str | None, presented: str) -> InvalidToken:
    """Return the error for a token bound to `jkt` that came with a proof of the key `presented`."""
    return InvalidToken(
        "the access token is bound to another key than the proof's",
        check=Check.JKT,
        expected=jkt,
        actual=presented,
    )
