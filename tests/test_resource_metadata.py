"""The metadata that an operator may publish."""

import json
from typing import Any

import pytest

from dpop_middleware import DPoPPolicy, ResourceMetadata
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._resource_metadata import Document, PublishedMetadata, published
from dpop_middleware.errors import ConfigurationError

API = "https://api.example.com"
NOTHING_MORE = ResourceMetadata()
WELL_KNOWN = "/.well-known/oauth-protected-resource"
DOCUMENT = Document(b'{"resource": "https://api.example.com"}', '"abc"', 600)


def test_sequences_become_tuples_and_the_value_is_frozen() -> None:
    metadata = ResourceMetadata(
        scopes_supported=["notes:read"], authorization_details_types_supported=["pay"]
    )
    assert metadata.scopes_supported == ("notes:read",)
    assert metadata.authorization_details_types_supported == ("pay",)
    assert metadata == ResourceMetadata(
        scopes_supported=("notes:read",), authorization_details_types_supported=("pay",)
    )
    assert hash(metadata) is not None
    with pytest.raises(AttributeError):
        metadata.max_age = 1  # type: ignore[misc] # it must fail


@pytest.mark.parametrize("none", [(), []], ids=str)
def test_a_list_that_is_empty_is_left_out_of_the_document(none: Any) -> None:
    metadata = ResourceMetadata(scopes_supported=none, authorization_details_types_supported=none)
    assert metadata == ResourceMetadata()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scopes_supported", "notes:read"),
        ("scopes_supported", ["a b"]),
        ("scopes_supported", ['"']),
        ("resource_name", ""),
        ("resource_name", "a\nb"),
        ("resource_name", "n" * 1001),
        ("resource_name", 1),
        ("resource_documentation", "/docs"),
        ("resource_documentation", "javascript:alert(1)"),
        ("resource_documentation", "https://docs.example.com/a b"),
        ("resource_policy_uri", "https://docs.example.com/<b>"),
        ("resource_policy_uri", 1),
        ("resource_tos_uri", 'https://docs.example.com/"'),
        ("resource_tos_uri", ""),
        ("authorization_details_types_supported", "pay"),
        ("authorization_details_types_supported", [""]),
        ("max_age", -1),
        ("max_age", True),
        ("max_age", 1.5),
    ],
)
def test_other_values_for_metadata_are_refused_with_the_name_of_the_option(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} takes "):
        ResourceMetadata(**{name: value})


@pytest.mark.parametrize(
    "page",
    ["https://docs.example.com", "https://docs.example.com/a?b=c&d[]=%20#part", "http://[::1]:8000/docs"],
)
def test_a_page_for_people_may_have_a_query_and_a_fragment(page: str) -> None:
    assert ResourceMetadata(resource_documentation=page).resource_documentation == page


def urls(*origins: str) -> PublicURLs:
    return PublicURLs(origins, insecure_http_hosts=())


def of(resource: str, metadata: ResourceMetadata = NOTHING_MORE) -> PublishedMetadata:
    origin = checked_url("resource", resource, insecure_http_hosts=()).origin
    found = published(metadata, resource, origin=origin, urls=urls(origin))
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
    assert of(resource).url() == url


def test_metadata_that_no_client_would_find_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="public_url doesn't name"):
        published(ResourceMetadata(), API, origin=API, urls=urls("https://api.example.org"))


def test_metadata_is_a_resource_metadata() -> None:
    with pytest.raises(ConfigurationError, match="metadata takes a ResourceMetadata, not"):
        published({"a": 1}, API, origin=API, urls=urls(API))  # type: ignore[arg-type]


