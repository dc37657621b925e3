"""What the framework adapters share: a connection and what it remembers, and its end at the token's expiry.

From the top down:

    connection.py  one connection: its request, its verdicts, its answer
    answers.py     how a request is answered: refusal, metadata, header fields; when it is reported
    copies.py      header fields on what an application returns or raises
    expiry.py      connections that end with their access token
    serving.py     who calls a decorated function: whether its result is the response
    layers.py      what can be seen inside an application
    question.py    a gateway's question about a request
    ticket.py      a ticket for one handshake: its contents, and how it is carried
"""
