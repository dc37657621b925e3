"""A test kit for applications that `dpop_middleware` protects: import it in tests, on purpose.

`TestIssuer` makes tokens. `dpop_middleware.testing.conformance` needs pytest; nothing else here does.
"""

from dpop_middleware.testing.issuer import TestIssuer
from dpop_middleware.testing.jws import ABSENT, encode_jws

__all__ = ["ABSENT", "TestIssuer", "encode_jws"]
