"""A test kit for applications that `dpop_middleware` protects: import it in tests, on purpose.

`TestIssuer` makes tokens, clients and a resource server for tests; `broken_proof` makes what must be refused.
`dpop_middleware.testing.conformance` needs pytest and httpx2; `dpop_middleware.testing.suite` httpx2.
"""

from dpop_middleware.testing.defects import BROKEN_PROOFS, BrokenProof, broken_proof
from dpop_middleware.testing.issuer import TestIssuer
from dpop_middleware.testing.jws import ABSENT, encode_jws

__all__ = ["ABSENT", "BROKEN_PROOFS", "BrokenProof", "TestIssuer", "broken_proof", "encode_jws"]
