"""Paths: what is percent-encoded, dot segments, and that nothing costs more than its length."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware._request.paths import (
    NOT_IN_A_PATH,
    URIError,
    check_request_path,
    encoded,
    has_dot_segment,
    is_normal,
    without_dot_segments,
)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a-b_c~d", "/a-b_c~d"),
        ("/%7Ea/%c3%bc", "/~a/%C3%BC"),
        ("/%2f/%2F", "/%2F/%2F"),
        ("/ü^|", "/%FC%5E%7C"),
    ],
)
def test_only_characters_that_must_be_percent_encoded_are(path: str, normal: str) -> None:
    assert encoded(path) == normal
    assert encoded(normal) == normal


@pytest.mark.parametrize("path", ["/%", "/%4", "/%zz", "/a%2", "/\u0100", "/" + "%41" * 257, "/" + "^" * 257])
def test_malformed_percent_encoding_and_too_much_of_it_are_refused(path: str) -> None:
    with pytest.raises(URIError):
        encoded(path)


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/.b/..c", "/a/.b/..c"),
    ],
)
def test_dot_segments_are_removed_as_rfc_3986_says(path: str, rest: str) -> None:
    assert without_dot_segments(path) == rest
    assert not has_dot_segment(rest)


def test_a_path_with_dot_segments_and_too_many_segments_is_refused() -> None:
    assert without_dot_segments("/a" * 257) == "/a" * 257
    with pytest.raises(URIError, match="too many segments"):
        without_dot_segments("/a" * 256 + "/.")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("a", "doesn't start with a slash"),
        ("", "doesn't start with a slash"),
        ("/" + "a" * 4096, "too long"),
        ("/a/..", "dot segment"),
        ("/%2e%2E/a", "dot segment"),
        ("/.%2e", "dot segment"),
        ("/a/%2e?x", "dot segment"),
        ("/%00/%2e", "dot segment"),
        ("/%2g", "malformed"),
        ("/%=41", "malformed"),
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str, sentence: str) -> None:
    with pytest.raises(URIError, match=sentence):
        check_request_path(path)


@pytest.mark.parametrize(
    "path", ["/", "/a?b=/../", "/%2f..%2f", "/=0d", "/a%00.b", "/...", "/a." + "b" * 4000]
)
def test_any_other_path_is_let_through(path: str) -> None:
    check_request_path(path)


@given(st.text(st.sampled_from("/.%2eE0aAfF?=~^é"), max_size=24).map("/".__add__))
@settings(max_examples=300)
def test_an_accepted_path_has_no_dot_segment_once_it_is_decoded(path: str) -> None:
    try:
        check_request_path(path)
        normal = encoded(path.partition("?")[0])
    except URIError:
        return
    assert not has_dot_segment(normal)


def test_plain_and_normal_paths_are_recognised_quickly() -> None:
    assert is_normal("/a/b")
    assert not any(map(is_normal, ("/a%41", "/ü", "/a/../b", "/a b")))
    assert not NOT_IN_A_PATH.search("/a%2F")
    assert all(map(NOT_IN_A_PATH.search, ("/ü", "/a b", "/a?b", "/a\\b", "/\u20ac", "/\ud800")))


def test_every_octet_is_told_apart_by_what_a_path_may_contain() -> None:
    # RFC 3986 section 3.3: unreserved, sub-delims, ":" and "@" are the characters of a segment.
    kept = set(string.ascii_letters + string.digits + "-._~" + "!$&'()*+,;=" + ":@" + "/")
    characters = [chr(octet) for octet in range(256)]
    assert {one for one in characters if is_normal(f"/a{one}")} == kept
    assert {one for one in characters if not NOT_IN_A_PATH.search(f"/a{one}")} == kept | {"%"}
    assert {one for one in characters if one != "%" and encoded(f"/a{one}") == f"/a{one}"} == kept
