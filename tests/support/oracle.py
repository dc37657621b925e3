"""A second judge of requests, written separately from the library: slow, plain, and without its code.

It reads RFC 9449 sections 4.3 and 7 (with RFCs 3986, 3987, 6750, 7515, 7517, 7518, 7638, 7797 and
8037) as a list of possible faults, and finds all of them that can be found. A request is good when it has no
fault.
"""

import base64
import hashlib
import ipaddress
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

__all__ = ["Asked", "ServerFacts", "b64", "faults", "jkt_of", "normal_uri"]

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
IN_PATH = UNRESERVED + "!$&'()*+,;=:@/"
# In any case, but in ASCII: there are other characters whose lower case is one of these letters.
SCHEMES = {
    "".join(letters)
    for name in ("http", "https")
    for letters in itertools.product(*((letter, letter.upper()) for letter in name))
}
CURVES: dict[str, tuple[str, type[ec.EllipticCurve], int]] = {
    "ES256": ("P-256", ec.SECP256R1, 32),
    "ES384": ("P-384", ec.SECP384R1, 48),
    "ES512": ("P-521", ec.SECP521R1, 66),
}
SMALL_ORDER = {
    # The eight points of small order (y and the sign of x), as RFC 8032 encodes them.
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
}


@dataclass(frozen=True)
class ServerFacts:
    """The server's knowledge: its base URL, its clock, and the tokens with the keys they are bound to."""

    base: str
    now: float
    tokens: Mapping[str, str | None]
    algorithms: Sequence[str]
    lifetime: float = 60
    skew: float = 30


@dataclass(frozen=True)
class Asked:
    """A request: header fields as octets, in order."""

    method: str
    raw_path: bytes
    headers: Sequence[tuple[bytes, bytes]]


class Wrong(Exception):
    """Nothing more can be found out."""


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def unb64(text: str) -> bytes:
    if not re.fullmatch("[A-Za-z0-9_-]*", text):
        raise Wrong
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise Wrong from error
    if b64(octets) != text:
        raise Wrong
    return octets


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [scalar for name, inner in value.items() for scalar in [name, *scalars(inner)]]
    if isinstance(value, list):
        return [scalar for inner in value for scalar in scalars(inner)]
    return [value]


def within_our_bounds(header: bytes) -> bytes:
    """A header may have 4 KiB, and an escape for each slash of two certificates: our limits, not an RFC's."""
    containers, structure = (sum(map(header.count, marks)) for marks in (b"[{", b'[]{},:"'))
    if len(header) > 4096 or header.count(b"\\") > 160 or containers > 16 or structure > 256:
        raise Wrong
    return header


def json_object(octets: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(names) != len(set(names)):
            raise Wrong
        return dict(pairs)

    try:
        value = json.loads(octets.decode("utf-8"), object_pairs_hook=once, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise Wrong from error
    if not isinstance(value, dict) or depth(value) > 33:
        raise Wrong
    for scalar in scalars(value):
        if isinstance(scalar, float) and not math.isfinite(scalar):
            raise Wrong
        if isinstance(scalar, str) and any(0xD800 <= ord(character) < 0xE000 for character in scalar):
            raise Wrong
    return value


def _integer(digits: str) -> int:
    if len(digits) > 308:
        raise Wrong
    return int(digits)


def jkt_of(jwk: Mapping[str, Any]) -> str:
    names = {"EC": ["crv", "kty", "x", "y"], "OKP": ["crv", "kty", "x"], "RSA": ["e", "kty", "n"]}[jwk["kty"]]
    members = {name: jwk[name] for name in names}
    return b64(hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest())


def key_of(jwk: Any, alg: str) -> Any:  # noqa: C901, PLR0912 - a plain list of questions
    """Return a key of cryptography, or raise Wrong."""
    if not isinstance(jwk, dict):
        raise Wrong
    if set(jwk) & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}:
        raise Wrong
    for name in ("use", "alg", "key_ops"):
        # Neither null nor an empty array is a value of any of them (RFC 7517 section 4).
        if name in jwk and (jwk[name] is None or (isinstance(jwk[name], list) and not jwk[name])):
            jwk = {other: value for other, value in jwk.items() if other != name}
    same = {"EdDSA", "Ed25519"} if alg in {"EdDSA", "Ed25519"} else {alg}
    if "use" in jwk and jwk["use"] != "sig":
        raise Wrong
    if "alg" in jwk and (not isinstance(jwk["alg"], str) or jwk["alg"] not in same):
        raise Wrong
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        raise Wrong

    def number(name: str) -> bytes:
        if not isinstance(jwk.get(name), str):
            raise Wrong
        return unb64(jwk[name])

    kty, crv = jwk.get("kty"), jwk.get("crv")
    try:
        if alg in CURVES:
            name, curve, size = CURVES[alg]
            x, y = number("x"), number("y")
            if (kty, crv) != ("EC", name) or len(x) != size or len(y) != size:
                raise Wrong
            return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve()).public_key()
        if same & {"EdDSA"}:
            x = number("x")
            if (kty, crv) != ("OKP", "Ed25519") or len(x) != 32 or x.hex() in SMALL_ORDER:
                raise Wrong
            if int.from_bytes(x, "little") % 2**255 >= 2**255 - 19:
                raise Wrong
            return ed25519.Ed25519PublicKey.from_public_bytes(x)
        n, e = number("n"), number("e")
        if kty != "RSA" or n[:1] in (b"", b"\0") or e[:1] in (b"", b"\0"):
            raise Wrong
        modulus, exponent = int.from_bytes(n), int.from_bytes(e)
        if not (
            2048 <= modulus.bit_length() <= 4096 and modulus % 2 and 3 <= exponent <= 65537 and exponent % 2
        ):
            raise Wrong
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise Wrong from error


