"""A resource server whose clock, tokens, store and events a test controls."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from dpop_middleware import (
    AccessToken,
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    NonceProvider,
    ReplayEntry,
    ResourceRequest,
    ResourceServer,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.jose import base64url
from tests.support.clock import NOW, Clock

__all__ = ["ISSUER", "NOW", "RESOURCE", "Api", "Clock", "Store", "Tokens", "edited", "request"]

RESOURCE = "https://api.example.test"
ISSUER = "https://auth.example.test"
SECRET = bytes(range(32))


class Tokens:
    """Opaque access tokens, each with its meaning: a verifier as an application might write one."""

    issuers = (ISSUER,)

    def __init__(self, *, expiry_is_final: bool = False) -> None:
        self.expiry_is_final = expiry_is_final
        self.known: dict[str, Any] = {}
        self.asked: list[str] = []

    def issue(
        self,
        jkt: str | None = None,
        *,
        name: str = "access-token",
        scopes: Iterable[str] = (),
        expires_in: float = 600,
        **claims: Any,
    ) -> str:
        """Make `name` a valid token, bound to `jkt`."""
        if jkt is not None:
            claims.setdefault("cnf", {"jkt": jkt})
        self.known[name] = AccessToken(
            claims=claims,
            issuer=ISSUER,
            subject="user123",
            client_id="my_client",
            scopes=frozenset(scopes),
            expires_at=NOW + expires_in,
            jkt=jkt,
        )
        return name

    async def verify(self, token: str) -> AccessToken:
        self.asked.append(token)
        known = self.known.get(token)
        if known is None:
            raise InvalidToken("the access token is unknown")
        if isinstance(known, BaseException):
            raise known
        return known  # type: ignore[no-any-return]


class Store(MemoryReplayStore):
    """The memory store, and every entry that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[ReplayEntry] = []
        self.answer: Any = None

    async def add(self, entry: ReplayEntry) -> bool:
        self.entries.append(entry)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return await super().add(entry) if self.answer is None else self.answer


def request(
    token: str | None = None,
    *proofs: str,
    scheme: str = "DPoP",
    method: str = "GET",
    raw_path: str = "/notes",
    hosts: tuple[str, ...] = ("api.example.test",),
    root_path: str = "",
) -> ResourceRequest:
    """Return a request with `token` under `scheme` and the `DPoP` fields `proofs`."""
    return ResourceRequest(
        method=method,
        raw_path=raw_path,
        hosts=hosts,
        authorization=() if token is None else (f"{scheme} {token}",),
        dpop=proofs,
        root_path=root_path,
    )


def edited(key: DPoPKey, proof: str, *, header: Any = None, **claims: Any) -> str:
    """Return `proof` with other claims and header members, signed again; `...` removes one."""
    parts = [json.loads(base64url.decode(part)) for part in proof.split(".")[:2]]
    for part, changes in zip(parts, (header or {}, claims), strict=True):
        part.update(changes)
        for name, value in changes.items():
            if value is ...:
                del part[name]
    signing_input = ".".join(base64url.encode(json.dumps(part).encode()) for part in parts)
    return f"{signing_input}.{base64url.encode(key.sign(signing_input.encode()))}"


class Api:
    """One resource server with one client that has one bound token."""

    def __init__(
        self,
        *,
        key: DPoPKey | None = None,
        nonces: NonceProvider | None = None,
        public_url: Any = None,
        scopes: Iterable[str] = ("notes:read",),
        expiry_is_final: bool = False,
        on_event: Callable[[AuthenticationEvent], None] | None = None,
        **policy: Any,
    ) -> None:
        self.clock = Clock()
        self.tokens = Tokens(expiry_is_final=expiry_is_final)
        self.store = Store()
        self.events: list[AuthenticationEvent] = []
        self.key = key or DPoPKey.generate()
        self.nonces = nonces or HMACNonceProvider(SECRET)
        self.server = ResourceServer(
            verifier=self.tokens,
            resource=RESOURCE,
            replay_store=self.store,
            public_url=public_url,
            policy=DPoPPolicy(**policy),
            nonces=self.nonces,
            clock=self.clock,
            on_event=on_event or self.events.append,
        )
        self.token = self.tokens.issue(self.key.jkt, scopes=scopes)

    @property
    def server_nonces(self) -> HMACNonceProvider:
        """The nonces that the server itself issues and recognises."""
        assert isinstance(self.nonces, HMACNonceProvider)
        return self.nonces.for_server(purpose="resource server", server="")

    def proof(
        self,
        method: str = "GET",
        url: str = f"{RESOURCE}/notes",
        *,
        at: float = 0,
        nonce: str | None = None,
        token: str | None = None,
    ) -> str:
        """Return an honest proof of a client whose clock is `at` seconds ahead of the server's."""
        return self.key.proof(
            method, url, access_token=token or self.token, nonce=nonce, now=self.clock.now + at
        )

    def request(self, proof: str | None = None, **changes: Any) -> ResourceRequest:
        """Return an honest request, with a new proof unless one is given."""
        return request(self.token, self.proof() if proof is None else proof, **changes)
