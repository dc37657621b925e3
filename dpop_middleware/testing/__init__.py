"""A test kit for applications that `dpop_middleware` protects: import it in tests only.

`TestIssuer` makes tokens, clients and a resource server; `broken_proof` makes proofs that must be refused.
The module `conformance` needs pytest and httpx2, `suite` needs httpx2, `fixtures` needs pytest and the
packages that Starlette's TestClient needs. `store_contract` and `verifier_contract`, for authors of a replay
store or a token verifier, need pytest and pytest-asyncio.

From the top down:

    conformance.py        the suite as pytest tests of an application
    suite.py              the suite: its cases, a request each and its right answer, run against a target
    target.py             the application under test
    defects.py            broken proofs
    fixtures.py           fixtures of pytest
    issuer.py             TestIssuer
    stand_in.py           a server like the production one that trusts a TestIssuer
    store_contract.py     what every replay store must do
    verifier_contract.py  what every token verifier must do
"""

from dpop_middleware.testing.defects import BROKEN_PROOFS, BrokenProof, broken_proof
from dpop_middleware.testing.issuer import ABSENT, TestIssuer, encode_jws

__all__ = ["ABSENT", "BROKEN_PROOFS", "BrokenProof", "TestIssuer", "broken_proof", "encode_jws"]
