"""The judge of a request (RFC 9449 section 7).

From the top down:

    request.py       the order of a request's checks
    verdicts.py      the evidence, and what the application is given
    remote.py        the order where another server is asked about the token
    binding.py       whether a token may come with a proof, and with this one
    requirements.py  what a route asks of a token
    challenges.py    an error becomes a response
    hints.py         a likely cause of an error, for logs
    misplaced.py     hints for what stands in a wrong place
    ticket.py        what a ticket for one handshake says, sealed
    lifecycle.py     opening and closing what a server was given
"""