def verifies(key: Any, alg: str, signed: bytes, signature: bytes) -> bool:
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(alg[2:])
    try:
        if alg in CURVES:
            size = CURVES[alg][2]
            if len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))  # type: ignore[arg-type]
        elif alg in {"EdDSA", "Ed25519"}:
            key.verify(signature, signed)
        elif alg.startswith("PS"):
            assert digest is not None
            key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        else:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True


def normal_path(path: str) -> str:
    written = ""
    while path:
        character, path = path[0], path[1:]
        if character == "%":
            digits, path = path[:2], path[2:]
            if not re.fullmatch("[0-9A-Fa-f]{2}", digits):
                raise Wrong
            octet = chr(int(digits, 16))
            written += octet if octet in UNRESERVED else f"%{digits.upper()}"
        elif character in IN_PATH:
            written += character
        elif ord(character) < 256:
            written += f"%{ord(character):02X}"
        else:
            raise Wrong
    return written


def without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, to the letter, for a path that is empty or starts with a slash."""
    output = ""
    while path:
        if path.startswith("/./") or path == "/.":
            path = "/" + path[3:]
        elif path.startswith("/../") or path == "/..":
            path = "/" + path[4:]
            output = output[: output.rfind("/")] if "/" in output else ""
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            output, path = output + path[:end], path[end:]
    return output


def octets_of(path: str) -> str:
    """RFC 3987 section 3.1, step 2: each character that isn't ASCII is its UTF-8 octets, percent-encoded."""
    written = ""
    for character in path:
        number = ord(character)
        if number <= 0x20 or 0x7F <= number < 0xA0 or 0xD800 <= number < 0xE000:
            raise Wrong
        written += character if number < 0x80 else "".join(f"%{octet:02X}" for octet in character.encode())
    return written


def normal_uri(uri: str) -> str:
    for mark in "#?":
        uri = uri[: uri.index(mark)] if mark in uri else uri
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        raise Wrong
    scheme = scheme.lower()
    authority, slash, path = rest.partition("/")
    path = slash + path
    host, port = authority, ""
    if authority.startswith("["):
        literal, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")) or "%" in literal:
            raise Wrong
        try:
            host, port = f"[{ipaddress.IPv6Address(literal).compressed}]", after[1:]
        except ValueError as error:
            raise Wrong from error
    else:
        host, _, port = authority.partition(":")
        if not re.fullmatch("[A-Za-z0-9._-]+", host):
            raise Wrong
    if not re.fullmatch("[0-9]{0,5}", port) or (port and int(port) > 65535):
        raise Wrong
    if port and int(port) != {"http": 80, "https": 443}[scheme]:
        host += f":{int(port)}"
    if "\\" in path:
        raise Wrong
    return f"{scheme}://{host.lower()}{without_dots(normal_path(octets_of(path))) or '/'}"


def target_of(asked: Asked, world: ServerFacts) -> str:
    path = asked.raw_path.decode("latin-1")
    scheme, colon, rest = path.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        # RFC 9112 section 3.2.2: the absolute form counts where it names us.
        authority = re.split("[/?]", rest, maxsplit=1)[0]
        if normal_uri(f"{scheme}://{authority}/") != world.base + "/":
            raise Wrong
        path = rest.removeprefix(authority)
        path = path if path.startswith("/") else "/" + path
    if not path.startswith("/"):
        raise Wrong
    path = normal_path(path.partition("?")[0])
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise Wrong
    return world.base + path


