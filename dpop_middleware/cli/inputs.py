"""The inputs of the command: secrets from standard input or files, keys, times, captured requests.

A captured request, for `explain --request`, is raw HTTP, or what `curl -v` or a browser shows of it.
"""

import math
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dpop_middleware._options import HTTP_TOKEN
from dpop_middleware._request.request import credentials
from dpop_middleware._request.secure_url import is_loopback
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.cli.console import CommandError
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.private_keys import as_utf8, is_pem
from dpop_middleware.client.urls import origin_of
from dpop_middleware.errors import DPoPError
from dpop_middleware.jose import LATEST_TIME, JOSEError, strict

__all__ = [
    "INSECURE_HTTP",
    "CapturedRequest",
    "Inputs",
    "check_destination",
    "checked_method",
    "checked_token",
    "parse_captured",
    "parse_time",
]

_MAX_SIZE: Final = 512 * 1024
# In octets; no file system in use has longer names, and proofs and most tokens are longer.
_LONGEST_NAME: Final = 255
_WHITESPACE: Final = " \t\r\n"
# Key material given in place of a file name must not appear in an error message.
_KEY_MATERIAL: Final = re.compile(r"\s*(\{|-----BEGIN)|[A-Za-z0-9_.=-]{100,}")

INSECURE_HTTP: Final = "send the token by plain http to another machine"
"""The text of `--help` for the option `--insecure-http`."""

_REQUEST_LINE: Final = re.compile(rf"({HTTP_TOKEN.pattern}) (\S+) HTTP/\d(?:\.\d)?")
_FIELD: Final = re.compile(rf"({HTTP_TOKEN.pattern}):[ \t]*(.*?)[ \t]*")
# As the tools of browsers show HTTP/2 requests (RFC 9113 section 8.3.1).
_PSEUDO_FIELD: Final = re.compile(r":(method|path|authority|scheme):[ \t]*(\S+)[ \t]*")
_SENT: Final = "> "
# If curl's output goes to a file, its progress meter comes before its remarks.
_METER: Final = re.compile(r"[\r 0-9]*(?:--:--:-- *)+\d+(?=[*<>{}] )")
_BASIC: Final = "basic "
_GRANT: Final = "grant_type="


class Inputs:
    """Reads the inputs that options name: `-` is standard input, for one option only, `@name` a file."""

    def __init__(self) -> None:
        self._stdin_taken_by: str | None = None

    def text(self, option: str, value: str) -> str:
        """Return a token or a proof: `value` or the text it names, without surrounding whitespace.

        Raises CommandError for the name of a file without `@`: it would be taken for the token itself.
        """
        if value != "-" and not value.startswith("@"):
            if len(value.encode(errors="replace")) <= _LONGEST_NAME and Path(value).is_file():
                raise CommandError(f"{option} names a file: write @{value} for the text in it")
            return value.strip(_WHITESPACE)
        # As in a header field: each octet is one character.
        return self.octets(option, value.removeprefix("@")).decode("latin-1").strip(_WHITESPACE)

    def secret(self, option: str, value: str | None) -> str | None:
        """Return the text that `value` names; raises CommandError for a secret on the command line itself."""
        if value is not None and value != "-" and not value.startswith("@"):
            raise CommandError(
                f"{option} takes - for standard input or @FILE, to stay out of the shell's history"
            )
        return None if value is None else self.text(option, value)

    def octets(self, option: str, name: str) -> bytes:
        """Return the content of the file `name`, or of standard input for `-`, at most 512 KiB.

        A byte order mark is left out, and UTF-16 that begins with one becomes UTF-8: so Windows writes files.
        """
        if name == "-":
            self._take_stdin(option)
        elif _KEY_MATERIAL.match(name):
            raise CommandError(f"{option} takes the name of a file, or - for standard input")
        where = "standard input" if name == "-" else name
        try:
            data = _read(name)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a file name"
            raise CommandError(f"{option} can't read {where}: {reason}") from error
        if len(data) > _MAX_SIZE:
            raise CommandError(f"{option} is larger than {_MAX_SIZE // 1024} KiB")
        return as_utf8(data)

    def json_object(self, option: str, name: str) -> dict[str, Any]:
        """Return the JSON object in the file `name`, or in standard input for `-`."""
        try:
            return strict.parse_object(self.octets(option, name))
        except JOSEError as error:
            raise CommandError(f"{option} is not a JSON object: {error}") from error

    def key(
        self, option: str, name: str, *, algorithm: str | None = None, password: str | None = None
    ) -> DPoPKey:
        """Return the private key, JWK or PEM, in the file `name` or in standard input for `-`."""
        data = self.octets(option, name.removeprefix("@"))
        try:
            if is_pem(data):
                opened_by = None if password is None else password.encode("latin-1")
                return DPoPKey.from_pem(data, algorithm=algorithm, password=opened_by)
            return DPoPKey.from_jwk(_jwk(option, name, data), algorithm=algorithm)
        except ValueError as error:
            raise CommandError(f"{option} names no usable private key: {error}") from error

    def _take_stdin(self, option: str) -> None:
        if self._stdin_taken_by is not None:
            taken_by = self._stdin_taken_by
            raise CommandError(f"standard input is already read for {taken_by}: name a file for {option}")
        if sys.stdin is None:
            raise CommandError(f"standard input is closed: name a file for {option}")
        self._stdin_taken_by = option


