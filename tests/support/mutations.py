"""Mutations of a request: of octets, of characters, of JSON and of URIs, all drawn from one seeded source."""

import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

__all__ = ["Mutator"]

OCTETS = [
    b"\x00", b"\t", b"\n", b"\r", b" ", b"\"", b"\\", b"{", b"}", b"[", b"]", b",", b":", b".", b"=",
    b"+", b"-", b"_", b"/", b"%", b"#", b"?", b"@", b"0", b"A", b"e", b"\x7f", b"\x80", b"\xc3", b"\xe9",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff", b"\\u0000", b"\\ud800", b"\\u0041", b"null", b"true",
    b"NaN", b"1e999", b"[]", b"{}", b"\"\":0,", b"%2e", b"%2F", b"%00", b"DPoP ", b"Bearer ", b"==",
]  # fmt: skip
CHARACTERS = [
    *map(chr, (*range(0x20, 0x7F), 0, 9, 10, 13, 0x7F, 0x80, 0x85, 0x9F, 0xA0)),
    *"éüſ\u212aı．／：？＃﹪%日😀\u200b\u2028\u202e\u0308\ufeff\uffff",
]
PIECES = [
    "/", "//", ".", "..", "/.", "/..", "/./", "/../", "%2e", "%2E", "%2f", "%5c", "\\", "%", "%4", "%zz",
    "%25", "%6e", "%C3%A9", "é", "?", "#", "?q=ü", "#\u2028", "?a b", "@", "u@", ":443", ":80", ":", ";x",
    "&", "+", " ", "\t", "\n", "[::1]", "*", "https://", "evil.test", ".", "%00", "\u00a0", "＠", "ａ",
]  # fmt: skip
STRINGS = [
    "", " ", "x", "0", "é", "\u0000", "null", "true", "GET", "POST", "get", "dpop+jwt", "DPOP+JWT",
    "at+jwt", "application/dpop+jwt", "JWT", "none", "ES256", "ES384", "EdDSA", "Ed25519", "RS256",
    "HS256", "sig", "enc", "verify", "sign", "EC", "OKP", "RSA", "oct", "P-256", "P-384", "AQAB", "AAAA",
    "\ud800",
]  # fmt: skip
NAMES = [
    "typ", "alg", "jwk", "crit", "b64", "zip", "kid", "enc", "x5c", "jku", "cty", "kty", "crv", "x", "y",
    "n", "e", "d", "p", "q", "dp", "dq", "qi", "oth", "k", "use", "key_ops", "ext", "jti", "htm", "htu",
    "iat", "ath", "nonce", "exp", "nbf", "iss", "sub", "aud", "cnf", "", "é", "__proto__",
]  # fmt: skip
SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, -0.0, 1e+300, 10**300, 2**63, 253402300799, 253402300800,
]  # fmt: skip
TYPES = [
    "dpop+jwt", "DPOP+jwt", "Application/DPoP+JWT", "application/application/dpop+jwt", "dpop+jwt ",
    "dpop", "application/dpop+jwt; a=b", "x/dpop+jwt", "dpop+jwſ", "APPLıCATION/dpop+jwt", "at+jwt", "",
]  # fmt: skip
UNSET: list[Any] = [None, [], {}, "", False, 0, [None], [[]]]

Members = dict[str, Any]


