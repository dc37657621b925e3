"""The DPoP proof (RFC 9449 section 4).

From the top down:

    verification.py   the order of a proof's checks, and marking it as used
    freshness.py      whether a proof is recent, and how long it must be remembered
    proof.py          the contents of a proof, and one function for each check
"""
