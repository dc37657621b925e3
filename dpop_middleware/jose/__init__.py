"""JOSE as strictly as a resource server needs it: compact JWS, JSON, base64url, keys and algorithms.

Everything here is a pure function of its arguments. Hostile input raises `JOSEError` and nothing else;
a signature that doesn't verify is False. What PyJWT and cryptography would let pass (padding, duplicate
names, private members, weak keys, points of small order) is refused before they see it.

    base64url.py    canonical base64url (RFC 7515 section 2)
    strict_json.py  one JSON object in UTF-8, each name once (RFC 8259, RFC 7515 section 4)
    compact.py      the three segments of a compact JWS (RFC 7515 section 7.1)
    header.py       the header of a JWS from an untrusted sender (RFC 7515 section 4)
    algorithms.py   the closed table of algorithms (RFC 7518, RFC 8037, RFC 9864, RFC 9964)
    mldsa.py        ML-DSA, where this system has it (RFC 9964)
    jwk.py          JWK -> public key, JWK -> thumbprint (RFC 7517, RFC 7638)
"""