class Mutator:
    """Draws mutations from a seed; the same seed gives the same ones."""

    def __init__(self, seed: object) -> None:
        self.rng = random.Random(str(seed))

    def often(self, share: float) -> bool:
        return self.rng.random() < share

    def _cut(self, length: int) -> tuple[int, int]:
        start = self.rng.randint(0, length)
        return start, min(length, start + self.rng.choice([0, 1, 1, 1, 2, 3, 8, 40]))

    def octets(self, data: bytes) -> bytes:
        """Return `data` with one to three edits somewhere."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            start, end = self._cut(len(data))
            piece = data[start:end]
            swapped = bytes(octet ^ 0x20 if chr(octet).isalpha() else octet for octet in piece)
            flipped = bytes(octet ^ (1 << rng.randrange(8)) for octet in piece)
            new = rng.choice(
                [rng.choice(OCTETS), b"", piece * 2, piece[::-1], swapped, flipped, rng.randbytes(1)]
            )
            data = data[:start] + new + data[end if self.often(0.7) else start :]
        return data

    def text(self, text: str) -> str:
        """Return `text` with one or two edits somewhere."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2])):
            start, end = self._cut(len(text))
            piece = text[start:end]
            new = rng.choice(
                [rng.choice(CHARACTERS), "", piece * 2, piece.swapcase(), piece[::-1], rng.choice(CHARACTERS)]
            )
            text = text[:start] + new + text[end if self.often(0.7) else start :]
        return rng.choice(
            [text] * 8 + [text.upper(), text.lower(), f" {text}", f"{text} ", f"{text}\n", text * 2]
        )

    def uri(self, uri: str) -> str:
        """Return another spelling of `uri`, or another URI that looks like it."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randint(0, len(uri))
            kind = rng.randrange(8)
            if kind == 0:
                uri = uri[:at] + rng.choice(PIECES) + uri[at:]
            elif kind == 1 and at < len(uri):
                uri = uri[:at] + rng.choice(["%{:02X}", "%{:02x}"]).format(ord(uri[at]) & 255) + uri[at + 1 :]
            elif kind == 2:
                uri = uri[:at] + uri[at:].swapcase()
            elif kind == 3:
                uri += rng.choice(["?", "#", "?#", "#?"]) + "".join(rng.choices(CHARACTERS, k=4))
            elif kind == 4:
                before, mark, after = uri.rpartition("/")
                uri = before + mark + rng.choice(["./", "x/../", "%2e/", "x/%2E./", "../", "é/../"]) + after
            elif kind == 5:
                host = uri.find("/", 8)
                host = len(uri) if host < 0 else host
                uri = uri[:host] + rng.choice([":443", ":", ":0443", ":444", ".", "é", ":80"]) + uri[host:]
            elif kind == 6:
                # As it stands in an address bar.
                uri = unquote(uri, errors="replace")
            else:
                uri = self.text(uri)
        return uri

    def value(self, depth: int = 0) -> Any:
        """Return any JSON value."""
        rng, kind = self.rng, self.rng.randrange(8 if depth < 3 else 6)
        if kind < 3:
            return rng.choice(SCALARS)
        if kind < 6:
            return rng.choice(STRINGS)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(rng.randrange(3))]
        return {rng.choice(NAMES): self.value(depth + 1) for _ in range(rng.randrange(3))}

    def near(self, value: Any, *, name: str = "") -> Any:
        """Return a value that is almost `value`, as a careless client or a clever attacker may write it."""
        rng = self.rng
        if name == "typ":
            return rng.choice(TYPES)
        if isinstance(value, str):
            near: list[Callable[[], Any]] = [
                lambda: self.uri(value) if "://" in value else self.text(value),
                lambda: [value],
                lambda: {"": value},
                lambda: value + "=",
                lambda: value[:-1],
                lambda: value * rng.choice([2, 20, 200]),
                lambda: value.encode("ascii", "replace").decode().translate({45: "+", 95: "/"}),
            ]
            return rng.choice([near[0]] * 8 + near)()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            offsets = (-91, -90, -89.9, -30.1, -30, -29, 0, 0.5, 29, 30, 30.1, 31, 90, 91)
            return rng.choice(
                [value + offset for offset in offsets] * 2
                + [str(value), value * 1000, -value, [value], value / 3]
            )
        return rng.choice([value, [value], None, not value])

    def members(self, members: Members, names: list[str] = NAMES) -> Members:
        """Return `members` with one or two of them changed, removed, renamed or added."""
        rng, members = self.rng, dict(members)
        for _ in range(rng.choice([1, 1, 1, 2])):
            kind = rng.randrange(8)
            name = rng.choice(list(members) or names)
            if kind == 0:
                members.pop(name, None)
            elif kind == 1:
                members[name] = self.value()
            elif kind == 2:
                members[rng.choice(names)] = rng.choice([*UNSET, self.value()])
            elif kind == 3 and name in members:
                members[rng.choice([name.upper(), name + " ", name.title(), self.text(name)])] = members.pop(
                    name
                )
            elif kind == 4:
                members = dict(rng.sample(list(members.items()), len(members)))
            elif name in members:
                members[name] = self.near(members[name], name=name)
        return members

    def json(self, members: Members) -> str:
        """Return `members` as JSON, now and then in an odd spelling or with a member twice."""
        rng = self.rng
        text = json.dumps(members, ensure_ascii=self.often(0.8))
        kind = rng.randrange(12)
        if kind == 0 and members:
            name = rng.choice(list(members))
            spelled = f"\\u{ord(name[0]):04x}{name[1:]}" if name and self.often(0.5) else name
            twice = f'"{spelled}": {json.dumps(rng.choice([members[name], self.value()]))}'
            return f"{{{twice}, {text[1:]}" if self.often(0.5) else f"{text[:-1]}, {twice}}}"
        if kind == 1:
            return rng.choice(
                [f" {text}\n", json.dumps(members, indent=1), text.replace("/", "\\/"), text + " x"]
            )
        return text
