"""The answer to a request for the metadata document."""

import pytest

from dpop_middleware._metadata.answer import answer
from dpop_middleware._metadata.published import Document

DOCUMENT = Document(b'{"resource": "https://api.example.com"}', '"abc"', 600)


def fields(
    method: str, *if_none_match: str, document: Document = DOCUMENT
) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = answer(document, method=method, if_none_match=if_none_match)
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
def test_who_has_the_document_gets_304(known: list[str]) -> None:
    status, headers, body = fields("GET", *known)
    assert (status, headers["etag"], body) == (304, '"abc"', b"")
    assert "content-length" not in headers


@pytest.mark.parametrize("known", ['"abcd"', "abc", 'w/"abc"', ""])
def test_who_has_another_document_gets_this_one(known: str) -> None:
    assert fields("GET", known)[0] == 200


def test_a_document_that_nobody_may_keep() -> None:
    assert fields("GET", document=DOCUMENT._replace(max_age=0))[1]["cache-control"] == "no-cache"
