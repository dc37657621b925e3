"""The cost of forged proofs at a token endpoint: no access token is known there, so nothing bounds them.

The client chooses the algorithm of its proof, among those that the policy accepts.
"""

from collections.abc import Sequence
from functools import partial

from dpop_middleware import ResourceRequest
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.workload import StubStore

__all__ = ["forged_proofs"]

_URL = "https://auth.example.test/token"
_ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "PS512")


def _forged(key: DPoPKey) -> ResourceRequest:
    signed, _, _ = key.proof("POST", _URL).rpartition(".")
    _, _, another_signature = key.proof("POST", _URL).rpartition(".")
    return ResourceRequest("POST", "/token", (), (), (f"{signed}.{another_signature}",))


async def _refused(endpoint: TokenEndpoint, requests: Sequence[ResourceRequest]) -> None:
    for request in requests:
        try:
            await endpoint.verify(request)
        except DPoPError as error:
            endpoint.error_response(error)
        else:
            raise AssertionError("a forged proof was accepted")


async def forged_proofs(*, rounds: int, size: int) -> dict[str, float]:
    """Return the cost of each refusal, with its answer, in verifications by ES256."""
    endpoint = TokenEndpoint(url=_URL, replay_store=StubStore())
    yardstick = Yardstick()
    rows = {
        f"forged proof by {algorithm}": (_forged(DPoPKey.generate(algorithm)), Samples())
        for algorithm in _ALGORITHMS
    }
    for _ in range(rounds):
        for request, samples in rows.values():
            await measure(samples, yardstick, partial(_refused, endpoint, [request] * size), size=size)
    return {name: samples.ratio for name, (_, samples) in rows.items()}
