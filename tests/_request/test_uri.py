"""Normal forms of URIs, rule by rule, then as properties."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware._request.public_urls import (
    check_request_path,
    request_path,
    strip_root_path,
    target_uri,
)
from dpop_middleware._request.uri import (
    KEPT,
    NOT_IN_A_PATH,
    BaseURL,
    URIError,
    authority,
    encoded,
    has_dot_segment,
    normalize,
    parse_base_url,
    without_dot_segments,
)
from dpop_middleware.jose import base64url

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "proof_vectors.json").read_text("utf-8"))
BASE = parse_base_url("https://api.example.com")
PREFIXED = parse_base_url("https://api.example.com/svc")

few = settings(max_examples=200)


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("https://api.example.com/v1/things", "https://api.example.com/v1/things"),
        ("http://localhost/", "http://localhost/"),
        ("HTTPS://API.Example.COM/V1", "https://api.example.com/V1"),
        ("https://h", "https://h/"),
        ("https://h?a=b", "https://h/"),
        ("https://h#f", "https://h/"),
        ("https://h/p?a=b#c?d", "https://h/p"),
        ("https://h/p#a?b", "https://h/p"),
        ("https://h/p?", "https://h/p"),
        ("https://h/p?%zz\\|{}", "https://h/p"),
        ("https://h/p?a@b:c/../d", "https://h/p"),
        ("https://h:443/p", "https://h/p"),
        ("https://h:/p", "https://h/p"),
        ("https://h:00443/p", "https://h/p"),
        ("https://h:08443/p", "https://h:8443/p"),
        ("https://h:80/p", "https://h:80/p"),
        ("http://h:80/p", "http://h/p"),
        ("http://h:443/p", "http://h:443/p"),
        ("https://h:0/p", "https://h:0/p"),
        ("https://h:65535/p", "https://h:65535/p"),
        ("https://h./p", "https://h./p"),
        ("https://my_host-1.x/p", "https://my_host-1.x/p"),
        ("https://127.0.0.1/p", "https://127.0.0.1/p"),
        ("https://[::1]/p", "https://[::1]/p"),
        ("https://[2001:DB8:0:0::1]:8443/p", "https://[2001:db8::1]:8443/p"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]/"),
        ("https://h/%7euser/%41%2d", "https://h/~user/A-"),
        ("https://h/caf%c3%a9", "https://h/caf%C3%A9"),
        ("https://h/a%2fb", "https://h/a%2Fb"),
        ("https://h/a%252fb", "https://h/a%252fb"),
        ("https://h/a%2521", "https://h/a%2521"),
        ("https://h/%21!", "https://h/%21!"),
        ("https://h/a;b=c,d@e:f&g+h*(i)'$!", "https://h/a;b=c,d@e:f&g+h*(i)'$!"),
        ('https://h/"<>^`{|}[]', "https://h/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("https://h/%22%3c%3E%5E%60%7B%7C%7D%5B%5D", "https://h/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("https://h/a/./b/../c", "https://h/a/c"),
        ("https://h/a/%2e/b/%2E%2e/c", "https://h/a/c"),
        ("https://h/a/.%2e/c", "https://h/c"),
        ("https://h/..", "https://h/"),
        ("https://h/../../a", "https://h/a"),
        ("https://h/a/.", "https://h/a/"),
        ("https://h/a/b/..", "https://h/a/"),
        ("https://h/a//../b", "https://h/a/b"),
        ("https://h/a/..//b", "https://h//b"),
        ("https://h//x//", "https://h//x//"),
        ("https://h/.well-known/x", "https://h/.well-known/x"),
        ("https://h/.../..a/a..", "https://h/.../..a/a.."),
        ("https://h/%5C", "https://h/%5C"),
        ("https://h/%00%7f%ff", "https://h/%00%7F%FF"),
        # RFC 9449 section 4.3, check 9: query and fragment are ignored, with any content.
        ("https://h/p?q=ü", "https://h/p"),
        ("https://h/p?a b", "https://h/p"),
        ("https://h/p#\r\n", "https://h/p"),
        ("https://h/p?\n?\x00#\ud800\\%", "https://h/p"),
        ("https://h?é", "https://h/"),
        ("https://h#\u2028/p", "https://h/"),
        # RFC 3987 section 3.1: UTF-8, percent-encoded, and nothing composed, folded or trimmed.
        ("https://h/ü", "https://h/%C3%BC"),
        ("https://h/u\u0308", "https://h/u%CC%88"),
        ("https://h/ſ\u212a", "https://h/%C5%BF%E2%84%AA"),
        ("https://h/日本/%e6%97%a5?日", "https://h/%E6%97%A5%E6%9C%AC/%E6%97%A5"),
        ("https://h/😀;é=%C3%A9", "https://h/%F0%9F%98%80;%C3%A9=%C3%A9"),
        ("https://h/p\xa0", "https://h/p%C2%A0"),
        ("https://h/p\u3000", "https://h/p%E3%80%80"),
        ("https://h/é/../ö/./%2e%2e/ä", "https://h/%C3%A4"),
        ("https://h/a\uff0e\uff0e/b", "https://h/a%EF%BC%8E%EF%BC%8E/b"),
        ("https://h/\u2024\u2024/b", "https://h/%E2%80%A4%E2%80%A4/b"),
        ("https://h/a\uff0fb", "https://h/a%EF%BC%8Fb"),
        ("https://h/a\uff1fb", "https://h/a%EF%BC%9Fb"),
        ("HTTPS://H:443/É", "https://h/%C3%89"),
        ("https://h/\ufffd\U0010fffd", "https://h/%EF%BF%BD%F4%8F%BF%BD"),
    ],
)
def test_normalize_returns_the_normal_form(uri: str, normal: str) -> None:
    assert normalize(uri) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "not absolute"),
        ("v1/things", "not absolute"),
        ("/v1/things", "not absolute"),
        ("//h/p", "not absolute"),
        ("https:/h/p", "not absolute"),
        ("https:h/p", "not absolute"),
        ("h2+x://h/p", "not absolute"),
        ("ftp://h/p", "neither http nor https"),
        ("ws://h/p", "neither http nor https"),
        ("httpſ://h/p", "not absolute"),
        ("https:///p", "not a host"),
        ("https://:443/p", "not a host"),
        ("https://u@h/p", "user information"),
        ("https://@h/p", "user information"),
        ("https://u:p@h/p", "user information"),
        ("https://h@evil/p", "user information"),
        ("https://h:99999/p", "out of range"),
        ("https://h:65536/p", "out of range"),
        ("https://h:000443/p", "not a host"),
        ("https://h:+443/p", "not a host"),
        ("https://h:-1/p", "not a host"),
        ("https://h:4_4/p", "not a host"),
        ("https://h:443.evil.example/p", "not a host"),
        ("https://h:443:443/p", "not a host"),
        ("https://h,x/p", "not a host"),
        ("https://h%2e/p", "not a host"),
        ("https://h\\x/p", "not a host"),
        ("https://[::1/p", "not a host"),
        ("https://::1/p", "not a host"),
        ("https://[::1]x/p", "not a host"),
        ("https://[fe80::1%25eth0]/p", "not a host"),
        ("https://[v1.x]/p", "not a host"),
        ("https://[]/p", "not a host"),
        ("https://[::1::]/p", "not an IPv6 address"),
        ("https://[1.2.3.4]/p", "not an IPv6 address"),
        ("https://[12345::]/p", "not an IPv6 address"),
        ("https://h/%", "malformed"),
        ("https://h/%4", "malformed"),
        ("https://h/%4g", "malformed"),
        ("https://h/%%41", "malformed"),
        ("https://h/a\\b", "backslash"),
        ("https://h/a b", "visible ASCII"),
        ("https://h/p ", "visible ASCII"),
        (" https://h/p", "visible ASCII"),
        ("https://h/p\n", "visible ASCII"),
        ("https://h/a\tb", "visible ASCII"),
        ("https://h/\x7f", "visible ASCII"),
        ("https://h/\x00", "visible ASCII"),
        ("https://h/\x85", "visible ASCII"),
        ("https://h/\x9f", "visible ASCII"),
        ("https://h/\ud800", "visible ASCII"),
        ("https://\u212a/p", "not a host"),
        ("https://é.example/p", "not a host"),
        ("https://h\u3002example/p", "not a host"),
        ("https://h\uff0fp", "not a host"),
        ("https://h:\u0664\u0664\u0663/p", "not a host"),
        ("https\uff1a//h/p", "not absolute"),
        ("https://h/%\uff14\uff11", "malformed"),
        ("https://h/é/%4", "malformed"),
        ("https://h/é\\b", "backslash"),
        ("\ufeffhttps://h/p", "not absolute"),
        ("?https://h/p", "not absolute"),
        ("https?://h/p", "not absolute"),
        ("https:/?/h/p", "not absolute"),
    ],
)
def test_what_is_no_http_uri_has_no_normal_form(uri: str, reason: str) -> None:
    with pytest.raises(URIError, match=reason):
        normalize(uri)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        (
            "https://API.example.com:443",
            BaseURL(
                origin="https://api.example.com",
                authority="api.example.com",
                host="api.example.com",
                scheme="https",
                path="",
            ),
        ),
        (
            "http://[0:0::1]:8443/a%7e/",
            BaseURL(
                origin="http://[::1]:8443", authority="[::1]:8443", host="::1", scheme="http", path="/a~"
            ),
        ),
        (
            "https://h:8443/a/../b/c",
            BaseURL(origin="https://h:8443", authority="h:8443", host="h", scheme="https", path="/b/c"),
        ),
    ],
)
def test_a_base_url_is_parsed(url: str, base: BaseURL) -> None:
    assert parse_base_url(url) == base


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://h?", "no query"),
        ("https://h/#", "no query and no fragment"),
        ("https://h/p?q=1", "no query"),
        ("https://h/a//b", "empty segment"),
        ("https://h//", "empty segment"),
        ("https://u@h", "user information"),
        ("ftp://h", "neither http nor https"),
        ("h", "not absolute"),
        ("https://h/%", "malformed"),
        ("https://h/é", "percent-encode"),
        ("https://é.example", "percent-encode|ASCII"),
    ],
)
def test_what_is_no_base_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(URIError, match=reason):
        parse_base_url(url)


@pytest.mark.parametrize(
    ("value", "scheme", "normal"),
    [
        ("API.example.com", "https", "api.example.com"),
        ("h:443", "https", "h"),
        ("h:80", "https", "h:80"),
        ("h:80", "http", "h"),
        ("h:", "http", "h"),
        ("h:8443", "https", "h:8443"),
        ("[::0001]:443", "https", "[::1]"),
        ("[::1]:8443", "https", "[::1]:8443"),
    ],
)
def test_an_authority_has_one_normal_form(value: str, scheme: str, normal: str) -> None:
    assert authority(value, scheme=scheme) == normal


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":443",
        "h/",
        "h/v1/things?",
        "h?",
        "h#",
        "u@h",
        "h h",
        " h",
        "h ",
        "h\n",
        "h,h",
        "h:443:443",
        "h:70000",
        "[::1",
        "::1",
        "[fe80::1%eth0]",
        "https://h",
        "hé",
        "\u212a",
        "h\\",
    ],
)
def test_what_is_no_host_with_an_optional_port_is_refused(value: str) -> None:
    with pytest.raises(URIError):
        authority(value, scheme="https")


def test_an_authority_has_the_scheme_http_or_https() -> None:
    with pytest.raises(URIError, match="neither http nor https"):
        authority("h", scheme="ws")


# The cases of U that don't turn on a Host or forwarding header.
HTU_CASES = [case for case in VECTORS["cases"] if case["group"] == "U" and case["id"] < "U049"]


@pytest.mark.parametrize("case", HTU_CASES, ids=[case["id"] for case in HTU_CASES])
def test_normalize_agrees_with_the_vectors_of_htu(case: dict[str, Any]) -> None:
    url: str = case["request"]["url"]
    [proof] = [value for name, value in case["request"]["headers"] if name == "dpop"]
    htu = json.loads(base64url.decode(proof.split(".")[1]))["htu"]
    scheme, _, rest = url.partition("://")
    host, slash, raw_path = rest.partition("/")
    target = target_uri(parse_base_url(f"{scheme}://{host}"), slash + raw_path, "")
    try:
        same = normalize(htu) == target
    except URIError:
        same = False
    assert same is (case["expect"]["outcome"] == "accept")


# Properties

OCTETS = st.text(st.characters(max_codepoint=255), max_size=40)
PIECES = st.sampled_from(
    ["/", "/", ".", "..", "%2e", "%2F", "%41", "%c3%A9", "%", "%2", "a", "B", "~", "é", " ", "\\", "?", "#"]
    + ["[", ":", "@", "//", "%25", "\x00", ";", "svc"]
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces)), OCTETS.map(lambda t: "/" + t)
)
HOSTS = st.sampled_from(["h", "A.b", "h.", "[::1]", "[2001:DB8::]", "127.0.0.1", "x_y-z", "", "u@h", "[::g]"])
PORTS = st.sampled_from(["", ":", ":80", ":443", ":0443", ":8443", ":65536", ":+1", ":1:2"])
SCHEMES = st.sampled_from(["https", "HTTP", "hTTps", "ws", ""])
URIS = st.one_of(
    st.builds("{}://{}{}{}".format, SCHEMES, HOSTS, PORTS, PATHS),
    st.text(max_size=40),
    st.text(max_size=40).map(lambda text: "https://h" + text),
)
SEGMENTS = st.text("abzAZ09-._~!$&'()*+,;=:@", min_size=1, max_size=6).filter(lambda s: s not in (".", ".."))
NORMAL_PATHS = st.lists(SEGMENTS | st.just(""), min_size=1, max_size=5).map(lambda s: "/" + "/".join(s))


@given(URIS)
@few
def test_normalize_is_idempotent_and_raises_nothing_else(uri: str) -> None:
    try:
        normal = normalize(uri)
    except URIError:
        return
    assert normalize(normal) == normal
    assert not set(normal) & set("?#\\ ")
    assert normal.startswith(("http://", "https://"))


@given(PATHS | st.text(max_size=40))
@few
def test_a_request_path_is_a_fixed_point_of_normalize(raw_path: str) -> None:
    try:
        check_request_path(raw_path)
        path = request_path(raw_path)
    except URIError:
        return
    assert request_path(path) == path
    for base in (BASE, PREFIXED, parse_base_url("http://[::1]:8080/a/b")):
        for root_path in ("", "/svc", raw_path):
            uri = target_uri(base, raw_path, root_path)
            assert normalize(uri) == uri
            assert uri.startswith(base.origin + base.path)


@given(PATHS, st.text(max_size=10))
@few
def test_request_path_and_normalize_agree(raw_path: str, query: str) -> None:
    try:
        check_request_path(raw_path)
        path = request_path(raw_path)
        # Characters of a client's URL are sent as their UTF-8.
        written = raw_path.encode("latin-1").decode("utf-8")
        normal = normalize(f"https://h{written.replace('#', '%23')}")
    except (URIError, UnicodeDecodeError):
        return
    assert normal == "https://h" + path
    assert request_path(f"{raw_path.partition('?')[0]}?{query}") == path


@given(st.text(max_size=40))
@few
def test_authority_is_idempotent_and_raises_nothing_else(value: str) -> None:
    try:
        normal = authority(value, scheme="https")
    except URIError:
        return
    assert authority(normal, scheme="https") == normal


@given(NORMAL_PATHS, st.data())
@few
def test_equivalent_spellings_are_equal(path: str, data: st.DataObject) -> None:
    unreserved = "abzAZ09-._~"

    def spell(character: str) -> str:
        how = data.draw(st.integers(0, 2)) if character in unreserved else 0
        return (character, f"%{ord(character):02X}", f"%{ord(character):02x}")[how]

    spelled = "".join(spell(character) for character in path)
    noise = data.draw(st.sampled_from(["", "/.", "/x/..", "/%2E", "/x/y/../%2e%2e"]))
    scheme = data.draw(st.sampled_from(["https://", "HTTPS://"]))
    host = data.draw(st.sampled_from(["api.example.com", "API.example.COM:443", "api.example.com:"]))
    tail = data.draw(st.sampled_from(["", "?a=b", "#f", "?a#/../b"]))
    assert normalize(scheme + host + noise + spelled + tail) == "https://api.example.com" + path
    assert request_path(spelled) == path


@given(st.text(st.characters(min_codepoint=0xA0, exclude_categories=["Cs"]), min_size=1, max_size=8))
@few
def test_a_raw_path_is_its_utf8_percent_encoded(text: str) -> None:
    encoded = "".join(f"%{octet:02X}" for octet in text.encode())
    assert normalize(f"https://h/a{text}?{text}#{text}") == f"https://h/a{encoded}"
    assert request_path("/a" + text.encode().decode("latin-1")) == f"/a{encoded}"


@given(NORMAL_PATHS, NORMAL_PATHS)
@few
def test_different_paths_stay_different(one: str, other: str) -> None:
    assert (normalize("https://h" + one) == normalize("https://h" + other)) is (one == other)


@given(st.text(max_size=12), PATHS)
@few
def test_strip_root_path_removes_what_stands_before(root_path: str, raw_path: str) -> None:
    try:
        check_request_path(raw_path)
        path = request_path(raw_path)
    except URIError:
        return
    rest = strip_root_path(path, root_path)
    assert path.endswith(rest)
    assert rest[:1] in ("", "/")


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


def test_plain_and_normal_paths_are_recognised_quickly() -> None:
    assert normalize("https://h/.a/b..") == "https://h/.a/b.."
    assert normalize("https://h/a/../b") == "https://h/b"
    assert normalize("https://h/\u20ac") == "https://h/%E2%82%AC"
    assert not NOT_IN_A_PATH.search("/a%2F")
    assert all(map(NOT_IN_A_PATH.search, ("/ü", "/a b", "/a?b", "/a\\b", "/\u20ac", "/\ud800")))


def test_every_octet_is_told_apart_by_what_a_path_may_contain() -> None:
    # RFC 3986 section 3.3: unreserved, sub-delims, ":" and "@" are the characters of a segment.
    kept = set(string.ascii_letters + string.digits + "-._~" + "!$&'()*+,;=" + ":@" + "/")
    characters = [chr(octet) for octet in range(256)]
    assert set(KEPT.decode()) == kept
    assert {one for one in characters if not NOT_IN_A_PATH.search(f"/a{one}")} == kept | {"%"}
    assert {one for one in characters if one != "%" and encoded(f"/a{one}") == f"/a{one}"} == kept
