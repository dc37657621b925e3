"""A compact JWS and JSON, read in one way only, whoever wrote them.

RFC 7515 sections 4 and 7.1, RFC 8259, RFC 7493.
"""

import json
import math
import re
from typing import Any, Final, NamedTuple

from dpop_middleware.checks import Check, Reason
from dpop_middleware.jose import JOSEError, base64url

__all__ = [
    "CLAIMS",
    "HEADER",
    "MAX_DEPTH",
    "Bounds",
    "CompactJWS",
    "media_type",
    "parse_document",
    "parse_header",
    "parse_object",
    "parse_untrusted_object",
    "split",
]

MAX_DEPTH: Final = 32
"""How deep objects and arrays may be nested: more would exhaust the stack of code that traverses them."""

_STRUCTURE: Final = b'{}[],:"'
_DIGITS: Final = b"0123456789"
# The octets that aren't counted.
_PLAIN: Final = bytes(set(range(256)).difference(_STRUCTURE, _DIGITS, b"\\"))

# An integer of at most 308 digits has a finite float, so that arithmetic with times can't overflow.
_MAX_INTEGER_LENGTH: Final = 308
# In a text of this many octets there is no longer integer.
_SHORT: Final = _MAX_INTEGER_LENGTH

# One search: two would each examine every escape.
_MAYBE_SURROGATE: Final = re.compile(r"\\u[dD]")

# RFC 8259 section 2
_WHITE_SPACE: Final = " \t\n\r"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OMITTED: Final = "application/"


class Bounds(NamedTuple):
    """Limits for the input of an untrusted sender.

    `size` is in bytes; `structure` counts braces, brackets, commas, colons and quotes together, `containers`
    opening braces and brackets, `escapes` backslashes. `fractions` says whether a number may have a fraction
    or an exponent.
    """

    size: int
    structure: int
    containers: int
    escapes: int
    fractions: bool


# Each object costs one call. A `jti` of 512 escaped characters has fewer escapes than this.
CLAIMS: Final = Bounds(size=8 * 1024, structure=256, containers=40, escapes=640, fractions=True)
"""The bounds of a proof's claims."""

# Room for a key and two certificates; some serialisers escape each slash, and a certificate has about thirty.
HEADER: Final = Bounds(size=4 * 1024, structure=256, containers=16, escapes=160, fractions=True)
"""The bounds of a header."""


def _not_json(description: str) -> JOSEError:
    return JOSEError(description, check=Check.FORMAT, reason=Reason.NOT_JSON)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _not_json("an object in the text has the same member name twice")
    return members


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_LENGTH:
        raise _not_json("a JSON number is out of range")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _not_json("a JSON number is out of range")
    return number


def _fraction(_number: str) -> None:
    raise _not_json("a number has a fraction or an exponent")


def _constant(_name: str) -> None:
    raise _not_json("NaN and Infinity are not JSON")


# By whether there are enough digits for a long integer (otherwise no integer costs a call), and by whether
# fractions are allowed.
_DECODERS: Final = {
    (has_long_integers, has_fractions): json.JSONDecoder(
        object_pairs_hook=_object,
        parse_int=_integer if has_long_integers else None,
        parse_float=_float if has_fractions else _fraction,
        parse_constant=_constant,
    )
    for has_long_integers in (False, True)
    for has_fractions in (False, True)
}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise _not_json("the text is nested too deep")


