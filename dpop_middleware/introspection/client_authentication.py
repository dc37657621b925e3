"""Authentication to an introspection endpoint (RFC 7662 section 2.1, RFC 6749 section 2.3, RFC 7523)."""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dpop_middleware._options import credential
from dpop_middleware.client.form_request import basic_credentials
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import base64url

__all__ = [
    "BoundToken",
    "ClientAuthentication",
    "ClientSecretBasic",
    "ClientSecretPost",
    "PrivateKeyJWT",
    "RequestCredentials",
    "request_credentials",
]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFETIME: Final = 60
# RFC 9110 section 11.2
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def _require_key(key: object) -> None:
    if not isinstance(key, DPoPKey):
        raise ConfigurationError(
            f"key takes a DPoPKey, such as DPoPKey.load('client.jwk'), not a {type(key).__name__}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientSecret:
    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        credential("client_id", self.client_id)
        credential("client_secret", self.client_secret)


class ClientSecretBasic(_ClientSecret):
    """An identifier and a secret in the `Authorization` field (RFC 6749 section 2.3.1)."""

    __slots__ = ()


class ClientSecretPost(_ClientSecret):
    """An identifier and a secret in the form (RFC 6749 section 2.3.1), for servers that require it there."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeyJWT:
    """A short-lived JWT that this server's own key signs, a new one for each question (RFC 7523 section 2.2).

    - `key`: the private key, whose public half the issuer knows; don't use one that signs proofs.
    - `kid`: the name under which the issuer knows it, if it has one.
    - `audience`: the assertion's `aud`; the issuer identifier by default.
    """

    client_id: str
    key: DPoPKey
    kid: str | None = None
    audience: str | None = None

    def __post_init__(self) -> None:
        credential("client_id", self.client_id)
        _require_key(self.key)
        for name in ("kid", "audience"):
            if getattr(self, name) is not None:
                credential(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundToken:
    """A DPoP-bound access token of this server, with a new proof for each question (RFC 9449 section 7).

    - `key`: the key that the token is bound to.
    - `token`: the token, or a callable, sync or async, that returns it at each question.

    The server's nonces are remembered.
    """

    key: DPoPKey
    token: str | Callable[[], str] | Callable[[], Awaitable[str]] = field(repr=False)

    def __post_init__(self) -> None:
        _require_key(self.key)
        if isinstance(self.token, str) and self.token and not _TOKEN68.fullmatch(self.token):
            raise ConfigurationError(
                "token takes an access token as it was issued: without spaces, line breaks and quotes"
            )
        if not callable(self.token):
            credential("token", self.token)


ClientAuthentication: TypeAlias = ClientSecretBasic | ClientSecretPost | PrivateKeyJWT | BoundToken


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCredentials:
    """The header fields and form parameters to add to one request."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)


def request_credentials(
    authentication: ClientAuthentication, *, issuer: str, now: float
) -> RequestCredentials:
    """Return the credentials of one request at `now`, in seconds since the epoch; none for a BoundToken."""
    if isinstance(authentication, ClientSecretBasic):
        basic = basic_credentials(authentication.client_id, authentication.client_secret)
        return RequestCredentials(headers={"Authorization": basic})
    if isinstance(authentication, ClientSecretPost):
        return RequestCredentials(
            form={"client_id": authentication.client_id, "client_secret": authentication.client_secret}
        )
    if isinstance(authentication, PrivateKeyJWT):
        return RequestCredentials(
            form={
                "client_id": authentication.client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": _assertion(authentication, issuer=issuer, now=now),
            },
        )
    return RequestCredentials()


def _assertion(authentication: PrivateKeyJWT, *, issuer: str, now: float) -> str:
    header = {"typ": "JWT", "alg": authentication.key.algorithm}
    if authentication.kid is not None:
        header["kid"] = authentication.kid
    claims = {
        "iss": authentication.client_id,
        "sub": authentication.client_id,
        "aud": authentication.audience or issuer,
        "jti": secrets.token_urlsafe(16),
        "iat": int(now),
        "exp": int(now) + _ASSERTION_LIFETIME,
    }
    signing_input = ".".join(base64url.encode(json.dumps(part).encode()) for part in (header, claims))
    signature = authentication.key.sign(signing_input.encode("ascii"))
    return f"{signing_input}.{base64url.encode(signature)}"
