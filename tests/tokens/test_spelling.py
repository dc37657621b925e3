"""Two names that are alike, and how they differ."""

import pytest

from dpop_middleware.tokens.spelling import difference

SLASH = "only a trailing slash differs"
CASE = "only upper and lower case differ"
BOTH = "a trailing slash and upper and lower case differ"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["https://a.example"], ["https://a.example/"], SLASH),
        (["https://a.example/x"], ["https://A.example/X"], CASE),
        (["https://a.example/x"], ["https://a.example/X/"], BOTH),
        (["https://a.example/x/"], ["https://a.example/y"], None),
        (["https://a.example"], [], None),
        (["https://b.example", "https://a.example"], ["c", "https://A.example"], CASE),
        (["https://a.example/", "api"], ["https://A.example", "api/"], SLASH),
    ],
)
def test_the_least_difference_of_two_names_is_told(
    ours: list[str], theirs: list[str], expected: str | None
) -> None:
    assert difference(iter(ours), iter(theirs)) == expected
