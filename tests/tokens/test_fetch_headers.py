"""Which header fields go with a request for keys, and to whom."""

from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.fetch_headers import FetchHeaders, checked_headers

ISSUER = (True, "auth.example.com", 443)
USUAL = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "dpop_middleware",
}


def test_added_fields_go_to_their_origin_alone() -> None:
    headers = FetchHeaders({"X-Api-Key": "secret"}, origin=ISSUER)
    assert headers.to(ISSUER) == USUAL | {"X-Api-Key": "secret"}
    for other in (
        (True, "auth.example.com", 8443),
        (False, "auth.example.com", 443),
        (True, "keys.example.com", 443),
    ):
        assert headers.to(other) == USUAL


def test_a_usual_field_can_be_replaced_in_any_case() -> None:
    headers = FetchHeaders({"user-agent": "notes/1", "ACCEPT": "application/jwk-set+json"}, origin=ISSUER)
    assert headers.to(ISSUER) == {
        "Accept-Encoding": "identity",
        "Connection": "close",
        "user-agent": "notes/1",
        "ACCEPT": "application/jwk-set+json",
    }


def test_no_fields_were_added() -> None:
    assert checked_headers(None) == {}
    assert checked_headers({"X-A": "b c"}) == {"X-A": "b c"}
    assert FetchHeaders({}).to(ISSUER) == USUAL


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("X-Api-Key: secret", "takes a mapping"),
        ([("X-Api-Key", "secret")], "takes a mapping"),
        ({"Host": "secret"}, "can't hold a header field 'Host'"),
        ({"transfer-encoding": "secret"}, "can't hold a header field"),
        ({"X Y": "secret"}, "can't hold a header field"),
        ({"": "secret"}, "can't hold a header field"),
        ({1: "secret"}, "can't hold a header field"),
        ({"X-Y\r\nHost": "secret"}, "can't hold a header field"),
        ({"X-Y": "secret\r\nHost: evil"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": " secret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": "sécret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": b"secret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": ""}, "printable ASCII as the value of X-Y"),
    ],
)
def test_what_is_no_header_field_is_refused_without_its_value(value: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        checked_headers(value)
    assert "secret" not in str(caught.value)
