"""A test kit for applications that `dpop_middleware` protects: import it in tests, on purpose.

`TestIssuer` makes tokens, clients and a resource server for tests; `broken_proof` makes what must be refused.
`conformance` beside it needs pytest and httpx2, `suite` httpx2; `store_contract` and `verifier_contract`, for
whoever writes a replay store or a token verifier, pytest and pytest-asyncio.
"""

from dpop_middleware.testing.defects import BROKEN_PROOFS, BrokenProof, broken_proof
from dpop_middleware.testing.issuer import TestIssuer
from dpop_middleware.testing.jws import ABSENT, encode_jws

__all__ = ["ABSENT", "BROKEN_PROOFS", "BrokenProof", "TestIssuer", "broken_proof", "encode_jws"]
