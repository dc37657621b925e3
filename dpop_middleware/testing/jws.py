"""Signed tokens with any content, valid or not: for tests only."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from dpop_middleware.client.key import DPoPKey
from dpop_middleware.jose import base64url

__all__ = ["ABSENT", "Absent", "encode_jws", "merged"]


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""In place of a claim or header member: leave it out. In place of a key: no signature."""


def merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` updated by `overrides`, without the members that are ABSENT."""
    return {name: value for name, value in {**defaults, **overrides}.items() if value is not ABSENT}


def encode_jws(
    header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str, *, key: DPoPKey | bytes | Absent
) -> str:
    """Return a compact JWS with the given content; nothing is checked (RFC 7515 section 7.1).

    `header` and `claims` are JSON objects, or JSON text for what no mapping can hold, such as a duplicate
    member. `key` signs by its own algorithm, whatever the header says; bytes are an HMAC-SHA256
    secret; ABSENT leaves the signature empty.
    """
    segments = [
        base64url.encode((part if isinstance(part, str) else json.dumps(part)).encode())
        for part in (header, claims)
    ]
    signing_input = ".".join(segments).encode()
    return f"{signing_input.decode()}.{base64url.encode(_signature(signing_input, key))}"


def _signature(signing_input: bytes, key: DPoPKey | bytes | Absent) -> bytes:
    if isinstance(key, DPoPKey):
        return key.sign(signing_input)
    if isinstance(key, bytes):
        return hmac.digest(key, signing_input, hashlib.sha256)
    return b""
