"""What the framework adapters share: a connection and what it remembers, and its end at the token's expiry.

From the top down:

    connection.py  one connection: its request, its verdicts, its answer
    answers.py     how a request is answered: refusal, metadata, header fields; when it is reported
    expiry.py      connections that end with their access token

Parts of one adapter each:

    layers.py      of `asgi`: what can be seen inside an application
    results.py     of `starlette`: is a function's result the response, and header fields on it
    question.py    of `forward_auth`: a gateway's question about a request
    ticket.py      of `websocket_tickets`: a ticket for one handshake, its contents, and how it is carried
"""