def _jwk(option: str, name: str, data: bytes) -> dict[str, Any]:
    try:
        return strict.parse_object(data)
    except JOSEError as error:
        where = "standard input" if name == "-" else name
        raise CommandError(f"{option}: {where} is neither a JWK nor a PEM private key") from error


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_MAX_SIZE + 1)
    with Path(name).open("rb") as file:
        return file.read(_MAX_SIZE + 1)


def parse_time(text: str) -> float:
    """Return seconds since the epoch, from a number or a time in ISO 8601 (UTC unless it says otherwise).

    Raises CommandError.
    """
    try:
        return _checked_time(float(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return _checked_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise CommandError(
            "--now takes seconds since the epoch or a time such as 2026-11-22T18:00:00Z"
        ) from error


def _checked_time(seconds: float) -> float:
    if not math.isfinite(seconds) or not 0 <= seconds <= LATEST_TIME:
        raise ValueError("no time between 1970 and 9999")
    return seconds


def checked_token(option: str, token: str) -> str:
    """Return `token` if it can stand in an Authorization field; raises CommandError."""
    try:
        _, checked = credentials((f"DPoP {token}",))
    except DPoPError as error:
        raise CommandError(f"{option} is not an access token: {error.description}") from error
    return checked


def checked_method(method: str) -> str:
    """Return `method` if it is a method name (RFC 9110 section 9.1); raises CommandError."""
    if not HTTP_TOKEN.fullmatch(method):
        raise CommandError("the method is not an HTTP method name, such as GET")
    return method


def check_destination(url: str, *, insecure_http: bool) -> None:
    """Refuse to send a token to `url` by plain http, unless it stays on this machine or `insecure_http`.

    Raises CommandError.
    """
    try:
        base = parse_base_url(origin_of(url))
    except ValueError as error:
        raise CommandError(f"the URL can't be used: {error}") from error
    if base.scheme != "https" and not is_loopback(base.host) and not insecure_http:
        raise CommandError("the token would be sent unencrypted: use https, or add --insecure-http")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRequest:
    """The contents of a captured request: method and target, and the relevant fields, in order.

    - `authorization`, `dpop`: the values, not parsed.
    - `is_token_request`: whether it seems to ask for a token, by its body or by how the client authenticates.
    """

    method: str
    target: str
    host: str | None
    authorization: tuple[str, ...] = field(repr=False)
    dpop: tuple[str, ...] = field(repr=False)
    is_token_request: bool

    def url(self) -> str:
        """Return the URL that was called: https, but http to this machine; raises CommandError."""
        if not self.target.startswith("/"):
            return self.target
        if self.host is None:
            raise CommandError("the request has no Host: name its URL with --url")
        try:
            scheme = "http" if is_loopback(parse_base_url(f"https://{self.host}").host) else "https"
        except URIError as error:
            raise CommandError("the Host of the request is malformed: name its URL with --url") from error
        return f"{scheme}://{self.host}{self.target}"


def parse_captured(text: str) -> CapturedRequest:
    """Read a captured request; of several in the output of `curl -v` the last. Raises CommandError."""
    lines = [_METER.sub("", line) for line in text.replace("\r\n", "\n").split("\n")]
    if any(line.startswith(_SENT) for line in lines):
        lines = _last_of_curl(lines)
    while lines and not lines[0].strip():
        lines = lines[1:]
    lines = _with_request_line(lines)
    line = _REQUEST_LINE.fullmatch(lines[0]) if lines else None
    if line is None:
        raise CommandError("--request has no request line, such as GET /notes HTTP/1.1")
    end = lines.index("") if "" in lines else len(lines)
    fields: dict[str, list[str]] = {}
    for number, sent in enumerate(lines[1:end], start=2):
        found = _FIELD.fullmatch(sent)
        if found is None:
            raise CommandError(f"line {number} of the request is not a header field")
        fields.setdefault(found[1].lower(), []).append(found[2])
    hosts, authorization = fields.get("host", []), tuple(fields.get("authorization", ()))
    return CapturedRequest(
        method=line[1],
        target=line[2],
        host=hosts[0] if hosts else None,
        authorization=authorization,
        dpop=tuple(fields.get("dpop", ())),
        # RFC 6749 section 3.2: by POST.
        is_token_request=line[1] == "POST"
        and (
            any(_GRANT in sent for sent in lines[end:])
            or any(value[: len(_BASIC)].lower() == _BASIC for value in authorization)
        ),
    )


def _with_request_line(lines: list[str]) -> list[str]:
    """Return the lines with a request line and a `Host` in place of the pseudo-header fields of HTTP/2."""
    first = next((number for number, line in enumerate(lines) if line[:1] != ":"), len(lines))
    fields = filter(None, map(_PSEUDO_FIELD.fullmatch, lines[:first]))
    found = {field[1]: field[2] for field in fields}
    if "method" not in found or "path" not in found:
        return lines
    host = [f"Host: {found['authority']}"] if "authority" in found else []
    return [f"{found['method']} {found['path']} HTTP/2", *host, *lines[first:]]


def _last_of_curl(lines: list[str]) -> list[str]:
    """Return the lines of curl's last request; curl's own remarks begin with another sign."""
    sent = [line.removeprefix(_SENT) if line != _SENT.strip() else "" for line in lines if line[:1] == ">"]
    starts = [number for number, line in enumerate(sent) if _REQUEST_LINE.fullmatch(line)]
    return sent[starts[-1] :] if starts else sent
