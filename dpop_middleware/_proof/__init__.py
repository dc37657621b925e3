"""The DPoP proof (RFC 9449 section 4).

From the top down:

    verification.py   the order of a proof's checks, and marking it as used
    freshness.py      whether a proof is new, and how long it must be remembered
    proof.py          what a proof says, each check a function
"""
