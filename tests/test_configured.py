"""The parts that the options of a resource server configure."""

from typing import Any

import pytest

from dpop_middleware import MemoryReplayStore, ResourceMetadata, ResourceServer
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.testing import TestIssuer

RESOURCE = "https://api.example.com"
ISSUER = TestIssuer(audience=RESOURCE)


def server(**options: object) -> ResourceServer:
    given: dict[str, Any] = {"resource": RESOURCE, "replay_store": MemoryReplayStore(), **options}
    return ResourceServer(**given)


def test_nothing_is_published_unless_asked() -> None:
    given = {"issuer": ISSUER.issuer, "jwks": ISSUER.jwks()}
    assert server(**given).published_metadata is None
    assert server(**given, metadata=ResourceMetadata()).published_metadata is not None


def test_exactly_one_of_issuer_and_verifier_is_given() -> None:
    with pytest.raises(ConfigurationError, match="exactly one of issuer and verifier: none is given"):
        server()
    verifier = server(issuer=ISSUER.issuer, jwks=ISSUER.jwks()).verification.verifier
    with pytest.raises(ConfigurationError, match="make a verifier: leave them out, or leave out verifier"):
        server(issuer=ISSUER.issuer, verifier=verifier)


def test_a_profile_is_one_of_profiles() -> None:
    with pytest.raises(ConfigurationError, match=r"profile takes a Profile, such as profiles\.KEYCLOAK"):
        server(issuer=ISSUER.issuer, jwks=ISSUER.jwks(), profile="KEYCLOAK")
