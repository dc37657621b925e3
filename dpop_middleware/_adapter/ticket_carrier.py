"""How a handshake carries a ticket, and how what the application sees of it loses it again.

A WebSocket's carries it as a subprotocol, `dpop.ticket.` and the ticket, beside one that can be answered:
the application's own, or `dpop.ticket` alone. By option the URL's query carries it, an EventSource's too.
The scope is changed in place: servers write their access logs from it.
"""

from typing import Final, NamedTuple

from starlette.types import Message, Scope, Send

__all__ = ["MARKER", "PREFIX", "Carried", "field_values", "take_tickets"]

MARKER: Final = "dpop.ticket"
PREFIX: Final = f"{MARKER}."
_PROTOCOLS: Final = b"sec-websocket-protocol"


class Carried(NamedTuple):
    """The tickets of one handshake, and whether it offers a subprotocol that says no more than that."""

    tickets: tuple[str, ...]
    marked: bool

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
                message = {**message, "subprotocol": MARKER}
            await send(message)

        return send_with_marker


def take_tickets(scope: Scope, parameter: str | None) -> Carried:
    """Take what looks like a ticket out of `scope`: subprotocols, and values of the query's `parameter`."""
    in_query = () if parameter is None else _take_from_query(scope, parameter)
    offered = [str(one) for one in scope.get("subprotocols") or ()] if scope["type"] == "websocket" else []
    as_protocols = tuple(one.removeprefix(PREFIX) for one in offered if one.startswith(PREFIX))
    if not as_protocols:
        return Carried(in_query, marked=False)
    left = [one for one in offered if not one.startswith(PREFIX) and one != MARKER]
    scope["subprotocols"] = left
    others = [field for field in scope["headers"] if field[0].lower() != _PROTOCOLS]
    # Daphne decodes percent signs: what it offers may hold any character.
    protocols = ", ".join(left).encode("latin-1", "replace")
    scope["headers"] = [*others, (_PROTOCOLS, protocols)] if left else others
    return Carried((*in_query, *as_protocols), marked=MARKER in offered)


def _take_from_query(scope: Scope, parameter: str) -> tuple[str, ...]:
    if scope["type"] == "http" and not _is_event_source(scope):
        return ()
    name = f"{parameter}=".encode("ascii")
    parts = scope.get("query_string", b"").split(b"&")
    found = tuple(part.removeprefix(name).decode("latin-1") for part in parts if part.startswith(name))
    if found:
        scope["query_string"] = b"&".join(part for part in parts if not part.startswith(name))
        if scope.get("raw_path") is not None:
            scope["raw_path"] = scope["raw_path"].partition(b"?")[0]
    return found


def _is_event_source(scope: Scope) -> bool:
    return scope["method"] == "GET" and "text/event-stream" in field_values(scope, "accept")


def field_values(scope: Scope, name: str) -> list[str]:
    """Return the values of every header field of that name, in order."""
    wanted = name.encode("ascii")
    return [
        value.decode("latin-1").strip(" \t") for field, value in scope["headers"] if field.lower() == wanted
    ]
