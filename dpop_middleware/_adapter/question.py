"""A gateway's question about a client's request: who asks, and which request it is about.

The question is a request of its own. All its header fields except the configured ones are copied from the
client: a configured one counts only if it comes exactly once, and from a sender that knows the secret.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from starlette.types import Scope

from dpop_middleware._options import HTTP_TOKEN, field_name, flag, refused
from dpop_middleware._request.request import MAX_FIELDS, ResourceRequest
from dpop_middleware.errors import ConfigurationError

__all__ = ["RESERVED", "NotBelieved", "Question", "asked"]

RESERVED: Final = frozenset({"authorization", "dpop", "content-length", "transfer-encoding", "connection"})
"""Fields that can't carry a value to or from a gateway."""

_SECRET: Final = re.compile(r"[!-~]{32,}")
# Whoever sends so many isn't the gateway, or asks about a request that is refused anyway.
_MOST_SEARCHED: Final = 2 * MAX_FIELDS
# No request line has any other octet; a space shows that two fields were joined.
_OF_A_TARGET: Final = bytes(octet for octet in range(0x21, 0x100) if octet != 0x7F)


class NotBelieved(Exception):
    """A question that isn't trusted; the message is for the log, and quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How a gateway asks.

    - `method_header`, `uri_header`: the fields with the method and the URI of the client's request, in lower
      case; None for both where the question itself has them.
    - `host_header`: the field that names the host.
    - `secret_header`: the field that proves that the gateway asks; `secrets`: the values that it may have.
      Without secrets nothing is proved.
    """

    method_header: str | None
    uri_header: str | None
    host_header: str
    secret_header: str
    secrets: tuple[bytes, ...] = field(repr=False)

    def request(self, scope: Scope) -> ResourceRequest:
        """Return the client's request that the question in `scope` is about. Raises NotBelieved.

        With too many header fields only the secret is searched for: the request will be refused.
        """
        fields: Sequence[tuple[bytes, bytes]] = scope["headers"]
        if self.secrets:
            self._check_secret(fields)
        request = ResourceRequest.from_scope(scope)
        if request.fields > MAX_FIELDS:
            return request
        if self.host_header != "host":
            request = request._replace(hosts=(_one(fields, self.host_header).decode("latin-1"),))
        if self.method_header is None or self.uri_header is None:
            return request
        method, target = _one(fields, self.method_header).decode("latin-1"), _one(fields, self.uri_header)
        if not HTTP_TOKEN.fullmatch(method):
            raise NotBelieved(f"{self.method_header} is not a method")
        if not target or target.translate(None, _OF_A_TARGET):
            raise NotBelieved(f"{self.uri_header} is not a request target")
        return request._replace(
            method=method,
            raw_path=target.partition(b"?")[0].decode("latin-1"),
            root_path="",
        )

    def _check_secret(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        presented = _one(fields, self.secret_header)
        # All are compared, so that the time doesn't depend on which one matches.
        matches = [hmac.compare_digest(secret, presented) for secret in self.secrets]
        if not any(matches):
            raise NotBelieved(f"{self.secret_header} is wrong")


def _one(fields: Sequence[tuple[bytes, bytes]], name: str) -> bytes:
    wanted = name.encode("ascii")
    searched = islice(fields, _MOST_SEARCHED)
    values = [value for field_name, value in searched if field_name.lower() == wanted]
    if len(values) != 1:
        raise NotBelieved(f"{name} is {'there several times' if values else 'missing'}")
    return values[0].strip(b" \t")


def asked(
    *,
    method_header: str | None,
    uri_header: str | None,
    host_header: str,
    secret_header: str,
    secret: str | Sequence[str] | None,
    private_listener: bool,
) -> Question:
    """Return how a gateway asks, by the options of `ForwardAuth`. Raises ConfigurationError."""
    if (method_header is None) is not (uri_header is None):
        raise ConfigurationError("method_header and uri_header are both names of fields, or both None")
    names = {
        "host_header": field_name("host_header", host_header),
        "secret_header": field_name("secret_header", secret_header),
    }
    if method_header is not None and uri_header is not None:
        names["method_header"] = field_name("method_header", method_header)
        names["uri_header"] = field_name("uri_header", uri_header)
    _check_apart(names)
    return Question(
        method_header=names.get("method_header"),
        uri_header=names.get("uri_header"),
        host_header=names["host_header"],
        secret_header=names["secret_header"],
        secrets=_secrets(secret, private_listener=flag("private_listener", private_listener)),
    )


def _check_apart(names: Mapping[str, str]) -> None:
    taken: set[str] = set()
    for option, name in names.items():
        of_the_request = name in RESERVED or (name == "host" and option != "host_header")
        if of_the_request or name in taken:
            raise refused(option, "a field that has no other use", name)
        taken.add(name)


def _secrets(secret: object, *, private_listener: bool) -> tuple[bytes, ...]:
    if private_listener is (secret is not None):
        raise ConfigurationError(
            "ForwardAuth takes secret=..., which the gateway sends too, or else private_listener=True where "
            "only the gateway can reach it"
        )
    if secret is None:
        return ()
    listed: tuple[object, ...] = tuple(secret) if isinstance(secret, (list, tuple)) else (secret,)
    if not listed or not all(isinstance(one, str) and _SECRET.fullmatch(one) for one in listed):
        raise ConfigurationError(
            "secret takes at least 32 characters of visible ASCII, or several such secrets: "
            "make one with secrets.token_urlsafe(32)"
        )
    return tuple(str(one).encode("ascii") for one in listed)
