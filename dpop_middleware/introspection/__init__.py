"""Opaque access tokens: the issuer is asked what each of them stands for (RFC 7662, RFC 9701).

From the top down:

    verifier.py               IntrospectionVerifier: its options and the order of its steps
    client_authentication.py  who we are, towards the endpoint
    _questions.py             one question for many requests, and how many may be under way
    _admission.py             what strangers can't make us do
    _verdicts.py              what was answered before
    _answer.py                what an answer says, typed and judged
    _signed_answer.py         an answer that is a signed JWT
    _endpoint.py              one question and its answer over HTTP, bounded
    _transport.py             a pool of connections that reads no more than it should

It needs httpx2 (extra `introspection`).
"""

from dpop_middleware.introspection.client_authentication import (
    BoundToken,
    ClientAuthentication,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJWT,
)
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
