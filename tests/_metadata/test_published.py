"""Where the metadata document is, what it says, and which requests ask for it."""

import json
from typing import Any

import pytest

from dpop_middleware import DPoPPolicy, ResourceMetadata
from dpop_middleware._metadata.published import PublishedMetadata, published
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware.errors import ConfigurationError

NOTHING_MORE = ResourceMetadata()
WELL_KNOWN = "/.well-known/oauth-protected-resource"


def of(resource: str, metadata: ResourceMetadata = NOTHING_MORE) -> PublishedMetadata:
    origin = checked_url("resource", resource, insecure_http_hosts=()).origin
    found = published(metadata, resource, origin=origin, origins=(origin,))
    assert found is not None
    return found


def scope(path: str, *, raw: bytes | None = b"", root_path: str = "", kind: str = "http") -> dict[str, Any]:
    raw_path = path.encode() if raw == b"" else raw
    return {"type": kind, "path": path, "raw_path": raw_path, "root_path": root_path}


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.example.com", f"https://api.example.com{WELL_KNOWN}"),
        ("https://api.example.com/", f"https://api.example.com{WELL_KNOWN}"),
        ("https://api.example.com/v1", f"https://api.example.com{WELL_KNOWN}/v1"),
        ("https://api.example.com/v1/", f"https://api.example.com{WELL_KNOWN}/v1/"),
        ("https://API.example.com:443/v1", f"https://api.example.com{WELL_KNOWN}/v1"),
        ("https://api.example.com:8443/a/b", f"https://api.example.com:8443{WELL_KNOWN}/a/b"),
        ("http://localhost:8000", f"http://localhost:8000{WELL_KNOWN}"),
        ("https://api.example.com/%7euser/%c3%bc", f"https://api.example.com{WELL_KNOWN}/~user/%C3%BC"),
    ],
)
def test_the_well_known_path_goes_between_host_and_path(resource: str, url: str) -> None:
    assert of(resource).url == url


def test_nothing_is_published_unless_asked() -> None:
    assert published(None, "https://api.example.com", origin="x", origins=()) is None


def test_metadata_that_nobody_would_find_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="public_url doesn't name"):
        published(
            ResourceMetadata(),
            "https://api.example.com",
            origin="https://api.example.com",
            origins=("https://api.example.org",),
        )


def test_metadata_are_a_resource_metadata() -> None:
    with pytest.raises(ConfigurationError, match="metadata takes a ResourceMetadata, not"):
        published({"a": 1}, "https://a.example", origin="", origins=())  # type: ignore[arg-type]


def test_the_document_says_what_verifies() -> None:
    document = of("https://api.example.com").document(
        issuers=("https://auth.example.com",), policy=DPoPPolicy(algorithms=("ES256", "EdDSA"))
    )
    assert json.loads(document.body) == {
        "resource": "https://api.example.com",
        "authorization_servers": ["https://auth.example.com"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "dpop_bound_access_tokens_required": True,
    }
    assert document.max_age == 3600


def test_the_document_says_what_its_operator_says() -> None:
    metadata = ResourceMetadata(
        scopes_supported=["notes:read"],
        resource_name="Notizen für alle",
        resource_documentation="https://docs.example.com/",
        resource_policy_uri="https://docs.example.com/policy",
        resource_tos_uri="https://docs.example.com/tos",
        authorization_details_types_supported=["pay"],
    )
    document = of("https://api.example.com/v1/", metadata).document(
        issuers=(), policy=DPoPPolicy(accept_bearer=True)
    )
    said = json.loads(document.body)
    assert said["resource"] == "https://api.example.com/v1/"
    assert said["dpop_bound_access_tokens_required"] is False
    assert "authorization_servers" not in said, "an empty array is left out"
    assert (
        said.items()
        >= {
            "scopes_supported": ["notes:read"],
            "resource_name": "Notizen für alle",
            "resource_documentation": "https://docs.example.com/",
            "resource_policy_uri": "https://docs.example.com/policy",
            "resource_tos_uri": "https://docs.example.com/tos",
            "authorization_details_types_supported": ["pay"],
        }.items()
    )


def test_the_tag_changes_with_the_document_only() -> None:
    first = of("https://api.example.com").document(issuers=("https://a.example",), policy=DPoPPolicy())
    same = of("https://api.example.com").document(
        issuers=("https://a.example",), policy=DPoPPolicy(nonce="required")
    )
    other = of("https://api.example.com").document(issuers=("https://b.example",), policy=DPoPPolicy())
    assert first == same
    assert first.etag != other.etag


@pytest.mark.parametrize(
    "asked",
    [
        scope(f"{WELL_KNOWN}/v1"),
        scope(f"{WELL_KNOWN}/v1", raw=None),
        scope(f"{WELL_KNOWN}/v1", raw=f"{WELL_KNOWN}/v1?x=1".encode()),
        # hypercorn leaves the root path out, uvicorn puts it in front.
        scope(f"{WELL_KNOWN}/v1", root_path="/v1"),
        scope(f"/v1{WELL_KNOWN}/v1", root_path="/v1"),
        scope(f"/v1{WELL_KNOWN}/v1", root_path="/v1/"),
        scope(f"{WELL_KNOWN}/v1", root_path="/"),
    ],
)
def test_a_request_for_the_document(asked: dict[str, Any]) -> None:
    assert of("https://api.example.com/v1").is_asked_for(asked)


@pytest.mark.parametrize(
    "asked",
    [
        scope("/notes"),
        scope(WELL_KNOWN),
        scope(f"{WELL_KNOWN}/v1/"),
        scope(f"{WELL_KNOWN}/v1/notes"),
        scope(f"{WELL_KNOWN}/v2"),
        scope(f"/notes{WELL_KNOWN}/v1"),
        scope(f"/v1{WELL_KNOWN}/v1"),
        scope(f"/{WELL_KNOWN}/v1"),
        scope(f"/v1/v1{WELL_KNOWN}/v1", root_path="/v1"),
        scope(f"/v2{WELL_KNOWN}/v1", root_path="/v1"),
        scope(f"{WELL_KNOWN}/V1"),
        scope(f"{WELL_KNOWN}/v1", raw=b"/%2ewell-known/oauth-protected-resource/v1"),
        scope(f"{WELL_KNOWN}/v1", raw=b"/.well-known/oauth-protected-resource%2Fv1"),
        scope(f"{WELL_KNOWN}/v1", raw=b"/notes"),
        scope(f"{WELL_KNOWN}/v1", raw=f"/v1{WELL_KNOWN}/v1".encode(), root_path="/v1"),
        scope(f"/v1{WELL_KNOWN}/v1", raw=f"{WELL_KNOWN}/v1".encode(), root_path="/v1"),
        scope(f"https://api.example.com{WELL_KNOWN}/v1"),
        scope(f"{WELL_KNOWN}/v1", kind="websocket"),
    ],
)
def test_no_other_request_asks_for_the_document(asked: dict[str, Any]) -> None:
    assert not of("https://api.example.com/v1").is_asked_for(asked)


@pytest.mark.parametrize("raw", [b"/%7euser", b"/~user"])
def test_a_path_is_known_as_the_resource_writes_it_and_as_it_is_usual(raw: bytes) -> None:
    found = of("https://api.example.com/%7euser")
    assert found.is_asked_for(scope(f"{WELL_KNOWN}/~user", raw=WELL_KNOWN.encode() + raw))
