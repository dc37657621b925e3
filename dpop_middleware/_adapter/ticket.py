"""A ticket for one handshake: its contents, how it is sealed, and how a handshake carries it.

It contains the access token of the request that asked for it and the evidence of that request, encrypted with
AES-GCM under keys that only the workers of one server have: no one else can read or make one. The token is
verified again when the ticket is redeemed.

A WebSocket's handshake carries it as a subprotocol, `dpop.ticket.` and the ticket, together with one that can
be accepted: the application's own, or `dpop.ticket` alone. By option the URL's query carries it, also for an
EventSource. The scope is changed in place, so that the ticket is removed from it: servers write their access
logs from the scope.
"""

import hmac
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.types import Message, Scope, Send

from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import MAX_FIELDS
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.nonces import Nonce

__all__ = [
    "MAX_TICKET_SIZE",
    "UNIQUE_SIZE",
    "Carried",
    "Seal",
    "Ticket",
    "field_values",
    "take_tickets",
]

UNIQUE_SIZE = 12
MAX_TICKET_SIZE = 7_500
"""Servers read lines of a header up to 8 KiB."""

# The contents of a ticket may change from one release to the next.
_LABEL = "dpop websocket ticket 1"
_MARKER: Final = "dpop.ticket"
_PREFIX: Final = f"{_MARKER}."
_PROTOCOLS: Final = b"sec-websocket-protocol"
_MOST_IN_QUERY: Final = 16
# No page offers half as many.
_MOST_PROTOCOLS: Final = 64


class Ticket(NamedTuple):
    """The contents of a ticket; times are in seconds since the epoch.

    - `access_token`: as the client sent it. `target`: the URI that the ticket is for, in normal form.
    - `origin`: of the page that asked, None where its request named none.
    - `issued_at`, `expires_at`: when the ticket was issued, and from when on it is refused.
    - `authenticated_at`, `proof`, `nonce`: when the request was judged, and what was known about its proof.
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

    `namespace` separates servers that share a secret.
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
        """Return the ticket in `text`, None if none of the secrets sealed it."""
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


class Carried(NamedTuple):
    """The tickets of one handshake, and whether it offers the subprotocol `dpop.ticket`.

    - `too_many`: it has so many subprotocols or header fields that none was looked at.
    """

    tickets: tuple[str, ...]
    marked: bool
    too_many: bool = False

    def __repr__(self) -> str:
        return f"Carried({len(self.tickets)} tickets)"

    def answering(self, send: Send) -> Send:
        """Return a `send` that accepts the marker where the application chose no subprotocol.

        A browser that offered subprotocols fails where none is accepted.
        """
        if not self.marked:
            return send

        async def send_with_marker(message: Message) -> None:
            if message["type"] == "websocket.accept" and not message.get("subprotocol"):
                message = {**message, "subprotocol": _MARKER}
            await send(message)

        return send_with_marker


def take_tickets(scope: Scope, parameter: str | None) -> Carried:
    """Remove possible tickets from `scope`: subprotocols, and values of the query's `parameter`."""
    in_query = () if parameter is None else _take_from_query(scope, parameter)
    if scope["type"] != "websocket":
        return Carried(in_query, marked=False)
    protocols: Iterable[object] = scope.get("subprotocols") or ()
    offered = list(islice(protocols, _MOST_PROTOCOLS + 1))
    fields = list(islice(scope["headers"], MAX_FIELDS + 1))
    if len(offered) > _MOST_PROTOCOLS or len(fields) > MAX_FIELDS:
        return Carried((), marked=False, too_many=True)
    texts = [one for one in offered if isinstance(one, str)]
    as_protocols = tuple(one.removeprefix(_PREFIX) for one in texts if one.startswith(_PREFIX))
    if not as_protocols and not _is_in_a_field(fields):
        return Carried(in_query, marked=False)
    left = [one for one in texts if not one.startswith(_PREFIX) and one != _MARKER]
    scope["subprotocols"] = left
    others = [(name, value) for name, value in fields if name.lower() != _PROTOCOLS]
    # Daphne decodes percent signs: the offered names may have any character.
    field = _PROTOCOLS, ", ".join(left).encode("latin-1", "replace")
    scope["headers"] = [*others, field] if left else others
    return Carried((*in_query, *as_protocols), marked=_MARKER in offered)


def _is_in_a_field(fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether a field has a ticket: of two that offer subprotocols some servers read one only."""
    return any(name.lower() == _PROTOCOLS and _PREFIX.encode() in value for name, value in fields)


def _take_from_query(scope: Scope, parameter: str) -> tuple[str, ...]:
    query, ticket = b"&" + scope.get("query_string", b""), _in_query(parameter)
    found = tuple(one[1].decode("latin-1") for one in islice(ticket.finditer(query), _MOST_IN_QUERY))
    if not found or (scope["type"] == "http" and not _is_event_source(scope)):
        return ()
    # A handshake with several tickets is refused: nothing needs the rest of its query.
    several = len(found) == _MOST_IN_QUERY
    scope["query_string"] = b"" if several else ticket.sub(b"", query)[1:]
    if scope.get("raw_path") is not None:
        scope["raw_path"] = scope["raw_path"].partition(b"?")[0]
    return found


@lru_cache(maxsize=16)
def _in_query(parameter: str) -> re.Pattern[bytes]:
    """Return what finds tickets in a query that has an ampersand put before it.

    It begins with fixed octets, for which a query is searched quickly, whatever a stranger puts into it.
    """
    return re.compile(rb"&" + re.escape(parameter.encode("ascii")) + rb"=([^&]*)")


def _is_event_source(scope: Scope) -> bool:
    """Whether it may be one: with too many fields, for which it will be refused, none is looked at."""
    if scope["method"] != "GET":
        return False
    too_many = len(list(islice(scope["headers"], MAX_FIELDS + 1))) > MAX_FIELDS
    return too_many or "text/event-stream" in field_values(scope, "accept")


def field_values(scope: Scope, name: str) -> list[str]:
    """Return the values of every header field of that name, in order."""
    wanted = name.encode("ascii")
    return [
        value.decode("latin-1").strip(" \t") for field, value in scope["headers"] if field.lower() == wanted
    ]
