"""One bounded GET, against servers that misbehave over real sockets."""

import errno
import gzip
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from dpop_middleware._request.secure_url import Endpoint, checked_endpoint
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.connections import Deadline, FetchError
from dpop_middleware.tokens.fetch import Fetcher, FetchHeaders, checked_headers
from tests.support.issuer_server import Asked, IssuerServer, Script, answer, drip, json_answer
from tests.support.ports import free_port
from tests.support.running import running

LIMIT = 4096
ISSUER = (True, "auth.example.com", 443)
USUAL = {
    "Accept": "application/json, application/jwk-set+json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "dpop_middleware",
}


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def endpoint(url: str) -> Endpoint:
    return checked_endpoint("jwks", url, insecure_http_hosts=())


def get(url: str, *, seconds: float = 5, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    return Fetcher(ssl_context=context).get(endpoint(url), deadline=Deadline(seconds), limit=LIMIT)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_document_is_fetched(server: IssuerServer) -> None:
    server.handlers["/jwks/"] = lambda _: json_answer({"keys": []})
    assert get(f"{server.origin}/jwks/?p=a%20b&q") == {"keys": []}
    (asked,) = server.asked
    assert asked == Asked(
        "/jwks/?p=a%20b&q",
        {
            "host": f"127.0.0.1:{server.port}",
            "accept": "application/json, application/jwk-set+json",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": "dpop_middleware",
        },
    )


@pytest.mark.parametrize("media_type", ["application/json", "application/jwk-set+json"])
def test_a_server_that_has_one_media_type_only_is_asked_for_that(
    server: IssuerServer, media_type: str
) -> None:
    def negotiated(asked: Asked) -> Script:
        accepted = [one.strip() for one in asked.headers["accept"].split(",")]
        return json_answer({"keys": []}) if media_type in accepted else answer(b"", status=406)

    server.handlers["/jwks"] = negotiated
    assert get(f"{server.origin}/jwks") == {"keys": []}


def test_a_byte_order_mark_is_ignored_rfc_8259_8_1(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: answer(b'\xef\xbb\xbf{"keys": []}')
    assert get(f"{server.origin}/jwks") == {"keys": []}


def test_a_chunked_answer_is_read(server: IssuerServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.handlers["/jwks"] = lambda _: [head + b'6\r\n{"keys\r\n', b'5\r\n":[]}\r\n0\r\n\r\n']
    assert get(f"{server.origin}/jwks") == {"keys": []}


def test_an_answer_that_ends_with_the_connection_is_read(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: [b'HTTP/1.0 200 OK\r\n\r\n{"keys":[]}']
    assert get(f"{server.origin}/jwks") == {"keys": []}


def test_proxies_from_the_environment_are_not_used(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    assert get(f"{server.origin}/jwks") == {"keys": []}


def test_an_ipv6_literal_is_reached() -> None:
    try:
        server = IssuerServer(host="::1").__enter__()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    try:
        server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
        assert get(f"{server.origin}/jwks") == {"keys": []}
        assert server.asked[0].headers["host"] == f"[::1]:{server.port}"
    finally:
        server.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (answer(b"{}", status=404), "the status is 404, not 200"),
        (answer(b"{}", status=500), "the status is 500"),
        (answer(b"{}", status=203), "the status is 203"),
        (answer(b"", status=204), "the status is 204"),
        (answer(b"{}", headers={"Content-Encoding": "br"}), "content coding other than gzip: 'br'"),
        (answer(b"{}", headers={"Content-Encoding": "gzip, gzip"}), "content coding other than gzip"),
        (answer(gzip.compress(b"{}")), "not a JSON object"),
        (answer(b"<html>"), "not a JSON object: the text is not JSON in UTF-8"),
        (answer(b"[]"), "not a JSON object"),
        (answer(b""), "not a JSON object"),
        (answer(b'{"keys": [], "keys": []}'), "not a JSON object: .* the same member name twice"),
        (answer(b'\xef\xbb\xbf\xef\xbb\xbf{"keys": []}'), "not a JSON object"),
        (answer('{"keys": []}'.encode("utf-16")), "not a JSON object"),
        (answer(b"[" * 4000), "not a JSON object"),
        (answer(b'{"a":' * 40 + b"{}" + b"}" * 40), "not a JSON object: .* nested too deep"),
        (answer(b'{"keys": []}', length=100), "ended too early|IncompleteRead"),
        (answer(b"x" * (LIMIT + 1)), "larger than the limit"),
        (answer(b"x", length=10**12), "ended too early|IncompleteRead"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"], "IncompleteRead"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"], "IncompleteRead"),
        ([b"SSH-2.0-OpenSSH\r\n"], "BadStatusLine"),
        ([b""], "RemoteDisconnected"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n{}"], "HTTPException"),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 66_000], "LineTooLong"),
    ],
)
def test_other_answers_are_refused(server: IssuerServer, script: Script, reason: str) -> None:
    server.handlers["/jwks"] = lambda _: script
    with pytest.raises(FetchError, match=reason) as caught:
        get(f"{server.origin}/jwks")
    assert str(caught.value).startswith(f"{server.origin}/jwks: ")


def test_a_url_may_have_empty_segments_and_the_target_keeps_them(server: IssuerServer) -> None:
    server.handlers["//realms//keys/"] = lambda _: json_answer({"keys": []})
    assert get(f"{server.origin}//realms//keys/?a=b//c") == {"keys": []}
    assert server.targets == ["//realms//keys/?a=b//c"]
    assert endpoint("https://as.example.com///keys").origin == (True, "as.example.com", 443)
    for url in ("https:////as.example.com/keys", "https:///as.example.com/keys", "https://", "//as/keys"):
        with pytest.raises(ConfigurationError):
            endpoint(url)


def answering(script: Script) -> Callable[[Asked], Script]:
    return lambda _: script


def test_responses_before_the_final_one_are_passed_over(server: IssuerServer) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    for final in (json_answer({"keys": []}), [b"HTTP/1.1 200 OK\r\n\r\n", b'{"keys": []}']):
        whole = b"".join(part for part in final if isinstance(part, bytes))
        for script in ([interim, whole], [interim + whole], drip(interim + whole, pause=0)):
            server.handlers["/jwks"] = answering(script)
            assert get(f"{server.origin}/jwks") == {"keys": []}


def test_responses_that_only_announce_others_are_bounded(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000]
    with pytest.raises(FetchError, match="larger than the limit"):
        get(f"{server.origin}/jwks")
    server.handlers["/jwks"] = lambda _: [b"HTTP/1.1 101 Switching Protocols\r\n\r\n{}"]
    with pytest.raises(FetchError, match="the status is 101"):
        get(f"{server.origin}/jwks")


def test_text_of_an_answer_is_escaped_in_the_log(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: [b"HTTP/1.1 \x1b[2J\rthe keys are fine\r\n\r\n"]
    with pytest.raises(FetchError) as caught:
        get(f"{server.origin}/jwks")
    assert str(caught.value).endswith(r"BadStatusLine: HTTP/1.1 \x1b[2J\rthe keys are fine\r\n")


def redirecting(status: int, location: str) -> Script:
    return answer(b"", status=status, headers={"Location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_the_origin_are_followed_twice(server: IssuerServer, status: int) -> None:
    server.handlers["/jwks"] = lambda _: redirecting(status, "/a?b=c")
    server.handlers["/a"] = lambda _: redirecting(status, f"{server.origin}/keys/")
    server.handlers["/keys/"] = lambda _: json_answer({"keys": []})
    assert get(f"{server.origin}/jwks") == {"keys": []}
    assert server.targets == ["/jwks", "/a?b=c", "/keys/"]
    server.handlers["/keys/"] = lambda _: redirecting(status, "/more")
    with pytest.raises(FetchError, match="redirects more than 2 times"):
        get(f"{server.origin}/jwks")
    assert "/more" not in server.targets


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1:{port}/keys",
        "http://localhost:{port}/keys",
        "http://127.0.0.1/keys",
        "//localhost:{port}/keys",
        "http://127.0.0.1:{port}.example.com/keys",
        "http://127.0.0.1:{port}@evil.example/keys",
        "http://evil.example\\@127.0.0.1:{port}/keys",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/keys",
        "/keys#fragment",
        "http://[::1/keys",
        "/a b",
    ],
)
def test_no_other_redirect_is_followed(server: IssuerServer, location: str) -> None:
    server.handlers["/jwks"] = lambda _: redirecting(302, location.format(port=server.port))
    server.handlers["/keys"] = lambda _: json_answer({"keys": []})
    with pytest.raises(FetchError, match="it redirects to (another origin|an unacceptable URL): '") as caught:
        get(f"{server.origin}/jwks")
    assert ascii(location.format(port=server.port)).strip("'").removeprefix("//") in str(caught.value)
    assert server.targets == ["/jwks"]


def test_the_place_of_a_redirect_is_shown_shortened_and_escaped(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: redirecting(302, "https://login.example.com/\t" + "x" * 500)
    with pytest.raises(FetchError) as caught:
        get(f"{server.origin}/jwks")
    message = str(caught.value)
    assert "'https://login.example.com/\\txxx" in message
    assert "x" * 100 not in message


def test_a_redirect_without_a_location_is_refused_by_its_status(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: answer(b"", status=302)
    with pytest.raises(FetchError, match="the status is 302, not 200"):
        get(f"{server.origin}/jwks")


def zipped(body: bytes, *, coding: str = "gzip") -> Script:
    return answer(body, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("coding", ["gzip", "GZip", "x-gzip", " gzip "])
def test_an_answer_may_be_compressed_with_gzip(server: IssuerServer, coding: str) -> None:
    server.handlers["/jwks"] = lambda _: zipped(gzip.compress(b'{"keys": []}'), coding=coding)
    assert get(f"{server.origin}/jwks") == {"keys": []}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (gzip.compress(b" " * (LIMIT + 1)), "larger than the limit"),
        (gzip.compress(b" " * 20_000_000), "larger than the limit"),
        (gzip.compress(b"{}")[:-1], "not valid gzip data"),
        (gzip.compress(b"{}") + b"{}", "not valid gzip data"),
        (gzip.compress(b"{}") + gzip.compress(b"{}"), "not valid gzip data"),
        (b"{}", "not valid gzip data"),
        (b"", "not valid gzip data"),
        (gzip.compress(gzip.compress(b"{}")), "not a JSON object"),
    ],
    ids=["a little too much", "a bomb", "cut", "trailing", "two members", "plain", "empty", "twice"],
)
def test_compressed_answers_are_bounded_and_read_strictly(
    server: IssuerServer, body: bytes, reason: str
) -> None:
    server.handlers["/jwks"] = lambda _: zipped(body)
    with pytest.raises(FetchError, match=reason):
        get(f"{server.origin}/jwks")


def endless(_asked: Asked) -> Script:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"400\r\n" + b" " * 1024 + b"\r\n"


def endless_interim(_asked: Asked) -> Script:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 100


@pytest.mark.parametrize("handler", [endless, endless_interim])
def test_endless_answers_end_at_the_byte_limit(server: IssuerServer, handler: Any) -> None:
    server.handlers["/jwks"] = handler
    # Newer versions of http.client count interim answers themselves.
    with pytest.raises(FetchError, match="larger than the limit|more than 100 interim responses"):
        get(f"{server.origin}/jwks")


WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{"keys": []}'


def assert_ended_after(least: float, begun: tuple[float, float]) -> None:
    """It took as long as it may. Without the deadline it would take ten seconds, or more."""
    assert time.monotonic() - begun[0] > least
    assert running() - begun[1] < 5


@pytest.mark.parametrize(
    "script",
    [
        lambda: [30.0],
        lambda: drip(WHOLE, pause=0.2),
        lambda: [WHOLE[:43], *drip(b" " * 500, pause=0.02)],
        lambda: [WHOLE, 30.0],
    ],
    ids=["silent", "dripping headers", "dripping body", "stalled body"],
)
def test_slow_answers_end_at_the_deadline(server: IssuerServer, script: Any) -> None:
    server.handlers["/jwks"] = lambda _: script()
    begun = time.monotonic(), running()
    with pytest.raises(FetchError, match="time limit|timed out"):
        get(f"{server.origin}/jwks", seconds=0.3)
    assert_ended_after(0.25, begun)


def test_a_deadline_that_has_passed_is_an_error(server: IssuerServer) -> None:
    with pytest.raises(FetchError, match="time limit"):
        get(f"{server.origin}/jwks", seconds=0)
    assert server.asked == []


def test_a_refused_connection_is_an_error() -> None:
    port = free_port()
    with pytest.raises(FetchError, match="ConnectionRefusedError"):
        get(f"http://127.0.0.1:{port}/jwks")


def addresses(*ports: int) -> Any:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in ports
    ]
    return lambda *_, **__: found


def test_the_next_address_is_tried(server: IssuerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = free_port()
    monkeypatch.setattr(socket, "getaddrinfo", addresses(dead, server.port))
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    assert get("http://localhost/jwks") == {"keys": []}
    assert server.asked[0].headers["host"] == "localhost"


def test_each_address_has_its_share_of_the_time(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            shares.append(self.gettimeout() or 0)
            super().connect(address)

    dead = free_port()
    monkeypatch.setattr(socket, "getaddrinfo", addresses(dead, server.port))
    monkeypatch.setattr(socket, "socket", Watched)
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    assert get("http://localhost/jwks", seconds=60) == {"keys": []}
    assert shares == [pytest.approx(30, abs=10), pytest.approx(60, abs=10)]


def test_an_address_of_a_family_that_the_kernel_lacks_is_passed_over(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", server.port, 0, 0))
    four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
    found = [six, four]
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    assert get("http://localhost/jwks") == {"keys": []}
    found.remove(four)
    with pytest.raises(FetchError, match="Address family not supported"):
        get("http://localhost/jwks")


def test_a_name_without_addresses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses())
    with pytest.raises(FetchError, match="the host name has no address"):
        get("http://localhost/jwks")


def test_a_name_that_the_resolver_can_not_encode_is_an_error() -> None:
    with pytest.raises(FetchError, match="UnicodeError|UnicodeEncodeError|gaierror"):
        get(f"https://{'a' * 64}.invalid/jwks")


def test_tls_under_a_private_ca_is_accepted(authority: trustme.CA) -> None:
    with IssuerServer(tls=server_context(authority, "localhost")) as server:
        server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
        url = f"https://localhost:{server.port}/jwks"
        assert get(url, context=trusting(authority)) == {"keys": []}
        assert server.asked[0].headers["host"] == f"localhost:{server.port}"


def test_tls_with_an_unknown_ca_is_refused(authority: trustme.CA) -> None:
    with IssuerServer(tls=server_context(authority, "localhost")) as server:
        with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"https://localhost:{server.port}/jwks")
        assert server.asked == []


def test_tls_with_another_hosts_certificate_is_refused(authority: trustme.CA) -> None:
    with IssuerServer(tls=server_context(authority, "other.example")) as server:
        with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"https://localhost:{server.port}/jwks", context=trusting(authority))
        assert server.asked == []


@pytest.mark.parametrize(
    "before",
    [
        lambda: [30.0],
        # The head of a long TLS record, whose other bytes come slowly.
        lambda: [b"\x16\x03\x03\x3f\xff", *drip(b"\x02\x00\x3f\x00" + b"\x00" * 500, pause=0.02)],
    ],
    ids=["silent", "dripping"],
)
def test_a_slow_tls_handshake_ends_at_the_deadline(authority: trustme.CA, before: Any) -> None:
    with IssuerServer(tls=server_context(authority, "localhost"), before=before) as server:
        begun = time.monotonic(), running()
        with pytest.raises(FetchError, match="timed out"):
            get(f"https://localhost:{server.port}/jwks", seconds=0.3, context=trusting(authority))
        assert_ended_after(0.25, begun)


def test_a_slow_body_over_tls_ends_at_the_deadline(authority: trustme.CA) -> None:
    with IssuerServer(tls=server_context(authority, "localhost")) as server:
        server.handlers["/jwks"] = lambda _: drip(WHOLE, pause=0.2)
        begun = time.monotonic(), running()
        with pytest.raises(FetchError, match="time limit|timed out"):
            get(f"https://localhost:{server.port}/jwks", seconds=0.4, context=trusting(authority))
        assert_ended_after(0.35, begun)


def test_added_fields_are_sent_to_their_origin_only() -> None:
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


def test_no_fields_may_be_added() -> None:
    assert checked_headers(None) == {}
    assert checked_headers({"X-A": "b c"}) == {"X-A": "b c"}
    assert FetchHeaders({}).to(ISSUER) == USUAL


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("X-Api-Key: secret", "takes a mapping"),
        ([("X-Api-Key", "secret")], "takes a mapping"),
        ({"Host": "secret"}, "takes names of header fields that have no other use, not 'Host'"),
        ({"transfer-encoding": "secret"}, "takes names of header fields that have no other use, not "),
        ({"X Y": "secret"}, "takes names of header fields that have no other use, not "),
        ({"": "secret"}, "takes names of header fields that have no other use, not "),
        ({1: "secret"}, "takes names of header fields that have no other use, not "),
        ({"X-Y\r\nHost": "secret"}, "takes names of header fields that have no other use, not "),
        ({"X-Y": "secret\r\nHost: evil"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": " secret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": "sécret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": b"secret"}, "printable ASCII as the value of X-Y"),
        ({"X-Y": ""}, "printable ASCII as the value of X-Y"),
    ],
)
def test_a_wrong_header_field_is_refused_without_its_value(value: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        checked_headers(value)
    assert "secret" not in str(caught.value)
