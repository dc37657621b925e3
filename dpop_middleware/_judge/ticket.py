"""A ticket for one handshake: what it says, and how it is sealed so that nobody can read or make one.

It holds the access token of the request that asked for it and what was proved then, encrypted by AES-GCM
under keys that only the workers of one server have. The token is verified again when it is redeemed.
"""

import hmac
import json
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware.jose import base64url
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.nonces import Nonce

__all__ = ["MAX_TICKET_SIZE", "UNIQUE_SIZE", "Seal", "Ticket"]

UNIQUE_SIZE = 12
MAX_TICKET_SIZE = 7_500
"""Servers read lines of a header up to 8 KiB."""

# What is in a ticket may change from one release to the next.
_LABEL = "dpop websocket ticket 1"


class Ticket(NamedTuple):
    """What a ticket says; times are in seconds since the epoch.

    - `access_token`: as the client sent it. `target`: the URI that the ticket is for, in normal form.
    - `origin`: of the page that asked, None where its request named none.
    - `issued_at`, `expires_at`: when the ticket was issued, and from when on nobody takes it.
    - `authenticated_at`, `proof`, `nonce`: when the request was judged, and what was known of its proof.
    - `name`: names the sealed ticket in the replay store; it isn't part of what is sealed.
    """

    access_token: str
    target: str
    origin: str | None
    issued_at: float
    expires_at: float
    authenticated_at: float
    proof: DPoPProof | None
    nonce: Nonce | None
    name: str = ""

    def __repr__(self) -> str:
        return f"Ticket(target={self.target!r}, origin={self.origin!r})"


class Seal:
    """Seals tickets with the first of `secrets` and opens those that were sealed with any of them.

    `namespace` tells servers apart that share a secret.
    """

    def __init__(self, secrets: tuple[bytes, ...], *, namespace: str) -> None:
        label = f"{_LABEL}\0{namespace}".encode()
        self._ciphers = tuple(AESGCM(hmac.digest(secret, label, "sha256")) for secret in secrets)

    def seal(self, ticket: Ticket, *, unique: bytes) -> str:
        """Return `ticket` as text: characters of base64url. `unique` are 12 random bytes, used once."""
        nonce = ticket.nonce
        said = [
            *ticket[: Ticket._fields.index("proof")],
            ticket.proof,
            None if nonce is None else [nonce.issued_at, nonce.expires_at, nonce.current],
        ]
        text = json.dumps(said, separators=(",", ":"), allow_nan=False).encode()
        return base64url.encode(unique + self._ciphers[0].encrypt(unique, text, None))

    def open(self, text: str) -> Ticket | None:
        """Return what the ticket `text` says, None where none of our secrets sealed it."""
        if len(text) > MAX_TICKET_SIZE or not text.isascii():
            return None
        try:
            sealed = base64url.decode(text)
        except JOSEError:
            return None
        unique, box = sealed[:UNIQUE_SIZE], sealed[UNIQUE_SIZE:]
        if len(unique) < UNIQUE_SIZE:
            return None
        for cipher in self._ciphers:
            try:
                said = json.loads(cipher.decrypt(unique, box, None))
            except InvalidTag:
                continue
            *texts_and_times, proof, nonce = said
            return _ticket(texts_and_times, proof, nonce, base64url.encode(unique))
        return None


def _ticket(
    said: list[Any], proof: list[Any] | None, nonce: tuple[float, float, bool] | None, name: str
) -> Ticket:
    access_token, target, origin, issued_at, expires_at, authenticated_at = said
    known = None
    if nonce is not None:
        known = Nonce(issued_at=nonce[0], expires_at=nonce[1], current=nonce[2])
    return Ticket(
        access_token,
        target,
        origin,
        issued_at,
        expires_at,
        authenticated_at,
        None if proof is None else DPoPProof(*proof),
        known,
        name,
    )
