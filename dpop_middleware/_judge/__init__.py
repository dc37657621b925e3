"""The judge of a request (RFC 9449 section 7).

From the top down:

    request.py         the order of a request's checks
    verdicts.py        the evidence, the value for the application, or a refusal's response
    remote.py          the order where another server is asked about the token
    requirements.py    what a valid token must have: for its binding, and for a route
    hints.py           a likely cause of an error, for logs
    misplaced.py       hints for values in a wrong place, and for another profile
"""
