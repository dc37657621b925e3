"""The flow without a browser: what `--check` does."""

import re
import secrets
from urllib.parse import parse_qs, urlsplit

import httpx2

from dpop_middleware.client import (
    AuthorizationCode,
    DPoPAuth,
    DPoPKey,
    authorization_url,
    fetch_token,
    pkce_pair,
)
from examples.flow.authorization_server import CLIENT_ID


def check(page: str, issuer: str, resource: str) -> int:
    """Walk from the page through consent and token to the API; return the exit status."""
    key = DPoPKey.generate("ES256")
    pkce = pkce_pair()
    state = secrets.token_urlsafe(16)
    redirect_uri = f"{page}/"
    with httpx2.Client(trust_env=False) as client:
        assert "<h1" in client.get(page).raise_for_status().text
        metadata = client.get(f"{issuer}/.well-known/oauth-authorization-server").json()
        url = authorization_url(
            metadata["authorization_endpoint"],
            client_id=CLIENT_ID,
            redirect_uri=redirect_uri,
            code_challenge=pkce.code_challenge,
            key=key,
            state=state,
        )
        name = re.search(r'name="request" value="([^"]+)"', client.get(url).raise_for_status().text)
        assert name is not None
        consent = client.post(f"{issuer}/authorize", data={"request": name[1], "decision": "allow"})
        answer = parse_qs(urlsplit(consent.headers["location"]).query)
        assert (answer["state"], answer["iss"]) == ([state], [issuer])
        token = fetch_token(
            client,
            metadata["token_endpoint"],
            AuthorizationCode(
                code=answer["code"][0], redirect_uri=redirect_uri, code_verifier=pkce.code_verifier
            ),
            key=key,
            client_id=CLIENT_ID,
        )
        auth = DPoPAuth(key, token.access_token)
        for path in ("/accounts", "/vault"):  # the vault asks for a nonce; DPoPAuth answers
            response = client.get(f"{resource}{path}", auth=auth)
            print(f"GET {path:<18}{response.status_code} {response.text}")
            if response.status_code != 200:
                return 1
    return 0
