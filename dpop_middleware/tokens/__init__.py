"""Access tokens: what turns the string that a client sent into a verified `AccessToken`.

From the top down:

    access_token.py       the value and the protocol
    delegation.py         authorization details, and who acts for whom (RFC 9396, RFC 8693)
    jwt.py                JWTAccessTokenVerifier, for signed JWTs (RFC 9068)
    jwt_or_opaque.py      JWTOrOpaqueVerifier, for an issuer of both kinds
    multi_issuer.py       MultiIssuerVerifier: several issuers, each by its own verifier
    unverified_issuer.py  which issuer a token names
    resolved_issuers.py   issuers that are looked up when a token names them
    signed_token.py       the form and the header of a token
    claims.py             what a token says, typed and judged
    cache.py              tokens that were verified before, and the rule of eviction
    issuer_keys.py        the key source that the option `jwks` asks for
    key_source.py         the protocol of key sources; keys that are given once
    remote_key_source.py  keys that are fetched and kept fresh
    waiting.py            how many may wait for them, and what strangers can't make us do
    jwks.py               a JWK Set and which of its keys fit (RFC 7517)
    discovery.py          from the issuer to its keys' URL (RFC 8414, OpenID Connect Discovery)
    fetching.py           the fetcher that a verifier's options ask for
    own_fetch.py          documents by a function of the user's own
    fetch.py              one bounded HTTP GET
    fetch_headers.py      its header fields
    proxy.py              a tunnel through an egress proxy
    sockets.py            sockets with a deadline and a byte limit
    deadline.py           a moment by which several steps must be over
"""

from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier, Actor, AuthorizationDetail
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.jwt_or_opaque import JWTOrOpaqueVerifier
from dpop_middleware.tokens.multi_issuer import MultiIssuerVerifier

__all__ = [
    "AccessToken",
    "AccessTokenVerifier",
    "Actor",
    "AuthorizationDetail",
    "JWTAccessTokenVerifier",
    "JWTOrOpaqueVerifier",
    "MultiIssuerVerifier",
]
