"""What differs from one deployment to another, from the environment or a file `.env`."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Each is an environment variable: `NOTES_ISSUER`, `NOTES_RESOURCE` and so on."""

    model_config = SettingsConfigDict(env_prefix="NOTES_", env_file=".env", extra="ignore")

    issuer: str = "https://auth.example.com/realms/main"
    profile: Literal["KEYCLOAK", "OKTA", "AUTH0", "DUENDE", "RFC9068"] = "KEYCLOAK"
    resource: str = "https://api.example.com"
    valkey_url: str = "redis://localhost:6379/0"
    pages: list[str] = ["https://app.example.com"]
    """Origins of the pages that may call the API."""
