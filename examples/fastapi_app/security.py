"""Who may call: one resource server, one dependency, and a name for each kind of caller."""

from typing import Annotated

from fastapi import Security

from dpop_middleware import AccessToken, RedisReplayStore, ResourceServer, profiles
from dpop_middleware.fastapi import DPoPSecurity
from examples.fastapi_app.settings import Settings

__all__ = ["Reader", "Writer", "api", "dpop", "settings"]

settings = Settings()
# Nothing is connected here: the application's lifespan opens it, or else the first request.
api = ResourceServer(
    issuer=settings.issuer,
    profile=getattr(profiles, settings.profile),
    resource=settings.resource,
    replay_store=RedisReplayStore.from_url(settings.valkey_url),
)
dpop = DPoPSecurity(api)

Reader = Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]
Writer = Annotated[AccessToken, Security(dpop, scopes=["notes:write"])]
