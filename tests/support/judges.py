"""The library and the oracle: both judge one request, with the same knowledge."""

from dpop_middleware import ResourceRequest, ResourceServer
from dpop_middleware.errors import DPoPError
from dpop_middleware.events import AuthenticationEvent
from tests.support.api import NOW, RESOURCE, Clock, Store, Tokens
from tests.support.oracle import Asked, ServerFacts, faults
from tests.support.signer import ALGORITHMS, Signer

__all__ = ["AUTHORIZATION", "HOST", "OF_ANOTHER", "TOKEN", "UNBOUND", "URL", "Judges"]

TOKEN, UNBOUND, OF_ANOTHER = "the-token", "unbound", "of-another"
URL = f"{RESOURCE}/notes"
AUTHORIZATION = (b"authorization", b"DPoP the-token")
HOST = (b"host", b"api.example.test")


class Judges:
    """The library and the oracle, with the same knowledge; `last` is the library's last event."""

    def __init__(self, key: Signer) -> None:
        self.key = key
        tokens, store = Tokens(), Store()
        store.answer = True
        for name, jkt in ((TOKEN, key.jkt), (UNBOUND, None), (OF_ANOTHER, "0" * 43)):
            tokens.issue(jkt, name=name)
        self.last: AuthenticationEvent | None = None
        # With a listener, every refusal is explained as well.
        self.server = ResourceServer(
            verifier=tokens, resource=RESOURCE, replay_store=store, clock=Clock(), on_event=self._listen
        )
        self.world = ServerFacts(
            base=RESOURCE,
            now=NOW,
            tokens={name: token.jkt for name, token in tokens.known.items()},
            algorithms=ALGORITHMS,
        )

    def _listen(self, event: AuthenticationEvent) -> None:
        self.last = event

    async def disagree(self, asked: Asked) -> str | None:
        """Return how the judges disagree; None when they agree."""
        expected = faults(asked, self.world)
        scope = {
            "type": "http",
            "method": asked.method,
            "path": "/never-looked-at",
            "raw_path": asked.raw_path,
            "headers": asked.headers,
        }
        try:
            await self.server.authenticate(ResourceRequest.from_scope(scope))
        except DPoPError as error:
            check = "token" if error.check is None else str(error.check)
            return (
                None
                if check in expected
                else f"we found {check} ({error}), the oracle {expected or 'nothing'}"
            )
        return f"we found nothing, the oracle {expected}" if expected else None

    async def disagree_on(self, proof: str) -> str | None:
        """Return how they disagree about an honest request with this proof, None when they agree."""
        return await self.disagree(
            Asked("GET", b"/notes", [HOST, AUTHORIZATION, (b"dpop", proof.encode("latin-1"))])
        )
