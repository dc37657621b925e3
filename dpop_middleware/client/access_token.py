"""The access token that a client sends: what an `Authorization` field can hold (RFC 6750 section 2.1)."""

import re
from typing import Final, TypeGuard

__all__ = ["checked_access_token", "is_access_token"]

# Without the spaces that RFC 6749 appendix A.12 allows: no field has them (RFC 6750 section 2.1).
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


def is_access_token(value: object) -> TypeGuard[str]:
    """Whether `value` is a string that can stand in a header field as an access token."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def checked_access_token(value: object) -> str:
    """Return the token; raises ValueError, without the token, for one that no header field can hold."""
    if not is_access_token(value):
        raise ValueError(
            "the access token is not visible ASCII: "
            "is it empty, does it begin with 'DPoP ', or does it end in a line break?"
        )
    return value
