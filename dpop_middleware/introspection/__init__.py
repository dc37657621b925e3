"""Opaque access tokens: the issuer is asked what each of them stands for (RFC 7662, RFC 9701).

From the top down:

    verifier.py               IntrospectionVerifier: its options and the order of its steps
    client_authentication.py  how this server authenticates to the endpoint
    _questions.py             one question for many requests, and how many may be under way
    _verdicts.py              a cache of earlier answers
    _answer.py                the content of an answer, as JSON or signed, parsed and judged
    _endpoint.py              one question and its answer over HTTP
    _transport.py             its connections, bodies read within a limit, why there was no answer

The verifier needs httpx2 (extra `introspection`), which is imported at its first use.
"""

from typing import TYPE_CHECKING

from dpop_middleware._runtime import importing
from dpop_middleware.introspection.client_authentication import (
    BoundToken,
    ClientAuthentication,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJWT,
)

if TYPE_CHECKING:
    from dpop_middleware.introspection.verifier import IntrospectionHealth, IntrospectionVerifier

__all__ = [
    "BoundToken",
    "ClientAuthentication",
    "ClientSecretBasic",
    "ClientSecretPost",
    "IntrospectionHealth",
    "IntrospectionVerifier",
    "PrivateKeyJWT",
]


__getattr__ = importing(
    __name__,
    dict.fromkeys(("IntrospectionHealth", "IntrospectionVerifier"), "verifier"),
    either=("httpx2",),
)
