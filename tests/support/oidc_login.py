"""A user who logs in at the npm package oidc-provider, without a browser."""

import re
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2

__all__ = ["code_from"]


def code_from(client: httpx2.Client, url: str) -> str:
    """Click through the server's login and consent pages."""
    response = client.get(url)
    for _ in range(12):
        if response.has_redirect_location:
            location = urljoin(str(response.url), response.headers["Location"])
            if location.startswith("http://127.0.0.1/callback"):
                return parse_qs(urlsplit(location).query)["code"][0]
            response = client.get(location)
            continue
        form = re.search(r'action="([^"]+)"', response.text)
        assert form is not None, response.text
        hidden = r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]+)"'
        data = dict(re.findall(hidden, response.text))
        if 'name="login"' in response.text:
            data |= {"login": "ann", "password": "x"}
        response = client.post(urljoin(str(response.url), form[1]), data=data)
    raise AssertionError("no code")