def test_the_document_says_what_verifies() -> None:
    document = of(API).document(
        API, issuers=("https://auth.example.com",), policy=DPoPPolicy(algorithms=("ES256", "EdDSA"))
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
    document = of(f"{API}/v1/", metadata).document(
        f"{API}/v1/", issuers=(), policy=DPoPPolicy(accept_bearer=True)
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
    first = of(API).document(API, issuers=("https://a.example",), policy=DPoPPolicy())
    same = of(API).document(API, issuers=("https://a.example",), policy=DPoPPolicy(nonce="required"))
    other = of(API).document(API, issuers=("https://b.example",), policy=DPoPPolicy())
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
def test_each_spelling_of_the_path_asks_for_the_document(asked: dict[str, Any]) -> None:
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


NET, ORG = "https://api.example.net", "https://api.example.org:8443"


def at_hosts(*audiences: str, resource: str = f"{API}/v1") -> PublishedMetadata:
    found = published(ResourceMetadata(), resource, origin=API, urls=urls(API, NET, ORG), audiences=audiences)
    assert found is not None
    return found


def to(host: str, raw_path: str = "/v1/notes") -> ResourceRequest:
    return ResourceRequest("GET", raw_path, (host,), (), ())


@pytest.mark.parametrize(
    ("audience", "resource"),
    [
        (f"{NET}/v1", f"{NET}/v1"),
        ("https://API.example.NET:443/v1", "https://API.example.NET:443/v1"),
        (NET, f"{API}/v1"),
        (f"{NET}/v1/", f"{API}/v1"),
        (f"{NET}/v2", f"{API}/v1"),
        ("http://api.example.net/v1", f"{API}/v1"),
        ("https://evil.example/v1", f"{API}/v1"),
        ("api", f"{API}/v1"),
    ],
)
def test_a_host_is_a_resource_of_its_own_where_tokens_may_name_it(audience: str, resource: str) -> None:
    found = at_hosts(f"{API}/v1", audience)
    assert found.resource(to("api.example.net")) == resource
    assert found.several == (resource == audience)
    assert found.url(to("api.example.net")) == f"{NET if found.several else API}{WELL_KNOWN}/v1"


@pytest.mark.parametrize(
    ("asked", "origin"),
    [
        (to("api.example.net"), NET),
        (to("API.example.net:443"), NET),
        (to("api.example.org:8443"), ORG),
        (to("evil.example", f"{NET}/v1/notes"), NET),
        (to("api.example.com"), API),
        (to("api.example.org"), API),
        (to("evil.example"), API),
        (to("api.example.net", "https://evil.example/v1/notes"), API),
        (to("api.example.net", "ftp://api.example.net/v1/notes"), NET),
        (to("api.example.net, api.example.com"), API),
        (to("api.example.net")._replace(hosts=()), API),
        (to("api.example.net")._replace(hosts=("api.example.net", "api.example.com")), API),
        (None, API),
    ],
)
def test_the_host_of_a_request_chooses_among_the_configured_ones(
    asked: ResourceRequest | None, origin: str
) -> None:
    found = at_hosts(f"{API}/v1", f"{NET}/v1", f"{ORG}/v1")
    assert found.resource(asked) == f"{origin}/v1"
    assert found.url(asked) == f"{origin}{WELL_KNOWN}/v1"


def test_a_server_whose_audiences_are_not_known_has_one_resource() -> None:
    found = published(ResourceMetadata(), API, origin=API, urls=urls(API, NET))
    assert found is not None
    assert (found.several, found.resource(to("api.example.net"))) == (False, API)


def fields(
    method: str, *if_none_match: str, document: Document = DOCUMENT
) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = document.answer(method=method, if_none_match=if_none_match)
    assert len(dict(headers)) == len(headers), "no field comes twice"
    return status, dict(headers), body


def test_every_page_may_read_and_keep_the_document() -> None:
    status, headers, body = fields("GET")
    assert (status, body) == (200, DOCUMENT.body)
    assert headers == {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "ETag",
        "cache-control": "public, max-age=600",
        "content-length": str(len(DOCUMENT.body)),
        "content-type": "application/json",
        "etag": '"abc"',
        "x-content-type-options": "nosniff",
    }


def test_head_has_the_fields_of_get_and_no_body() -> None:
    assert fields("HEAD") == (200, fields("GET")[1], b"")


def test_a_preflight_may_name_any_field() -> None:
    status, headers, body = fields("OPTIONS")
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == "*"
    assert headers["access-control-allow-methods"] == headers["allow"] == "GET, HEAD, OPTIONS"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "get", "QUERY", ""])
def test_any_other_method_is_not_allowed(method: str) -> None:
    status, headers, body = fields(method)
    assert (status, headers["allow"], body) == (405, "GET, HEAD, OPTIONS", b"")


@pytest.mark.parametrize("known", [['"abc"'], ['"x", W/"abc"'], ["*"], ['"x"', ' "abc"\t']])
def test_a_client_with_the_document_gets_304(known: list[str]) -> None:
    status, headers, body = fields("GET", *known)
    assert (status, headers["etag"], body) == (304, '"abc"', b"")
    assert "content-length" not in headers


@pytest.mark.parametrize("known", ['"abcd"', "abc", 'w/"abc"', ""])
def test_a_client_with_another_document_gets_this_one(known: str) -> None:
    assert fields("GET", known)[0] == 200


def test_a_max_age_of_zero_lets_nobody_keep_the_document() -> None:
    assert fields("GET", document=DOCUMENT._replace(max_age=0))[1]["cache-control"] == "no-cache"
