"""Access tokens: what turns the string that a client sent into a verified `AccessToken`.

From the top down:

    access_token.py       the value, what it says beyond its scopes, and the protocol
    optional_members.py   what a verifier may say of itself besides
    jwt.py                JWTAccessTokenVerifier, for signed JWTs (RFC 9068)
    several_verifiers.py  JWTOrOpaqueVerifier and MultiIssuerVerifier, which consist of other verifiers
    named_issuers.py      the issuer that a token names, unverified, looked up where it isn't configured
    signed_token.py       the form and the header of a token, and the key that signed it
    claims.py             the claims of a token, parsed and judged; how names differ that are alike
    cache.py              tokens that were verified before, and the rule of eviction
    issuer_keys.py        the keys that the option `jwks` gives, or their source, by discovery for instance
    remote_key_source.py  keys that are fetched and kept fresh
    admission.py          bounds against made-up tokens: requests that wait, questions, answers 503
    jwks.py               a JWK Set, which of its keys fit (RFC 7517), and keys that were given once
    fetch.py              one bounded HTTP GET, or a function of the user's own
    connections.py        its connection: a deadline, a byte limit, a tunnel through an egress proxy
"""

from typing import TYPE_CHECKING

from dpop_middleware._runtime import importing
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier, Actor, AuthorizationDetail

if TYPE_CHECKING:
    from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
    from dpop_middleware.tokens.several_verifiers import JWTOrOpaqueVerifier, MultiIssuerVerifier

__all__ = [
    "AccessToken",
    "AccessTokenVerifier",
    "Actor",
    "AuthorizationDetail",
    "JWTAccessTokenVerifier",
    "JWTOrOpaqueVerifier",
    "MultiIssuerVerifier",
]

__getattr__ = importing(
    __name__,
    {
        "JWTAccessTokenVerifier": "jwt",
        "JWTOrOpaqueVerifier": "several_verifiers",
        "MultiIssuerVerifier": "several_verifiers",
    },
)
