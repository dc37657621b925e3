"""What an operator may say of a resource server."""

from typing import Any

import pytest

from dpop_middleware import ResourceMetadata
from dpop_middleware.errors import ConfigurationError


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
        metadata.max_age = 1  # type: ignore[misc]


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
def test_what_is_no_metadata_is_refused_by_the_name_of_the_option(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} takes "):
        ResourceMetadata(**{name: value})


@pytest.mark.parametrize(
    "page",
    ["https://docs.example.com", "https://docs.example.com/a?b=c&d[]=%20#part", "http://[::1]:8000/docs"],
)
def test_a_page_for_people_may_have_a_query_and_a_fragment(page: str) -> None:
    assert ResourceMetadata(resource_documentation=page).resource_documentation == page
