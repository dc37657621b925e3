"""Base64url without padding, in its canonical form only (RFC 7515 section 2, RFC 4648 section 3.5)."""

from binascii import a2b_base64, b2a_base64
from typing import Final

from dpop_middleware.checks import Check, Reason
from dpop_middleware.jose import JOSEError

__all__ = ["decode", "encode"]

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")

# `+`, `/` and `=` become a byte outside the alphabet, so that a2b_base64's strict mode refuses them.
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")

_PADDING: Final = (b"", b"", b"==", b"=")

# By the length modulo 4: the last characters whose unused bits are zero. Nothing encodes to length 1.
_LAST: Final = (None, "", "AQgw", "AEIMQUYcgkosw048")


def encode(data: bytes) -> str:
    """Return `data` in base64url without padding (RFC 7515 section 2)."""
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")


def decode(text: str) -> bytes:
    """Return the bytes that `text` encodes, so that `encode(decode(text)) == text` (RFC 7515 section 2).

    Raises JOSEError (`Check.FORMAT`) for padding, for `+`, `/`, white space or any other character outside
    the alphabet, for a length that nothing encodes to, and for unused bits that aren't zero.
    """
    remainder = len(text) % 4
    last = _LAST[remainder]
    if last is not None and text[-1] not in last:
        raise JOSEError(
            "a segment or member is not canonical base64url", check=Check.FORMAT, reason=Reason.NOT_BASE64URL
        )
    try:
        return a2b_base64(text.encode("ascii").translate(_FROM_URL) + _PADDING[remainder], strict_mode=True)
    except ValueError as error:
        raise JOSEError(
            "a segment or member is not base64url", check=Check.FORMAT, reason=Reason.NOT_BASE64URL
        ) from error
