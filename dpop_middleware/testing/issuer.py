"""The keys and tokens of an authorization server, without the server: for tests only.

Its tokens may have any content, valid or not.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, Self

from dpop_middleware import _options, client
from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware._runtime import system_time
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.events import EventSink
from dpop_middleware.jose import base64url
from dpop_middleware.jose.strict import split
from dpop_middleware.profiles import RFC9068, Profile
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.testing.stand_in import (
    Trusted,
    algorithms_of,
    audiences_of,
    names_issuer,
    profile_of,
    stand_in,
)
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.claims import ClaimRules, judge_claims

__all__ = ["ABSENT", "Absent", "TestIssuer", "encode_jws", "merged"]

_ISSUER = "https://auth.example.test"


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""In place of a claim or header member: leave it out. In place of a key: no signature."""


def merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` updated by `overrides`, without the members that are ABSENT."""
    return {name: value for name, value in {**defaults, **overrides}.items() if value is not ABSENT}


def encode_jws(
    header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str, *, key: DPoPKey | bytes | Absent
) -> str:
    """Return a compact JWS with the given content; nothing is checked (RFC 7515 section 7.1).

    `header` and `claims` are JSON objects, or JSON text for content that a mapping can't have, such as a
    duplicate member. `key` signs by its own algorithm, whatever the header says; bytes are an HMAC-SHA256
    secret; ABSENT leaves the signature empty.
    """
    segments = [
        base64url.encode((part if isinstance(part, str) else json.dumps(part)).encode())
        for part in (header, claims)
    ]
    signing_input = ".".join(segments).encode()
    return f"{signing_input.decode()}.{base64url.encode(_signature(signing_input, key))}"


def _signature(signing_input: bytes, key: DPoPKey | bytes | Absent) -> bytes:
    if isinstance(key, DPoPKey):
        return key.sign(signing_input)
    if isinstance(key, bytes):
        return hmac.digest(key, signing_input, hashlib.sha256)
    _options.part("key", key, "a DPoPKey, bytes or ABSENT", fits=key is ABSENT)
    return b""


class TestIssuer:
    """Issues access tokens of any form, signed with a key of its own (RFC 9068, RFC 9449 section 6.1).

    - `issuer`: its identifier, the tokens' `iss`.
    - `audience`: the default `aud` of the tokens; a string or several.
    - `algorithm`: the JWS algorithm of its signing key.
    - `profile`: the form of its tokens, such as `profiles.KEYCLOAK`: their `typ`, and the names of claims.
    - `clock`: seconds since the epoch, for `iat`, `exp` and the proofs of `auth`.

    Every instance has a new key. Give `jwks()` to the resource server under test, or make that server with
    `resource_server`.
    """

    # The name starts with Test, but pytest has nothing to collect here.
    __test__ = False

    def __init__(
        self,
        issuer: str = _ISSUER,
        *,
        audience: str | list[str] = "https://api.example.test",
        algorithm: str = "ES256",
        profile: Profile = RFC9068,
        clock: Callable[[], float] = system_time,
    ) -> None:
        self.issuer = _options.text(
            "issuer", issuer, "the issuer's identifier: for that of a server, TestIssuer.of(api)"
        )
        self.audience = audience
        self.key = DPoPKey.generate(algorithm)
        takes = "a Profile, such as profiles.KEYCLOAK"
        self.profile = _options.part("profile", profile, takes, fits=isinstance(profile, Profile))
        self.clock = _options.clock(clock)
        self._names_issuer = False
        self._algorithm_of_proofs = "ES256"

    @classmethod
    def of(
        cls,
        production: ResourceServer,
        *,
        issuer: str | None = None,
        algorithm: str | None = None,
        clock: Callable[[], float] = system_time,
    ) -> Self:
        """Make a stand-in for the issuer of `production`: its identifier, and tokens that it would accept.

        They have the audience, the `typ` and the claims that `production` requires, and no `jti` if it
        requires none. With several issuers it is the first, or `issuer`; with several audiences the first.
        `algorithm` is by default ES256, or another one where `production` doesn't accept that.
        """
        checked_resource_server(production, option="TestIssuer.of", takes="the production ResourceServer")
        if issuer is None:
            issuer = next(iter(production.issuers), _ISSUER)
        made = cls(
            issuer,
            audience=audiences_of(production, issuer)[0],
            algorithm=algorithm or algorithms_of(production, issuer)[0],
            profile=profile_of(production, issuer),
            clock=clock,
        )
        made._names_issuer = names_issuer(production)
        made._algorithm_of_proofs = production.policy.algorithms[0]
        return made

    @property
    def kid(self) -> str:
        """The key ID in the JWK Set and in the tokens' headers: the key's thumbprint."""
        return self.key.jkt

    def jwks(self) -> dict[str, Any]:
        """Return the JWK Set with the public key (RFC 7517 section 5)."""
        return {"keys": [self.key.public_jwk | {"kid": self.kid, "use": "sig", "alg": self.key.algorithm}]}

    def token(
        self,
        *,
        sub: str | None = "user123",
        client_id: str = "my_client",
        scopes: Iterable[str] = (),
        audience: str | list[str] | None = None,
        jkt: str | None = None,
        expires_in: float = 300,
        key: DPoPKey | bytes | Absent | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return an access token of the issuer's profile (RFC 9068) with the given changes.

        `jkt` binds it to a client's key (`DPoPKey.jkt`); without it the token is unbound. With `sub` None it
        has no subject, as with some issuers for clients that act on their own behalf. `expires_in` is in
        seconds from now, negative for an expired token. `claims` and `header` change or add single members,
        ABSENT removes one: `token(exp=ABSENT, header={"typ": "JWT"})`. `key` signs in place of the issuer's
        key: another key, bytes for HMAC-SHA256, ABSENT for no signature. Nothing is checked.
        """
        signer = self.key if key is None else key
        now = int(self.clock())
        profile, granted = self.profile, list(_options.strings("scopes", scopes))
        typ = profile.token_types[0]
        usual_header = {"typ": ABSENT if typ is None else typ, "alg": self.key.algorithm, "kid": self.kid}
        usual_claims = {
            "iss": self.issuer,
            "sub": ABSENT if sub is None else sub,
            "aud": self.audience if audience is None else audience,
            profile.client_id_claims[0]: client_id,
            "iat": now,
            "exp": int(now + expires_in),
            "jti": secrets.token_urlsafe(16) if "jti" in profile.required_claims else ABSENT,
            profile.scope_claims[0]: (granted if profile.scopes_as_list else " ".join(granted)) or ABSENT,
            "cnf": ABSENT if jkt is None else {"jkt": jkt},
        }
        return encode_jws(merged(usual_header, header or {}), merged(usual_claims, claims), key=signer)

    def access_token(self, *, jkt: str | None = None, **token: Any) -> AccessToken:
        """Return a verified token of this issuer, as an application gets it: for `dependency_overrides`.

        `token` are arguments of `token()`; `jkt` is the thumbprint of a new key by default. Only the token is
        judged, and no scope is required. Raises `errors.InvalidToken` for one that no server accepts.
        """
        bound_to = DPoPKey.generate().jkt if jkt is None else jkt
        payload = base64url.decode(split(self.token(jkt=bound_to, **token)).payload)
        named = self.audience if token.get("audience") is None else token["audience"]
        rules = ClaimRules(
            issuer=self.issuer,
            audiences=frozenset([named] if isinstance(named, str) else named),
            required=self.profile.required_claims,
            scope_claims=self.profile.scope_claims,
            client_id_claims=self.profile.client_id_claims,
            clock_skew=0,
            names_issuer=self._names_issuer,
        )
        return judge_claims(payload, rules=rules, now=self.clock()).access_token

    def client_key(self) -> DPoPKey:
        """Return a new key for a client: for ES256, or for what the server given to `of` accepts instead."""
        return DPoPKey.generate(self._algorithm_of_proofs)

    def auth(
        self,
        *,
        sub: str | None = "user123",
        client_id: str = "my_client",
        scopes: Iterable[str] = (),
        key: DPoPKey | None = None,
        origin: str | Iterable[str] | None = None,
        follow_redirects: bool = False,
        **token: Any,
    ) -> "client.DPoPAuth":
        """Return the `auth=` of a client with a token of this issuer, bound to `key` or a new key.

        It works with Starlette's TestClient and the clients of httpx2 and httpx. `token` are further
        arguments of `token()`; `key`, `origin` and `follow_redirects` are those of `DPoPAuth`. Each call
        makes another client. Needs httpx2 or httpx.
        """
        key = self.client_key() if key is None else key
        _options.part("key", key, "a DPoPKey", fits=isinstance(key, DPoPKey))
        arguments: dict[str, Any] = {"jkt": key.jkt, **token}
        access_token = self.token(sub=sub, client_id=client_id, scopes=scopes, **arguments)
        return client.DPoPAuth(
            key, access_token, origin=origin, follow_redirects=follow_redirects, clock=self.clock
        )

    def resource_server(
        self,
        production: ResourceServer,
        *,
        also: Iterable["TestIssuer"] = (),
        on_event: EventSink | None = None,
    ) -> ResourceServer:
        """Return a new ResourceServer with `production`'s configuration that trusts this issuer instead.

        With `also` it trusts those issuers too; they must have other identifiers. `on_event` is called with
        its decisions; that of `production` isn't.

        Resource, audience, URLs, policies, nonces and the rules for tokens are `production`'s; keys, clock,
        caches and a `MemoryReplayStore` are the new server's own. `production` is not altered, and nothing
        is fetched. A verifier that isn't one of this package's for JWTs is replaced by one with default
        options. Make the issuer with `TestIssuer.of(production)`, so that its tokens have the right audience.
        """
        trusted = [Trusted(one.issuer, one.jwks()) for one in (self, *also)]
        return stand_in(production, trusted=trusted, clock=self.clock, on_event=on_event)
