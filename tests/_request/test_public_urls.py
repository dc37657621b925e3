"""The target URI comes from our configuration and the raw path."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._request.public_urls import (
    PublicURLs,
    check_request_path,
    request_path,
    strip_root_path,
    target_uri,
)
from dpop_middleware._request.uri import BaseURL, URIError, encoded, has_dot_segment, parse_base_url
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, InvalidDPoPProof, InvalidRequest
from tests.support.api import request

BASE = parse_base_url("https://api.example.com")
PREFIXED = parse_base_url("https://api.example.com/svc")


def urls(*listed: str, hosts: tuple[str, ...] = ()) -> PublicURLs:
    return PublicURLs(listed, insecure_http_hosts=hosts)


@pytest.mark.parametrize(
    ("public_url", "raw_path", "root_path", "target"),
    [
        ("https://api.example.test", "/notes", "", "https://api.example.test/notes"),
        ("https://api.example.test/", "/notes", "", "https://api.example.test/notes"),
        ("HTTPS://API.example.test:443", "/n%6ftes%2fa", "", "https://api.example.test/notes%2Fa"),
        ("https://api.example.test", "/svc/notes", "/svc", "https://api.example.test/svc/notes"),
        ("https://api.example.test/v1", "/notes", "", "https://api.example.test/v1/notes"),
        ("https://api.example.test/v1", "/svc/notes", "/svc", "https://api.example.test/v1/notes"),
        ("https://api.example.test/v1", "/svcs/notes", "/svc", "https://api.example.test/v1/svcs/notes"),
        ("https://api.example.test/v1", "/svc", "/svc", "https://api.example.test/v1"),
        (
            "https://api.example.test",
            "//evil.example.test/notes",
            "",
            "https://api.example.test//evil.example.test/notes",
        ),
        ("http://localhost:8000", "/", "", "http://localhost:8000/"),
        ("https://[2001:DB8:0::1]:8443", "/", "", "https://[2001:db8::1]:8443/"),
    ],
)
def test_the_target_uri_comes_from_the_configuration(
    public_url: str, raw_path: str, root_path: str, target: str
) -> None:
    asked = request(raw_path=raw_path, root_path=root_path, hosts=("evil.example.test",))
    assert urls(public_url).target_uri(asked) == target
    assert PublicURLs(public_url, insecure_http_hosts=()).target_uri(asked) == target


SEVERAL = ("https://a.example.test", "https://b.example.test:8443/v1", "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("a.example.test", "https://a.example.test/notes"),
        ("A.EXAMPLE.TEST:443", "https://a.example.test/notes"),
        ("b.example.test:8443", "https://b.example.test:8443/v1/notes"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/notes"),
    ],
)
def test_host_selects_one_of_several(host: str, target: str) -> None:
    assert urls(*SEVERAL).target_uri(request(hosts=(host,))) == target


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("a.example.test", "a.example.test"),
        ("c.example.test",),
        ("a.example.test:80",),
        ("a.example.test.",),
        ("b.example.test",),
        ("a.example.test/notes?",),
        ("x@a.example.test",),
        ("a.example.test b.example.test",),
        ("a.example.test,a.example.test",),
        ("a.example.test\xa0",),
        ("a.example.test:99999",),
        ("[::1",),
    ],
)
def test_any_other_host_selects_none(hosts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDPoPProof) as caught:
        urls(*SEVERAL).target_uri(request(hosts=hosts))
    assert caught.value.check is Check.HTU
    assert caught.value.expected == ("a.example.test", "b.example.test:8443", "127.0.0.1:8000")
    assert caught.value.actual == hosts


def test_a_path_of_which_too_much_would_be_rewritten_is_compared_as_it_was_sent_alone() -> None:
    path = "/" + "%41" * 1000
    asked = request(raw_path=path)
    assert urls("https://api.example.test").is_target(f"https://api.example.test{path}", asked)
    with pytest.raises(InvalidDPoPProof) as caught:
        urls("https://api.example.test").target_uri(asked)
    assert caught.value.description == (
        "the htu of the DPoP proof is not the URI of the request, character by character"
    )
    assert caught.value.check is Check.HTU
    assert "too many characters" in str(caught.value.actual)


@pytest.mark.parametrize(
    "raw_path", ["/", "/notes", "/.notes", "/a%2Fb", "//a", "/a..b", "/ä", "/a\\b", "/..."]
)
def test_an_unambiguous_path_is_accepted(raw_path: str) -> None:
    asked = request(raw_path=raw_path)
    assert urls("https://api.example.test").origin_form(asked) is asked


@pytest.mark.parametrize(
    "raw_path",
    [
        "",
        "*",
        "notes",
        "http://api.example.test/notes",
        "https://evil.example.test/notes",
        "https://api.example.test:8443/notes",
        "https://api.example.test./notes",
        "https://api.example.test@evil.example.test/notes",
        "https://evil.example.test@api.example.test/notes",
        "https://@api.example.test/notes",
        "https://api.example.test\\@evil.example.test/notes",
        "https://api.example.test#/notes",
        "https://api.example.test%2fnotes",
        "https://api.example.test:99999/notes",
        "https://api.example.test\n/notes",
        "https://api.example.test/notes/../admin",
        "https://api.example.test/%2e%2e",
        "https:///notes",
        "https:/notes",
        "https:notes",
        "https//api.example.test/notes",
        "http\u017f://api.example.test/notes",
        "wss://api.example.test/notes",
        "api.example.test:443",
        " https://api.example.test/notes",
        "/.",
        "/..",
        "/a/../b",
        "/a/./b",
        "/%2e/a",
        "/a/%2E%2e",
        "/.%2e/",
        "/%zz",
        "/%",
        "?a",
    ],
)
def test_an_ambiguous_path_is_refused(raw_path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        urls("https://api.example.test").origin_form(request(raw_path=raw_path))
    assert caught.value.check is Check.TARGET
    assert str(caught.value) in (
        "the path of the request is malformed, over 4 KiB, or has dot segments",
        "the request target names another origin than this resource server's",
    )
    assert caught.value.actual is not None


@pytest.mark.parametrize(
    ("public_url", "words"),
    [
        ((), "public_url takes at least one URL"),
        (
            ("https://a.example.test/v1", "https://A.example.test:443/%761/"),
            "names https://a.example.test/v1 twice",
        ),
        (("https://localhost", "http://localhost/v1"), "names localhost with http and with https"),
        ("http://a.example.test", "takes an https URL"),
        ("https://a.example.test/?q", "without user, query and fragment"),
        ("https://user@a.example.test", "without user, query and fragment"),
        ("a.example.test", "takes an https URL"),
        ("", "takes an https URL"),
        ((1,), "takes an https URL"),
        (5, "public_url takes a URL or a sequence of URLs, not 5"),
        (b"https://a.example.test", "public_url takes a URL or a sequence of URLs, not b'"),
        (None, "public_url takes a URL or a sequence of URLs, not None"),
    ],
)
def test_a_wrong_public_url_is_refused_at_construction(public_url: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        PublicURLs(public_url, insecure_http_hosts=())


def test_http_is_for_named_hosts_only() -> None:
    base = urls("http://a.example.test", hosts=("a.example.test",))
    assert base.target_uri(request()) == "http://a.example.test/notes"


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("https://api.example.test/notes", "/notes", "api.example.test"),
        ("HTTPS://API.Example.TEST:443/Notes", "/Notes", "api.example.test"),
        ("https://api.example.test:/notes", "/notes", "api.example.test"),
        ("https://api.example.test", "/", "api.example.test"),
        ("https://api.example.test?x=1", "/?x=1", "api.example.test"),
        ("https://api.example.test//evil.test/", "//evil.test/", "api.example.test"),
        ("https://b.example.test:8443/v1", "/v1", "b.example.test:8443"),
    ],
)
def test_absolute_form_is_judged_as_its_origin_form_and_its_authority_stands(
    target: str, path: str, host: str
) -> None:
    """RFC 9112 section 3.2.2: Host is ignored then."""
    ours = urls("https://api.example.test", "https://b.example.test:8443")
    for hosts in ((), ("api.example.test",), ("b.example.test:8443",), ("evil.test", "x")):
        seen = ours.origin_form(request(raw_path=target, hosts=hosts))
        assert (seen.raw_path, seen.hosts) == (path, (host,))


VERSIONS = ("https://h.test/v1", "https://h.test/v2", "https://h.test/v1/beta")


@pytest.mark.parametrize(
    ("raw_path", "root_path", "public"),
    [
        # The application receives the whole path.
        ("/v1/notes", "", "/v1/notes"),
        ("/v2/notes", "", "/v2/notes"),
        ("/v1/beta/notes", "", "/v1/beta/notes"),
        ("/v1", "", "/v1"),
        ("/%761/notes", "", "/v1/notes"),
        ("/v1/v2/notes", "", "/v1/v2/notes"),
        # A proxy strips the prefix, and the server has it as its root path: uvicorn puts it back, others
        # don't.
        ("/v1/notes", "/v1", "/v1/notes"),
        ("/notes", "/v1", "/v1/notes"),
        ("/notes", "/v2/", "/v2/notes"),
        ("/v2/notes", "/v1", "/v1/v2/notes"),
        ("/notes", "/v1/beta", "/v1/beta/notes"),
        ("/notes", "/v1/inner", "/v1/inner/notes"),
        ("/v1", "/v1", "/v1"),
        # The server's own root path has nothing to do with the prefixes.
        ("/svc/v1/notes", "/svc", "/v1/notes"),
        ("/v1/notes", "/svc", "/v1/notes"),
    ],
)
def test_of_several_prefixes_of_one_host_the_path_or_the_root_path_chooses(
    raw_path: str, root_path: str, public: str
) -> None:
    asked = request(raw_path=raw_path, root_path=root_path, hosts=("evil.test",))
    assert urls(*VERSIONS).target_uri(asked) == f"https://h.test{public}"
    assert urls(*reversed(VERSIONS)).target_uri(asked) == f"https://h.test{public}"


@pytest.mark.parametrize(
    ("raw_path", "root_path"),
    [
        ("/notes", ""),
        ("/v10/notes", ""),
        ("/V1/notes", ""),
        ("/", ""),
        ("/notes", "/svc"),
        ("/v1%2Fnotes", ""),
    ],
)
def test_a_path_that_begins_with_no_prefix_is_refused(raw_path: str, root_path: str) -> None:
    with pytest.raises(InvalidDPoPProof, match="begins with no prefix") as caught:
        urls(*VERSIONS).target_uri(request(raw_path=raw_path, root_path=root_path))
    assert caught.value.check is Check.HTU
    assert caught.value.expected == VERSIONS
    assert "a proxy strips the prefix, and the server has no root path" in str(hint_of(caught.value))


@pytest.mark.parametrize(
    ("raw_path", "root_path", "public"),
    [("/notes", "", "/notes"), ("/v1/notes", "", "/v1/notes"), ("/notes", "/svc", "/notes"),
     ("/svc/notes", "/svc", "/svc/notes"), ("/notes", "/v1", "/v1/notes")],
)  # fmt: skip
def test_a_prefix_may_be_listed_beside_the_whole_host(raw_path: str, root_path: str, public: str) -> None:
    ours = urls("https://h.test", "https://h.test/v1")
    assert ours.target_uri(request(raw_path=raw_path, root_path=root_path)) == f"https://h.test{public}"


@pytest.mark.parametrize(
    ("host", "raw_path", "root_path", "target"),
    [
        ("h.test", "/v1/notes", "", "https://h.test/v1/notes"),
        ("h.test", "/notes", "/v2", "https://h.test/v2/notes"),
        ("i.test", "/v1/notes", "", "https://i.test/v1/notes"),
        ("j.test", "/notes", "", "https://j.test/only/notes"),
    ],
)
def test_hosts_and_their_prefixes_select_the_url(
    host: str, raw_path: str, root_path: str, target: str
) -> None:
    ours = urls("https://h.test/v1", "https://i.test", "https://h.test/v2", "https://j.test/only")
    assert ours.target_uri(request(hosts=(host,), raw_path=raw_path, root_path=root_path)) == target


@pytest.mark.parametrize(
    ("raw_path", "normal"),
    [
        ("/", "/"),
        ("/v1/things", "/v1/things"),
        ("//x/p", "//x/p"),
        ("/a//b/", "/a//b/"),
        ("/.well-known/...", "/.well-known/..."),
        ("/p?q=1", "/p"),
        ("/p?", "/p"),
        ("/p?..//../%", "/p"),
        ("/?", "/"),
        ("/p#f", "/p%23f"),
        ("/a%2fb/%7e%41", "/a%2Fb/~A"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
        ("/a b\t\x00\x7f\xff", "/a%20b%09%00%7F%FF"),
        ("/..\\x", "/..%5Cx"),
        ('/"<>^`{|}[]', "/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/http://evil.example/", "/http://evil.example/"),
    ],
)
def test_a_request_path_has_one_normal_form(raw_path: str, normal: str) -> None:
    for path in (raw_path, normal):
        check_request_path(path)
        assert request_path(path) == normal


@pytest.mark.parametrize(
    ("raw_path", "reason"),
    [
        ("", "start with a slash"),
        ("*", "start with a slash"),
        ("v1", "start with a slash"),
        ("?/", "start with a slash"),
        ("\\x", "start with a slash"),
        ("http://api.example.com/v1", "start with a slash"),
        ("api.example.com:443", "start with a slash"),
        ("/.", "dot segment"),
        ("/..", "dot segment"),
        ("/./", "dot segment"),
        ("/a/../b", "dot segment"),
        ("/a/..?q", "dot segment"),
        ("/%2e", "dot segment"),
        ("/a/%2E%2e/b", "dot segment"),
        ("/a/.%2e", "dot segment"),
        ("/a/%2e./", "dot segment"),
        ("//..//", "dot segment"),
        ("/%", "malformed"),
        ("/%4", "malformed"),
        ("/%zz", "malformed"),
        ("/%2?e", "malformed"),
        ("/%%", "malformed"),
        ("/" + "a" * 4096, "too long"),
        ("/" + '"' * 60_000, "too long"),
        ("/\u0100", "octets"),
        ("/\ud800", "octets"),
    ],
)
def test_a_long_malformed_or_ambiguous_path_is_refused(raw_path: str, reason: str) -> None:
    with pytest.raises(URIError, match=reason):
        check_request_path(raw_path)


@pytest.mark.parametrize(
    ("path", "root_path", "rest"),
    [
        ("/svc/x", "/svc", "/x"),
        ("/svc/x", "/svc/", "/x"),
        ("/svc/svc", "/svc", "/svc"),
        ("/svc/", "/svc", "/"),
        ("/svc", "/svc", ""),
        ("/svcs/x", "/svc", "/svcs/x"),
        ("/x/svc", "/svc", "/x/svc"),
        ("/x", "", "/x"),
        ("/x", "/", "/x"),
        ("//x", "/", "//x"),
        ("/svc/x", "svc", "/svc/x"),
        ("/Svc/x", "/svc", "/Svc/x"),
        ("/caf%C3%A9/x", "/café", "/x"),
        ("/a%20b/x", "/a b", "/x"),
        ("/50%25/x", "/50%", "/x"),
        ("/A/x", "/%41", "/A/x"),
        ("/%2541/x", "/%41", "/x"),
        ("/a%3Fb/x", "/a?b", "/x"),
        ("/a%2Fb/x", "/a/b", "/a%2Fb/x"),
        ("/x", "/\ud800", "/x"),
    ],
)
def test_a_root_path_is_stripped_at_a_segment_boundary(path: str, root_path: str, rest: str) -> None:
    assert strip_root_path(path, root_path) == rest


@pytest.mark.parametrize(
    ("base", "raw_path", "root_path", "uri"),
    [
        (BASE, "/v1/things", "", "https://api.example.com/v1/things"),
        (BASE, "/svc/x?q", "/svc", "https://api.example.com/svc/x"),
        (BASE, "//evil.example/p", "", "https://api.example.com//evil.example/p"),
        (PREFIXED, "/x", "", "https://api.example.com/svc/x"),
        (PREFIXED, "/svc/x", "/svc", "https://api.example.com/svc/x"),
        (PREFIXED, "/inner/x", "/inner", "https://api.example.com/svc/x"),
        (PREFIXED, "/inner", "/inner", "https://api.example.com/svc"),
        (PREFIXED, "/inner/", "/inner", "https://api.example.com/svc/"),
        (PREFIXED, "/svc/x", "", "https://api.example.com/svc/svc/x"),
        (PREFIXED, "//evil.example/p", "", "https://api.example.com/svc//evil.example/p"),
    ],
)
def test_a_target_uri_begins_with_the_base_url(
    base: BaseURL, raw_path: str, root_path: str, uri: str
) -> None:
    assert target_uri(base, raw_path, root_path) == uri


@pytest.mark.parametrize(
    "raw_path", ["/svc/../x", "/svc/%2E%2e", "/svc/%00/../x", "/\0/.", "/svc/%00/%2e%2E/x"]
)
def test_a_request_has_no_dot_segments_behind_a_prefix(raw_path: str) -> None:
    with pytest.raises(InvalidRequest, match="dot segment"):
        urls("https://api.example.com/svc").origin_form(request(raw_path=raw_path, root_path="/svc"))


@pytest.mark.parametrize("raw_path", ["/svc/%00.", "/svc/.%00/x", "/svc/\0..\0/x"])
def test_a_null_octet_is_no_slash(raw_path: str) -> None:
    assert (
        target_uri(PREFIXED, raw_path, "/svc").count("/")
        == PREFIXED.path.count("/") + raw_path.count("/") + 1
    )


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