def _object_in(data: bytes, counted: bytes, *, fractions: bool) -> dict[str, Any]:
    """Return the JSON object in `data`, nested to any depth; all of its digits are in `counted`."""
    try:
        text = data.decode("utf-8").strip(_WHITE_SPACE)
        digits = 0 if len(counted) <= _SHORT else len(counted) - len(counted.translate(None, _DIGITS))
        value, end = _DECODERS[digits > _MAX_INTEGER_LENGTH, fractions].raw_decode(text)
        if "\\u" in text and _MAYBE_SURROGATE.search(text):
            # Encoding visits every name and value, and UTF-8 can't encode surrogates.
            _ENCODER.encode(value).encode("utf-8")
    except JOSEError:
        raise
    except (ValueError, RecursionError) as error:
        raise _not_json("the text is not JSON in UTF-8") from error
    if end != len(text):
        raise _not_json("the text is not JSON in UTF-8")
    if not isinstance(value, dict):
        raise _not_json("the text is not a JSON object")
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`, which is UTF-8 (RFC 8259, RFC 7515 section 4).

    Raises JOSEError (`Check.FORMAT`) for other encodings and a byte order mark, for anything but an object at
    the top, a member name that is twice in any object, NaN and Infinity, numbers beyond a float's range,
    surrogates without their other half, and nesting deeper than `MAX_DEPTH`. Neither the meaning of the
    members nor the size is checked: limit the size before.
    """
    value = _object_in(data, data, fractions=True)
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def parse_document(data: bytes) -> dict[str, Any]:
    """Return what `parse_object` returns, for a document of a server.

    A byte order mark before it is ignored, as RFC 8259 section 8.1 allows: some editors and servers write it.
    """
    return parse_object(data.removeprefix(_BYTE_ORDER_MARK))


def parse_untrusted_object(data: bytes, bounds: Bounds = CLAIMS) -> dict[str, Any]:
    """Return what `parse_object` returns, for untrusted input: a JOSE header, a proof's claims.

    Raises JOSEError (`Check.FORMAT`) also for input beyond `bounds`: it is counted at C speed, before
    anything is parsed.
    """
    # In a long segment only the octets that count are examined more than once.
    counted = data.translate(None, _PLAIN) if _SHORT < len(data) <= bounds.size else data
    if (
        (size := len(counted)) > bounds.size
        or (size > bounds.structure and size - len(counted.translate(None, _STRUCTURE)) > bounds.structure)
        or (containers := counted.count(b"{") + counted.count(b"[")) > bounds.containers
        or counted.count(b"\\") > bounds.escapes
    ):
        raise _not_json("the text is too large, or has too many members or escapes")
    value = _object_in(data, counted, fractions=bounds.fractions)
    if containers > MAX_DEPTH:
        _check_depth(value)
    return value


class CompactJWS(NamedTuple):
    """The three segments of a compact JWS, each still encoded (RFC 7515 section 7.1).

    `signing_input` is what the signature covers (RFC 7515 section 5.2).
    """

    header: str
    payload: str
    signature: str
    signing_input: bytes

    def __repr__(self) -> str:
        return "CompactJWS()"


def split(text: str) -> CompactJWS:
    """Split a compact JWS.

    Raises JOSEError (`Check.FORMAT`) unless there are exactly three segments in ASCII. A JWE, which has five,
    is refused too. The contents of the segments are not checked.
    """
    if not text.isascii():
        raise JOSEError("a compact JWS is ASCII", check=Check.FORMAT)
    # Not str.split: it examines each character separately.
    header, _, rest = text.partition(".")
    payload, dot, signature = rest.partition(".")
    if not dot or "." in signature:
        raise JOSEError("a compact JWS has three segments", check=Check.FORMAT)
    return CompactJWS(header, payload, signature, text[: -len(signature) - 1].encode())


def parse_header(segment: str, bounds: Bounds = HEADER) -> dict[str, Any]:
    """Return the JSON object in a header segment.

    Raises JOSEError (`Check.FORMAT`) for everything that `base64url.decode` and `parse_untrusted_object`
    refuse, and for more characters than `bounds` allows. The meaning of the members is not checked.
    """
    if len(segment) > -(-bounds.size * 4 // 3):
        raise JOSEError("a header is too large", check=Check.FORMAT)
    return parse_untrusted_object(base64url.decode(segment), bounds)


def media_type(typ: object) -> str | None:
    """Return the media type that `typ` names, in its short form and in lower case; None if it isn't one.

    `application/` may be left out if there is no other slash, and case doesn't matter. Nothing else is
    unified: with a parameter, white space or another prefix it is another value.
    """
    # ASCII first: lower() turns the Kelvin sign into a "k".
    if not isinstance(typ, str) or not typ.isascii():
        return None
    name = typ.lower()
    short = name.removeprefix(_OMITTED)
    return short if short and "/" not in short else name
