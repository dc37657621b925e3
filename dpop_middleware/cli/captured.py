"""A whole captured request, as raw HTTP or as `curl -v` shows it, for `explain --request`."""

import re
from dataclasses import dataclass, field
from typing import Final

from dpop_middleware._request.secure_url import is_loopback
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.cli.console import CommandError

__all__ = ["CapturedRequest", "parse_captured"]

_REQUEST_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/\d(?:\.\d)?")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_SENT: Final = "> "
# Where curl's output goes to a file, its progress meter stands before its remarks.
_METER: Final = re.compile(r"[\r 0-9]*(?:--:--:-- *)+\d+(?=[*<>{}] )")
_BASIC: Final = "basic "
_GRANT: Final = "grant_type="


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRequest:
    """What a captured request says: method and target, and the fields that count, in order.

    - `authorization`, `dpop`: None of them is looked into.
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
    """Read raw HTTP, or the output of `curl -v`, of which the last request counts; raises CommandError."""
    lines = [_METER.sub("", line) for line in text.replace("\r\n", "\n").split("\n")]
    if any(line.startswith(_SENT) for line in lines):
        lines = _last_of_curl(lines)
    while lines and not lines[0].strip():
        lines = lines[1:]
    line = _REQUEST_LINE.fullmatch(lines[0]) if lines else None
    if line is None:
        raise CommandError("--request has no request line, such as GET /notes HTTP/1.1")
    end = lines.index("") if "" in lines else len(lines)
    fields: dict[str, list[str]] = {}
    for number, sent in enumerate(lines[1:end], start=2):
        found = _FIELD.fullmatch(sent)
        if found is None:
            raise CommandError(f"line {number} of the request is no header field")
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


def _last_of_curl(lines: list[str]) -> list[str]:
    """Return the lines of the last request of curl's, whose own remarks begin with another sign."""
    sent = [line.removeprefix(_SENT) if line != _SENT.strip() else "" for line in lines if line[:1] == ">"]
    starts = [number for number, line in enumerate(sent) if _REQUEST_LINE.fullmatch(line)]
    return sent[starts[-1] :] if starts else sent
