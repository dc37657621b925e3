"""What the framework adapters share: a connection and what it remembers, and its end at the token's expiry.

From the top down:

    connection.py  one connection: its request, its verdicts, its answer
    answers.py     how a request is answered: refusal, metadata, header fields; when it is reported
    expiry.py      connections that end with their access token
    results.py     the result of a decorated function: is it the response, and header fields on it
    layers.py      what can be seen inside an application
    question.py    a gateway's question about a request
    ticket.py      a ticket for one handshake: its contents, and how it is carried
"""
