"""A request as a value, its URL, and which URLs may be trusted. All of it is pure.

From the top down:

    request.py       a request, and the credentials that it carries
    public_urls.py   the target URI of a request, from the configuration; its path is judged
    public_paths.py  which paths need no credentials, with any router
    secure_url.py    which URLs may be fetched or addressed
    uri.py           http and https URIs in one normal form, percent-encoding and dot segments
"""
