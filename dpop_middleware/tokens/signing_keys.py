"""Which of an issuer's keys made a signature, where the token doesn't say (RFC 7515 section 4.1.4).

A token without `kid` may be signed by any key that fits. Whoever forges one would have us try them all, so at
most two are tried, and of tries beyond the first only ten a second may be in vain: a flood of forgeries costs
one verification each. The key that made the last good signature is tried first; while only one may be tried,
the two have it in turns.
"""

import time
from collections.abc import Callable
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.tokens.jwks import VerificationKey
from dpop_middleware.tokens.signed_token import SignedToken

__all__ = ["SigningKeys"]

_MAX_TRIES: Final = 2
_VAIN_TRIES_PER_SECOND: Final = 10


class SigningKeys:
    """Finds the key that signed a token, at a bounded cost; `monotonic` returns seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = ""
        self._second = 0
        self._in_vain = 0
        self._turns = 0

    def signer(
        self, signed: SignedToken, keys: tuple[VerificationKey, ...], *, tried: int = 0
    ) -> VerificationKey | None:
        """Return the first of `keys` that made the signature, or None.

        `tried` is how many keys were tried for this token before. Raises InvalidToken where too many tries
        were in vain just now to try another key.
        """
        if len(keys) > 1:
            keys = tuple(sorted(keys, key=self._is_another))[:_MAX_TRIES]
        only_one = tried + len(keys) > 1 and self._budget_is_spent()
        if only_one:
            self._turns += 1
            # In turns: whoever sends forgeries must not lock out all tokens of an issuer's other key.
            keys = () if tried else (keys[self._turns % len(keys)],)
        for key in keys:
            if signed.is_signed_by(key):
                self._last = key.identity
                return key
            if tried:
                self._in_vain += 1
            tried += 1
        if only_one:
            raise InvalidToken(
                "the access token names no key, and its signature is by none of those tried",
                check=Check.TOKEN_KEY,
                expected="kid",
            )
        return None

    def _is_another(self, key: VerificationKey) -> bool:
        return key.identity != self._last

    def _budget_is_spent(self) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._in_vain = second, 0
        return self._in_vain >= _VAIN_TRIES_PER_SECOND
