"""Access tokens as well-known issuers write them, and a server that asks for `notes:read`."""

import time
from typing import Any

from dpop_middleware import MemoryReplayStore, ResourceServer, VerifiedRequest, profiles
from dpop_middleware.client import DPoPKey
from dpop_middleware.profiles import Profile
from tests.support.api import request
from tests.support.issuer_tokens import issuer_key, key_set

__all__ = ["API", "KEY", "PROFILES", "TOKENS", "answered", "server", "signed"]

API = "https://api.example.com"
KEY = DPoPKey.generate()
NOW = int(time.time())
CNF = {"cnf": {"jkt": KEY.jkt}}

# As each issuer's documentation or source shows them, bound to a key: profile, issuer, header, claims.
TOKENS: dict[str, tuple[Profile, str, dict[str, Any], dict[str, Any]]] = {
    "Keycloak": (
        profiles.KEYCLOAK,
        "https://sso.example.com/realms/main",
        {"typ": "JWT"},
        {
            "jti": "onrtac:5e1f2f0c-6f05-1d0f-8e3b-6c6e1d3d5d1f", "aud": [API, "account"],
            "sub": "fa3dd6bc-7a4a-4a4a-9bd9-c6a8d3f5d0c1", "typ": "DPoP", "azp": "app", "sid": "a1b2",
            "acr": "1",
            "realm_access": {"roles": ["admin", "offline_access"]}, "scope": "openid notes:read",
            "resource_access": {"account": {"roles": ["view-profile"]}}, "preferred_username": "ann",
        },
    ),
    "Keycloak, a client for itself": (
        profiles.KEYCLOAK,
        "https://sso.example.com/realms/main",
        {"typ": "at+jwt"},
        {
            "jti": "trrtcc:1b6c", "aud": API, "sub": "9d1e", "typ": "DPoP", "azp": "app", "client_id": "app",
            "clientHost": "192.0.2.1", "scope": "notes:read", "preferred_username": "service-account-app",
        },
    ),
    "Okta": (
        profiles.OKTA,
        "https://example.okta.com/oauth2/default",
        {},
        {
            "ver": 1, "jti": "AT.k3p", "aud": API, "cid": "app", "uid": "00u1",
            "scp": ["openid", "notes:read"], "auth_time": NOW - 60, "sub": "ann@example.com",
        },
    ),
    "Auth0": (
        profiles.AUTH0,
        "https://example.eu.auth0.com/",
        {"typ": "JWT"},
        {
            "sub": "auth0|123456", "aud": [API, "https://example.eu.auth0.com/userinfo"], "azp": "app",
            "scope": "openid notes:read", "permissions": ["notes:read"],
        },
    ),
    "Duende": (
        profiles.DUENDE,
        "https://identity.example.com",
        {"typ": "at+jwt"},
        {
            "nbf": NOW, "aud": API, "scope": ["openid", "notes:read"], "amr": ["pwd"], "client_id": "app",
            "sub": "818727", "auth_time": NOW - 60, "idp": "local", "sid": "A1", "jti": "B2",
        },
    ),
    "HelseID, a client for itself": (
        profiles.DUENDE,
        "https://helseid.example.com",
        {"typ": "at+jwt"},
        {
            "nbf": NOW, "aud": API, "scope": ["notes:read"], "client_id": "app", "jti": "B2",
            "helseid://claims/client/claims/orgnr_parent": "994598759",
        },
    ),
    "oidc-provider": (
        profiles.OIDC_PROVIDER,
        "https://op.example.com",
        {"typ": "at+jwt"},
        {"jti": "x", "sub": "ann", "scope": "notes:read", "client_id": "app", "aud": API},
    ),
    "Better Auth": (
        profiles.BETTER_AUTH,
        "https://auth.example.com/api/auth",
        {"typ": "at+jwt"},
        {
            "sub": "ann", "aud": API, "client_id": "app", "azp": "app", "scope": "notes:read", "sid": "s",
            "jti": "x",
        },
    ),
}  # fmt: skip
PROFILES = {
    name: getattr(profiles, name) for name in profiles.__all__ if isinstance(getattr(profiles, name), Profile)
}


def signed(issuer: str, header: dict[str, Any], claims: dict[str, Any]) -> str:
    key, now = issuer_key(), int(time.time())
    usual = {"iss": issuer, "iat": now, "exp": now + 300, **CNF}
    return key.sign({"alg": key.alg, "kid": key.kid} | header, usual | claims)


def server(issuer: str, **options: Any) -> ResourceServer:
    return ResourceServer(
        issuer=issuer, resource=API, jwks=key_set(issuer_key()), replay_store=MemoryReplayStore(), **options
    )


async def answered(api: ResourceServer, token: str) -> VerifiedRequest:
    proof = KEY.proof("GET", f"{API}/notes", access_token=token)
    return await api.authenticate(request(token, proof, hosts=("api.example.com",)), scopes=("notes:read",))