def values(asked: Asked, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for field, value in asked.headers if field.lower() == name]


def is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 253402300799


def is_proof_type(typ: Any) -> bool:
    """RFC 7515 section 4.1.9: a media type in any case, with or without application/."""
    if not isinstance(typ, str):
        return False
    return bool(re.fullmatch(r"(application/)?dpop\+jwt", typ, re.ASCII | re.IGNORECASE)) and typ.isascii()


def proof_faults(  # noqa: C901, PLR0912 - a plain list of questions
    proof: str, asked: Asked, world: ServerFacts, token: str
) -> set[str]:
    found: set[str] = set()
    segments = proof.split(".")
    if len(segments) != 3 or not proof.isascii():
        return {"format"}
    key, alg = None, None
    try:
        header = json_object(within_our_bounds(unb64(segments[0])))
    except Wrong:
        found.add("format")
    else:
        if not is_proof_type(header.get("typ")):
            found.add("typ")
        # RFC 7797 section 3: true is the default, and says nothing.
        if {"crit", "zip"} & set(header) or header.get("b64", True) is not True:
            found.add("crit")
        alg = header.get("alg")
        if not isinstance(alg, str) or alg not in world.algorithms:
            found.add("alg")
        else:
            try:
                key = key_of(header.get("jwk"), alg)
                if jkt_of(header["jwk"]) != world.tokens[token]:
                    found.add("jkt")
            except Wrong:
                found.add("jwk")
    try:
        claims = json_object(unb64(segments[1]))
    except Wrong:
        found.add("claims")
    else:
        found |= claims_faults(claims, asked, world, token)
    if key is not None:
        try:
            signature = unb64(segments[2])
        except Wrong:
            found.add("signature")
        else:
            if not verifies(key, str(alg), f"{segments[0]}.{segments[1]}".encode(), signature):
                found.add("signature")
    return found


def claims_of_a_wrong_type(claims: dict[str, Any]) -> set[str]:
    texts = [claims.get(name) for name in ("jti", "htm", "htu")]
    texts += [claims[name] for name in ("ath", "nonce") if name in claims]
    times = [claims.get("iat"), *(claims[name] for name in ("exp", "nbf") if name in claims)]
    well_formed = (
        all(isinstance(text, str) for text in texts)
        and all(texts[:3])
        and len(texts[0] or "") <= 512
        and all(map(is_time, times))
    )
    return set() if well_formed else {"claims"}


def claims_faults(claims: dict[str, Any], asked: Asked, world: ServerFacts, token: str) -> set[str]:
    found = claims_of_a_wrong_type(claims)
    if claims.get("htm") != asked.method or not asked.method:
        found.add("htm")
    try:
        htu = claims.get("htu")
        if not isinstance(htu, str) or normal_uri(htu) != target_of(asked, world):
            found.add("htu")
    except Wrong:
        found.add("htu")
    if claims.get("ath") != b64(hashlib.sha256(token.encode()).digest()):
        found.add("ath")
    iat, now = claims.get("iat"), world.now
    if not is_time(iat) or not now - world.lifetime - world.skew <= iat <= now + world.skew:  # type: ignore[operator]
        found.add("iat")
    if "exp" in claims and not (is_time(claims["exp"]) and now < claims["exp"] + world.skew):
        found.add("iat")
    if "nbf" in claims and not (is_time(claims["nbf"]) and now >= claims["nbf"] - world.skew):
        found.add("iat")
    return found


def faults(asked: Asked, world: ServerFacts) -> set[str]:
    """Return the names of all faults of a request, as far as it can be parsed; empty to accept it."""
    authorization = values(asked, b"authorization")
    if len(authorization) != 1:
        return {"authorization"}
    match = re.fullmatch(
        r"([Dd][Pp][Oo][Pp]|[Bb][Ee][Aa][Rr][Ee][Rr]) +([A-Za-z0-9._~+/-]+=*)", authorization[0]
    )
    if match is None or len(match[2]) > 16384:
        return {"authorization"}
    found = set()
    try:
        target_of(asked, world)
    except Wrong:
        found.add("target")
    if match[1].lower() == "bearer":
        return found | {"binding"}
    token = match[2]
    dpop = values(asked, b"dpop")
    if len(dpop) != 1 or "," in dpop[0] or not 0 < len(dpop[0]) <= 8192:
        found.add("one_header")
    if token not in world.tokens:
        return found | {"token"}
    if world.tokens[token] is None:
        found.add("binding")
    for proof in dpop if "one_header" not in found else []:
        found |= proof_faults(proof, asked, world, token)
    return found
