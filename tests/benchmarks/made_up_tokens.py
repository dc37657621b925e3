"""The cost of requests with made-up tokens where the issuer is asked about each unknown token.

The issuer runs in a thread of its own, and only this thread's time counts.
"""

import asyncio
import secrets
import time
from functools import partial

from dpop_middleware import ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.benchmarks.driving import Running
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.workload import RESOURCE, Client, Scope, StubStore
from tests.support.introspection_server import issuing

__all__ = ["made_up_tokens"]

_ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "PS512")
# As many batches come one after the other; those that may be asked about wait for their turn, up to a second.
_FLOOD = 10
_FLOODS = 3


def _server(issuer: str, endpoint: str) -> ResourceServer:
    verifier = IntrospectionVerifier(
        issuer=issuer,
        endpoint=endpoint,
        audience=RESOURCE,
        client_authentication=ClientSecretBasic(client_id="api", client_secret="secret"),
    )
    return ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=StubStore())


def _made_up(key: DPoPKey) -> Client:
    return Client(key, secrets.token_urlsafe(32))


def _forged(client: Client) -> Scope:
    return client.scope(f"{client.proof().rpartition('.')[0]}.{client.proof().rpartition('.')[2]}")


async def _flood(running: Running, api: ResourceServer, scopes: list[Scope]) -> float:
    """Return this thread's seconds for one request, of many at once."""
    started = time.thread_time()
    async with asyncio.TaskGroup() as senders:
        for scope in scopes:
            senders.create_task(running(api, [scope]))
            await asyncio.sleep(0)
    return (time.thread_time() - started) / len(scopes)


async def made_up_tokens(*, rounds: int, size: int, running: Running) -> dict[str, float]:
    """Return the ratio of each refusal; a batch of `size` is as long as a flood feels."""
    yardstick = Yardstick()
    keys = {algorithm: DPoPKey.generate(algorithm) for algorithm in _ALGORITHMS}
    forged = {
        f"asked about, forged proof by {algorithm}": ([_forged(_made_up(key))] * size, Samples())
        for algorithm, key in keys.items()
    }
    again = {
        f"asked about, one good proof again, {algorithm}": (_made_up(key), Samples())
        for algorithm, key in keys.items()
    }
    floods = {
        f"asked about, a flood of good proofs, {algorithm}": (keys[algorithm], Samples())
        for algorithm in ("ES256", "ES512")
    }
    with issuing() as issuer:
        api = _server(issuer.origin, issuer.endpoint)
        async with api:
            for number in range(rounds):
                for scopes, samples in forged.values():
                    await measure(samples, yardstick, partial(running, api, scopes), size=size)
                for client, samples in again.values():
                    scopes = [client.scope(client.proof())] * size
                    await running(api, scopes[:1])
                    await measure(samples, yardstick, partial(running, api, scopes), size=size)
                for key, samples in floods.values() if number < _FLOODS else ():
                    clients = [_made_up(key) for _ in range(_FLOOD * size)]
                    scopes = [client.scope(client.proof()) for client in clients]
                    before = yardstick.seconds(size)
                    seconds = await _flood(running, api, scopes)
                    samples.ratios.append(2 * seconds / (before + yardstick.seconds(size)))
    return {name: samples.ratio for kind in (forged, again, floods) for name, (_, samples) in kind.items()}
