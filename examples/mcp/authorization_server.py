"""The authorization server of the flow example, which demands nonces here."""

import os
import secrets

from starlette.types import ASGIApp

from dpop_middleware import HMACNonceProvider
from examples.flow import authorization_server


def create_app() -> ASGIApp:
    """Build the application; its identifiers come from the environment."""
    return authorization_server.create_app(
        issuer=os.environ["MCP_ISSUER"],
        resource=os.environ["MCP_RESOURCE"],
        page=os.environ["MCP_CLIENT"],
        nonces=HMACNonceProvider(secrets.token_bytes(32)),
    )
