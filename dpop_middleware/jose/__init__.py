"""JOSE as strictly as a resource server needs it: compact JWS, JSON, base64url, keys and algorithms.

Everything here is a pure function of its arguments. Hostile input raises `JOSEError` and nothing else;
a signature that doesn't verify is False. Input that PyJWT and cryptography would accept (padding, duplicate
names, private members, weak keys, points of small order) is refused before they see it.

    base64url.py    canonical base64url (RFC 7515 section 2)
    strict.py       a compact JWS and its header (RFC 7515), one JSON object with each name once (RFC 8259)
    algorithms.py   the closed table of algorithms, with ML-DSA where this system has it
    jwk.py          JWK -> public key, JWK -> thumbprint (RFC 7517, RFC 7638)
"""

from typing import Final

from dpop_middleware.checks import Check, Reason

__all__ = ["LATEST_TIME", "JOSEError"]

LATEST_TIME: Final = 253_402_300_799
"""The last second of the year 9999, in seconds since the epoch: a later time in a JWT is malformed."""


class JOSEError(ValueError):
    """A JWS or a JWK that can't be accepted.

    `description` is a fixed sentence that contains nothing of the input. `check` says which check failed:
    `Check.FORMAT`, `Check.ALG` or `Check.JWK`. `member` is the name of the JWK's wrong member, with which the
    description ends; None where no single member is wrong. `reason` is more exact than the check, where
    known.
    """

    def __init__(
        self, description: str, *, check: Check, member: str | None = None, reason: Reason | None = None
    ) -> None:
        super().__init__(description)
        self.description = description
        self.check = check
        self.member = member
        self.reason = reason
