"""The client's key: made or loaded, saved, and used to sign proofs (RFC 9449 section 4.2)."""

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Self, TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.exceptions import PyJWTError

from dpop_middleware import _options
from dpop_middleware.client.private_keys import (
    PrivateKey,
    as_utf8,
    checked_password,
    exported,
    is_pem,
    key_file,
    public_part,
    read_private,
    require_supported,
    supported,
    usual_algorithm,
)
from dpop_middleware.client.urls import target_of
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS, KTY, MLDSA
from dpop_middleware.jose.jwk import public_key, thumbprint, without_unset

__all__ = ["DPoPKey", "is_access_token"]

# Without the spaces that RFC 6749 appendix A.12 allows: no field has them (RFC 6750 section 2.1).
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_RSA_BITS = range(2048, 4096 + 1)


class DPoPKey:
    """A private key and the one JWS algorithm that it signs with.

    Make one with `generate`, `from_jwk`, `from_pem` or `load`. The private half is in no `repr` and can't be
    pickled; only `private_jwk`, `to_pem` and `save` export it.
    """

    __slots__ = ("_algorithm", "_header", "_jkt", "_private_key", "_public_jwk")

    def __init__(self, private_key: PrivateKey, *, algorithm: str) -> None:
        """Wrap a private key of `cryptography`.

        `algorithm` is a JWS name such as `"ES256"` that fits the key. Raises ValueError for a key or an
        algorithm that DPoP servers refuse (RSA outside 2048 to 4096 bits, another curve).
        """
        require_supported(algorithm)
        public = public_part(exported(private_key))
        public_key(public, ALGORITHMS[algorithm])
        self._private_key = private_key
        self._algorithm = algorithm
        self._public_jwk: Mapping[str, Any] = MappingProxyType(public)
        self._jkt = thumbprint(public)
        self._header = _segment({"typ": "dpop+jwt", "alg": algorithm, "jwk": public})

    @classmethod
    def generate(cls, algorithm: str = "ES256", *, rsa_bits: int = 2048) -> Self:
        """Make a new key for `algorithm`; `rsa_bits` is the size of an RSA key, 2048 to 4096.

        Raises ValueError for an algorithm that is not supported.
        """
        require_supported(algorithm)
        kind = ALGORITHMS[algorithm]
        if kind.kty == "RSA":
            if not isinstance(rsa_bits, int) or rsa_bits not in _RSA_BITS:
                raise ValueError(f"an RSA key for DPoP has 2048 to 4096 bits, not {rsa_bits!r}")
            return cls(rsa.generate_private_key(65537, rsa_bits), algorithm=algorithm)
        if isinstance(kind.verifier, MLDSA):
            return cls(kind.verifier.generate(), algorithm=algorithm)
        if kind.curve is not None:
            return cls(ec.generate_private_key(kind.curve), algorithm=algorithm)
        return cls(ed25519.Ed25519PrivateKey.generate(), algorithm=algorithm)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, algorithm: str | None = None) -> Self:
        """Load a private JWK (RFC 7517).

        `algorithm` defaults to the key's `alg` member, else to the usual one of its type: ES256, ES384,
        ES512 by curve, EdDSA, RS256. Raises ValueError for a public, incomplete or unsupported key.
        """
        if not isinstance(jwk, Mapping):
            raise ValueError(
                f"from_jwk takes a mapping, such as json.loads(text), not a {type(jwk).__name__}"
            )
        jwk = without_unset(jwk)
        usual = usual_algorithm(jwk)
        private = "priv" if jwk["kty"] == KTY else "d"
        if not isinstance(jwk.get(private), str):
            raise ValueError(f"the JWK has no private part: its member {private} is missing or not a string")
        chosen = algorithm or jwk.get("alg") or usual
        require_supported(chosen)
        public = public_part(jwk)
        # The strict reader comes first: it refuses key sizes for which PyJWT would need seconds.
        public_key(public, ALGORITHMS[chosen])
        try:
            key = cls(read_private(jwk, usual), algorithm=chosen)
        except (PyJWTError, ValueError, TypeError, KeyError) as error:
            raise ValueError("the private JWK can't be read") from error
        if key.jkt != thumbprint(public):
            raise ValueError("the private and the public part of the JWK do not belong together")
        return key

    @classmethod
    def from_pem(cls, data: bytes, *, algorithm: str | None = None, password: bytes | None = None) -> Self:
        """Load a private key in PEM form (PKCS#8, or the older forms per key type).

        `algorithm` defaults to the usual one of the key's type, as with `from_jwk`. `password` opens an
        encrypted file. Raises ValueError when the key can't be read with it or is not supported.
        """
        checked_password(password)
        if not isinstance(data, bytes):
            raise ValueError(f"from_pem takes bytes, as a file has them, not a {type(data).__name__}")
        try:
            loaded = supported(serialization.load_pem_private_key(data, password))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("the PEM private key can't be read: wrong format, type or password") from error
        return cls(loaded, algorithm=algorithm or usual_algorithm(exported(loaded)))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, algorithm: str | None = None, password: bytes | None = None
    ) -> Self:
        """Load a key that `save` wrote, or any private PEM or JWK file; `password` opens a PEM file only.

        Raises OSError when the file can't be read and ValueError for what is in it, each with the file's
        name, and ValueError for a key in place of the name, which an OSError would show.
        """
        data = as_utf8(key_file(path).read_bytes())
        try:
            if is_pem(data):
                return cls.from_pem(data, algorithm=algorithm, password=password)
            return cls.from_jwk(_object_in(data), algorithm=algorithm)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def save(
        self, path: str | os.PathLike[str], *, password: bytes | None = None, overwrite: bool = False
    ) -> None:
        """Write the private key to a file that only its owner may read (mode 0600).

        A name that ends in `.pem` gets PKCS#8, encrypted when a `password` is given; any other name
        gets a JWK, which also remembers the algorithm. Raises FileExistsError unless `overwrite`, and
        ValueError for a password with a JWK.
        """
        target = Path(path)
        if target.suffix.lower() == ".pem":
            data = self.to_pem(password=password)
        elif password is None:
            data = json.dumps(self.private_jwk(), indent=2).encode() + b"\n"
        else:
            raise ValueError("a JWK file is not encrypted: give the file a name that ends in .pem")
        # An existing file is replaced by a complete one, or not at all.
        beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}") if overwrite else target
        _write_private(beside, data, renamed=target)

    @property
    def algorithm(self) -> str:
        """The JWS algorithm name, such as `"ES256"`."""
        return self._algorithm

    @property
    def jkt(self) -> str:
        """The RFC 7638 thumbprint of the public key, as it stands in a token's `cnf.jkt`."""
        return self._jkt

    @property
    def public_jwk(self) -> dict[str, Any]:
        """The public key as a JWK, with the required members only."""
        return dict(self._public_jwk)

    def private_jwk(self) -> dict[str, Any]:
        """Return the private key as a JWK: anybody who reads it can use every token bound to the key."""
        private = {name: value for name, value in exported(self._private_key).items() if name != "key_ops"}
        return private | {"alg": self._algorithm}

    def to_pem(self, *, password: bytes | None = None) -> bytes:
        """Return the private key in PKCS#8 PEM form, encrypted when a `password` is given."""
        closed_by = checked_password(password)
        encryption = (
            serialization.NoEncryption()
            if closed_by is None
            else serialization.BestAvailableEncryption(closed_by)
        )
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def sign(self, signing_input: bytes) -> bytes:
        """Return the JWS signature of `signing_input` (RFC 7515 section 5.1), not encoded."""
        return ALGORITHMS[self._algorithm].verifier.sign(signing_input, self._private_key)

    def proof(
        self,
        method: str,
        url: object,
        *,
        access_token: str | None = None,
        nonce: str | None = None,
        now: float | None = None,
        jti: str | None = None,
    ) -> str:
        """Return a new proof for one request: the value of its `DPoP` header.

        `method` is the HTTP method as sent. `url` is the absolute URL as sent (percent-encoded; a string
        or an httpx URL); its query, fragment and user information are left out of `htu`, and ws and wss
        become http and https. `access_token` goes with a request to a protected resource and is bound
        by `ath`. `nonce` is the server's last `DPoP-Nonce`. `now` is in seconds since the epoch, by
        default this machine's clock; `jti` is by default 128 random bits. Raises ValueError for a URL that
        isn't absolute, or isn't in the form in which it is sent, for a token that no header field can hold,
        and for an argument of another type.
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16) if jti is None else _options.text("jti", jti),
            "htm": _options.text("method", method),
            "htu": target_of(str(url)),
            "iat": int(time.time() if now is None else now),
        }
        if access_token is not None:
            claims["ath"] = _hash(access_token)
        if nonce is not None:
            claims["nonce"] = _options.text("nonce", nonce)
        signing_input = f"{self._header}.{_segment(claims)}"
        return f"{signing_input}.{base64url.encode(self.sign(signing_input.encode()))}"

    def __repr__(self) -> str:
        return f"<DPoPKey {self._algorithm} jkt={self._jkt}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DPoPKey can't be pickled, to protect its private key; use save or to_pem")


def is_access_token(value: object) -> TypeGuard[str]:
    """Whether `value` is a string that can stand in an `Authorization` field as an access token."""
    return isinstance(value, str) and _ACCESS_TOKEN.fullmatch(value) is not None


def _hash(access_token: object) -> str:
    """Return `ath`; raises ValueError, without the token, for one that no header field can hold."""
    if not is_access_token(access_token):
        raise ValueError(
            "the access token is not visible ASCII: "
            "is it empty, does it begin with 'DPoP ', or does it end in a line break?"
        )
    return base64url.encode(hashlib.sha256(access_token.encode("ascii")).digest())


def _segment(members: Mapping[str, Any]) -> str:
    return base64url.encode(json.dumps(members, separators=(",", ":")).encode())


def _object_in(data: bytes) -> dict[str, Any]:
    try:
        return strict.parse_object(data)
    except JOSEError as error:
        raise ValueError("the file holds neither a PEM private key nor a JWK in JSON") from error


def _write_private(path: Path, data: bytes, *, renamed: Path) -> None:
    """Write a new file that only its owner may read, and name it `renamed`; a failure leaves no file."""
    # O_EXCL also refuses a symbolic link that somebody created there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # Where the power fails, some file systems have the new name and not yet what is in the file.
            os.fsync(descriptor)
        path.replace(renamed)
    except BaseException:
        path.unlink()
        raise
