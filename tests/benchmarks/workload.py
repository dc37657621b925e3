"""Requests as clients send them: whole ASGI scopes, made outside of what is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpop_middleware import ReplayEntry, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.replay.store import ReplayStore
from dpop_middleware.testing import TestIssuer, encode_jws

Scope = dict[str, Any]
Making = Callable[[int], list[Scope]]

RESOURCE = "https://api.example.test"
PATH = "/v1/notes/4711"
URL = RESOURCE + PATH
KNOWN_CLIENTS = 64


@dataclass(frozen=True)
class Client:
    """A key and an access token that is bound to it."""

    key: DPoPKey
    token: str

    def scope(self, proof: str | None) -> Scope:
        """One GET request, with the header fields that a browser behind a proxy sends as well."""
        fields = {
            "host": "api.example.test",
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "accept": "application/json",
            "accept-language": "en-GB,en;q=0.8",
            "accept-encoding": "gzip, deflate, br",
            "origin": "https://app.example.test",
            "authorization": f"DPoP {self.token}",
            "x-forwarded-for": "203.0.113.7",
        } | ({} if proof is None else {"dpop": proof})
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        }

    def proof(self, *, method: str = "GET", url: str = URL, now: float | None = None) -> str:
        """A new proof for the request, or for another one."""
        return self.key.proof(method, url, access_token=self.token, now=now)


class Workload:
    """One issuer, the clients that the server knows, and any number of unknown clients."""

    def __init__(self, issuer_algorithm: str = "ES256") -> None:
        self.issuer = TestIssuer(audience=RESOURCE, algorithm=issuer_algorithm)
        self.clients = [self.new_client() for _ in range(KNOWN_CLIENTS)]

    def new_client(self) -> Client:
        """A client that no server has seen."""
        key = DPoPKey.generate()
        return Client(key, self.issuer.token(jkt=key.jkt, scopes=("notes:read", "notes:write")))

    def server(self, store: ReplayStore) -> ResourceServer:
        """A resource server with nothing in its caches."""
        return ResourceServer(
            issuer=self.issuer.issuer, resource=RESOURCE, jwks=self.issuer.jwks(), replay_store=store
        )

    def known(self, count: int) -> list[Scope]:
        """Requests of clients that were here before, each with a new proof."""
        return [client.scope(client.proof()) for client in self._clients(count)]

    def unknown(self, count: int) -> list[Scope]:
        """Requests of clients that were never here: new token, new key."""
        return [client.scope(client.proof()) for client in (self.new_client() for _ in range(count))]

    def missing_proof(self, count: int) -> list[Scope]:
        """No `DPoP` field."""
        return [client.scope(None) for client in self._clients(count)]

    def wrong_htm(self, count: int) -> list[Scope]:
        """A proof for another method."""
        return [client.scope(client.proof(method="POST")) for client in self._clients(count)]

    def wrong_htu(self, count: int) -> list[Scope]:
        """A proof for another path."""
        return [client.scope(client.proof(url=RESOURCE + "/v1/notes")) for client in self._clients(count)]

    def wrong_ath(self, count: int) -> list[Scope]:
        """A proof for another access token."""
        clients = self._clients(count)
        return [
            client.scope(client.key.proof("GET", URL, access_token="another.access.token"))
            for client in clients
        ]

    def wrong_typ(self, count: int) -> list[Scope]:
        """A proof that says it is another kind of JWT."""
        return [
            client.scope(
                encode_jws(
                    {"typ": "JWT", "alg": "ES256", "jwk": client.key.public_jwk},
                    {"jti": "1", "htm": "GET", "htu": URL, "iat": 1},
                    key=client.key,
                )
            )
            for client in self._clients(count)
        ]

    def old_iat(self, count: int) -> list[Scope]:
        """A proof made too long ago; `iat` is judged after the signature."""
        return [client.scope(client.proof(now=1_700_000_000)) for client in self._clients(count)]

    def unknown_with_old_iat(self, count: int) -> list[Scope]:
        """A new client, whose proof was made too long ago."""
        return [
            client.scope(client.proof(now=1_700_000_000))
            for client in (self.new_client() for _ in range(count))
        ]

    def bad_signature(self, count: int) -> list[Scope]:
        """A proof whose signature belongs to another proof of the same key."""
        scopes: list[Scope] = []
        for client in self._clients(count):
            signed, _, _ = client.proof().rpartition(".")
            _, _, signature = client.proof().rpartition(".")
            scopes.append(client.scope(f"{signed}.{signature}"))
        return scopes

    def _clients(self, count: int) -> list[Client]:
        return [self.clients[number % KNOWN_CLIENTS] for number in range(count)]


class StubStore:
    """Accepts everything: only the cost of the judge remains."""

    async def add(self, entry: ReplayEntry) -> bool:
        return True
