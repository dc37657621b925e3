"""What a resource server says of itself to clients that don't know it yet (RFC 9728). All of it is pure.

From the top down:

    answer.py             the answer to one request for the document
    published.py          the document and where it is, from the configuration that verifies
    resource_metadata.py  what only the server's operator can say
"""
