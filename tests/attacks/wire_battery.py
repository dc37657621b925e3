"""Attacks on the wire, for any server.

The modules that import these tests choose the servers, with their fixtures `wire` and, for those that speak
HTTP/2, `h2`.
"""

from typing import Any

import pytest

from tests.support.adapters import ORIGIN
from tests.support.wire import HOST, Seen, Wire


def not_reached(seen: Seen) -> None:
    assert seen.told is None, seen.told
    assert seen.status < 500 or seen.status == 501, seen.answer


def reached_as_verified(seen: Seen, path: str, *lines: str, method: str = "GET") -> dict[str, Any]:
    """The application was reached with the evidence for this path, and sees the fields that were judged."""
    assert seen.told is not None, seen.answer
    told = seen.told
    assert (told["user"], told["htu"], told["htm"]) == ("user123", ORIGIN + path, method)
    assert (told["path"], told["raw_path"]) == (path, path)
    sent = dict(line.split(": ", 1) for line in lines)
    assert told["authorization"] == [sent["Authorization"]]
    assert told["dpop"] == [sent["DPoP"]]
    return told


def verified_or_not_reached(seen: Seen, path: str, *lines: str, method: str = "GET") -> None:
    if seen.told is None:
        not_reached(seen)
    else:
        reached_as_verified(seen, path, *lines, method=method)


def test_an_honest_request_is_served(wire: Wire) -> None:
    lines = wire.lines("/a")
    assert reached_as_verified(wire.send("/a?x=1", *lines), "/a", *lines)["query"] == "x=1"
    assert wire.send("/public").told is not None
    not_reached(wire.send("/a"))


# --- fields


@pytest.mark.parametrize("name", ["DPoP", "dpop", "DPOP"])
def test_of_two_proofs_never_one_is_judged_and_the_other_used(wire: Wire, name: str) -> None:
    authorization, proof = wire.lines("/a")
    other = wire.lines("/b")[1].partition(": ")[2]
    for value in (other, proof.partition(": ")[2], "", "x"):
        not_reached(wire.send("/a", authorization, proof, f"{name}: {value}"))
        not_reached(wire.send("/a", f"{name}: {value}", authorization, proof))


@pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("value", ["DPoP x", "Basic eDp4", "", "Bearer x"])
def test_of_two_tokens_never_one_is_judged_and_the_other_used(wire: Wire, name: str, value: str) -> None:
    authorization, proof = wire.lines("/a")
    not_reached(wire.send("/a", authorization, f"{name}: {value}", proof))
    not_reached(wire.send("/a", f"{name}: {value}", authorization, proof))


@pytest.mark.parametrize("comma", [",", ", ", " ,"])
def test_joined_fields_never_count_as_one(wire: Wire, comma: str) -> None:
    authorization, proof = wire.lines("/a")
    value = proof.partition(": ")[2]
    not_reached(wire.send("/a", authorization, f"{proof}{comma}{value}"))
    not_reached(wire.send("/a", authorization, f"{proof}{comma}"))
    not_reached(wire.send("/a", authorization, f"DPoP: {comma}{value}"))
    not_reached(wire.send("/a", f"{authorization}{comma}Basic eDp4", proof))


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", "\n ", "\r "])
def test_a_folded_field_hides_nothing(wire: Wire, fold: str) -> None:
    authorization, proof = wire.lines("/a")
    not_reached(wire.send("/a", authorization, f"{proof[:60]}{fold}{proof[60:]}"))
    not_reached(wire.send("/a", f"{authorization[:60]}{fold}{authorization[60:]}", proof))
    not_reached(wire.send("/a", authorization, f"X-A: b{fold}{proof}"))
    not_reached(wire.send("/a", f"X-A: b{fold}{authorization}", proof))
    verified_or_not_reached(
        wire.send("/a", authorization, f"DPoP:{fold}{proof[6:]}"), "/a", authorization, proof
    )


def test_a_field_name_with_a_space_is_not_seen_by_one_part_only(wire: Wire) -> None:
    authorization, proof = wire.lines("/a")
    other = wire.lines("/b")[1].partition(": ")[2]
    for name in ("DPoP ", " DPoP", "DPoP\t", "\x0bDPoP"):
        verified_or_not_reached(
            wire.send("/a", authorization, proof, f"{name}: {other}"), "/a", authorization, proof
        )
        verified_or_not_reached(
            wire.send("/a", authorization, f"{name}: {proof[6:]}"), "/a", authorization, proof
        )


@pytest.mark.parametrize(
    "octet", ["\x00", "\x01", "\x08", "\x0b", "\x0c", "\x1f", "\x7f", "\x80", "\xff", "\r"]
)
def test_control_octets_never_split_a_field(wire: Wire, octet: str) -> None:
    authorization, proof = wire.lines("/a")
    not_reached(wire.send("/a", authorization, f"{proof[:60]}{octet}{proof[60:]}"))
    not_reached(wire.send("/a", f"{authorization[:60]}{octet}{authorization[60:]}", proof))
    not_reached(wire.send("/a", authorization, f"{proof}{octet}"))
    not_reached(wire.send("/a", f"{authorization}{octet}", proof))


def test_trailers_are_never_added_to_the_judged_fields(wire: Wire) -> None:
    """RFC 9110 section 6.5.1: the application sees the judged fields, whenever a trailer comes."""
    lines = wire.lines("/a", method="POST")
    other = wire.lines("/b", method="POST")
    for trailers in (["Authorization: Basic eDp4"], ["DPoP: x"], other):
        head = [
            "POST /a HTTP/1.1",
            f"Host: {HOST}",
            "Connection: close",
            "Transfer-Encoding: chunked",
            *lines,
        ]
        body = ["1", "x", "0", *trailers, "", ""]
        seen = wire.octets("\r\n".join([*head, "", *body]).encode())
        if seen.told is None:
            not_reached(seen)
            continue
        reached_as_verified(seen, "/a", *lines, method="POST")
        lines = wire.lines("/a", method="POST")


def test_late_trailers_are_never_added_to_the_judged_fields(wire: Wire) -> None:
    lines = wire.lines("/a", method="POST")
    head = ["POST /a HTTP/1.1", f"Host: {HOST}", "Connection: close", "Expect: 100-continue", *lines]
    body = ["1", "x", "0", "Authorization: Basic eDp4", "DPoP: x", "X-Late: 1", "", ""]
    seen = wire.continued(
        "\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode(), "\r\n".join(body).encode()
    )
    verified_or_not_reached(seen, "/a", *lines, method="POST")


def test_credentials_in_a_trailer_never_complete_others(wire: Wire) -> None:
    authorization, proof = wire.lines("/a", method="POST")
    head = ["POST /a HTTP/1.1", f"Host: {HOST}", "Connection: close", "Transfer-Encoding: chunked"]
    for fields, trailers in (
        ([authorization], ["DPoP: x"]),
        ([proof], ["Authorization: DPoP x"]),
        ([], [proof]),
    ):
        body = ["1", "x", "0", *trailers, "", ""]
        not_reached(wire.octets("\r\n".join([*head, *fields, "", *body]).encode()))


def test_a_second_request_of_a_connection_needs_its_own_credentials(wire: Wire) -> None:
    lines = wire.lines("/a")
    first = "\r\n".join(["GET /a HTTP/1.1", f"Host: {HOST}", *lines, "", ""])
    second = "\r\n".join(["GET /b HTTP/1.1", f"Host: {HOST}", "Connection: close", "", ""])
    seen = wire.octets((first + second).encode())
    assert seen.told is not None
    assert seen.answer.count(b'"reached": true') == 1
    assert seen.told["path"] == "/a"


# --- the request line


@pytest.mark.parametrize(
    "target",
    [f"{ORIGIN}/a", f"HTTPS://{HOST.upper()}:443/a", f"{ORIGIN}/a?x=1"],
)
@pytest.mark.parametrize("host", [HOST, "front.test"])
def test_an_honest_request_in_absolute_form_is_served(wire: Wire, target: str, host: str) -> None:
    lines = wire.lines("/a")
    told = reached_as_verified(wire.send(target, *lines, host=host), "/a", *lines)
    assert told["query"] == target.partition("?")[2]
    # Where the authority can be seen it counts, and Host is ignored (RFC 9112 section 3.2.2).
    assert told["hosts"] in ([HOST], [host])
    not_reached(wire.send(target))


@pytest.mark.parametrize("target", [ORIGIN, f"{ORIGIN}?x=1"])
def test_an_honest_request_in_absolute_form_without_a_path_is_served(wire: Wire, target: str) -> None:
    lines = wire.lines("/")
    verified_or_not_reached(wire.send(target, *lines), "/", *lines)


def test_public_paths_never_cover_an_absolute_form(wire: Wire) -> None:
    for target in (f"{ORIGIN}/public", "https://evil.test/public"):
        seen = wire.send(target)
        # httptools and granian pass "/public" on: there it is the same request.
        assert seen.told is None or seen.told["raw_path"] == "/public"
        assert seen.told is None or wire.kind in ("uvicorn-httptools", "granian")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/a",
        "http://api.example.test/a",
        "https://api.example.test:8443/a",
        "https://evil.test@api.example.test/a",
        "https://api.example.test@evil.test/a",
        "https://api.example.test./a",
        "ws://api.example.test/a",
        "ftp://api.example.test/a",
    ],
)
def test_an_absolute_form_of_another_origin_is_not_served_as_ours(wire: Wire, target: str) -> None:
    """Servers that hide the authority serve the path: the proof must still be for our URL."""
    lines = wire.lines("/a")
    seen = wire.send(target, *lines)
    if wire.kind in ("uvicorn-httptools", "granian"):
        verified_or_not_reached(seen, "/a", *lines)
    else:
        not_reached(seen)
        assert seen.status == 400
    of_another = wire.world.fields("https://evil.test/a")
    not_reached(wire.send(target, *(f"{name}: {value}" for name, value in of_another)))


@pytest.mark.parametrize(
    "target",
    ["/b", "/a/", "/A", "/a%2F", "//a", "/a/../a", "/./a", "/a%00", "/a;x", "/a\\", "\\a", "a",
     "//api.example.test/a", "/x/../a", "/%61%2e%2e", "https:/a", "https:///a", "/\xe4", "/a\x01", "/a\t",
     f"{ORIGIN}//a", f"{ORIGIN}/b"],
)  # fmt: skip
def test_a_proof_for_one_path_is_not_accepted_for_another(wire: Wire, target: str) -> None:
    seen = wire.send(target, *wire.lines("/a"))
    if seen.told is not None:
        # A server that shortens the target serves the path of the proof, and no other.
        assert seen.told["path"] == "/a", seen.told
    else:
        not_reached(seen)


def test_a_server_wide_target_is_not_a_path(wire: Wire) -> None:
    not_reached(wire.send("*", *wire.lines("/*", method="OPTIONS"), method="OPTIONS"))
    not_reached(wire.send(f"{HOST}:443", *wire.lines("/", method="CONNECT"), method="CONNECT"))
    not_reached(wire.send("*", method="OPTIONS"))


@pytest.mark.parametrize("method", ["get", "Get", "gET"])
def test_a_method_in_another_case_is_another_method(wire: Wire, method: str) -> None:
    """Methods are case-sensitive (RFC 9110 section 9.1): the application sees the proven method."""
    lines = wire.lines("/a")
    seen = wire.send("/a", *lines, method=method)
    if seen.told is not None:
        assert seen.told["method"] == "GET"
        reached_as_verified(seen, "/a", *lines)
    spelled = wire.lines("/a", method=method)
    seen = wire.send("/a", *spelled, method=method)
    assert seen.told is None or seen.told["method"] == seen.told["htm"]


@pytest.mark.parametrize("host", ["evil.test", f"{HOST}/a?", f"x@{HOST}", "", None])
def test_host_never_chooses_the_url_of_a_proof(wire: Wire, host: str | None) -> None:
    lines = wire.lines("/a")
    verified_or_not_reached(wire.send("/a", *lines, host=host), "/a", *lines)
    if host == "evil.test":
        of_another = wire.world.fields("https://evil.test/a")
        not_reached(wire.send("/a", *(f"{name}: {value}" for name, value in of_another), host=host))


@pytest.mark.parametrize(
    "line",
    ["X-Forwarded-Host: evil.test", "X-Forwarded-Proto: http", "Forwarded: host=evil.test;proto=http",
     "X-Forwarded-Prefix: /evil", "X-Original-URL: /b", "X-Rewrite-URL: /b", "X-HTTP-Method-Override: PUT"],
)  # fmt: skip
def test_a_forwarded_field_never_chooses_the_url_of_a_proof(wire: Wire, line: str) -> None:
    lines = wire.lines("/a")
    reached_as_verified(wire.send("/a", *lines, line), "/a", *lines)
    for url in ("https://evil.test/a", "http://api.example.test/a", f"{ORIGIN}/evil/a"):
        fields = wire.world.fields(url)
        not_reached(wire.send("/a", *(f"{name}: {value}" for name, value in fields), line))


# --- HTTP/2


def pseudo(**changes: str) -> list[tuple[str, str]]:
    fields = {"method": "GET", "scheme": "https", "authority": HOST, "path": "/a", **changes}
    return [(f":{name}", value) for name, value in fields.items()]


def credentials(wire: Wire, path: str = "/a", **arguments: Any) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in wire.world.fields(path, **arguments)]


def lines_of(fields: list[tuple[str, str]]) -> list[str]:
    names = {"authorization": "Authorization", "dpop": "DPoP"}
    return [f"{names[name]}: {value}" for name, value in fields]


def test_an_honest_request_over_http_2_is_served(h2: Wire) -> None:
    fields = credentials(h2)
    reached_as_verified(h2.h2([*pseudo(), *fields]), "/a", *lines_of(fields))
    not_reached(h2.h2(pseudo()))


@pytest.mark.parametrize("name", ["method", "scheme", "authority", "path"])
def test_of_two_pseudo_header_fields_never_one_alone_is_judged(h2: Wire, name: str) -> None:
    another = {"method": "PUT", "scheme": "http", "authority": "evil.test", "path": "/b"}[name]
    fields = credentials(h2)
    for extra in ((f":{name}", another), (f":{name}", dict(pseudo())[f":{name}"])):
        verified_or_not_reached(h2.h2([*pseudo(), extra, *fields]), "/a", *lines_of(fields))
        fields = credentials(h2)
        verified_or_not_reached(h2.h2([extra, *pseudo(), *fields]), "/a", *lines_of(fields))
        fields = credentials(h2)
        verified_or_not_reached(h2.h2([*pseudo(), *fields, extra]), "/a", *lines_of(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": f"{ORIGIN}/a"},
        {"path": "https://evil.test/a"},
        {"path": "a"},
        {"path": ""},
        {"path": "*"},
        {"path": "/b"},
        {"path": "/a#b"},
        {"path": "//evil.test/a"},
        {"authority": "evil.test"},
        {"authority": f"x@{HOST}"},
        {"authority": ""},
        {"scheme": "http"},
        {"scheme": "evil"},
        {"scheme": "https://evil.test/?"},
        {"method": "get"},
        {"method": "PUT"},
    ],
)
def test_a_pseudo_header_field_never_changes_the_url_of_a_proof(h2: Wire, changes: dict[str, str]) -> None:
    fields = credentials(h2)
    verified_or_not_reached(h2.h2([*pseudo(**changes), *fields]), "/a", *lines_of(fields))


def test_a_host_field_never_overrides_the_authority(h2: Wire) -> None:
    fields = credentials(h2)
    seen = h2.h2([*pseudo(), ("host", "evil.test"), *fields])
    verified_or_not_reached(seen, "/a", *lines_of(fields))


def test_doubled_or_upper_case_fields_of_http_2_never_pass(h2: Wire) -> None:
    authorization, proof = credentials(h2)
    not_reached(h2.h2([*pseudo(), authorization, proof, proof]))
    not_reached(h2.h2([*pseudo(), authorization, authorization, proof]))
    not_reached(h2.h2([*pseudo(), authorization, proof, ("DPoP", "x")]))
    not_reached(h2.h2([*pseudo(), authorization, ("dpop", f"{proof[1]}\r\nx: y")]))
    not_reached(h2.h2([*pseudo(), authorization, ("dpop", f"{proof[1]}\x00")]))


def websocket(**changes: str) -> list[tuple[str, str]]:
    fields = [*pseudo(method="CONNECT", **changes), (":protocol", "websocket")]
    return [*fields, ("sec-websocket-version", "13")]


def test_a_websocket_over_http_2_needs_a_proof(h2: Wire) -> None:
    """RFC 8441: the handshake is a CONNECT; for the proof it is a GET, as in HTTP/1.1."""
    not_reached(h2.h2(websocket()))
    not_reached(h2.h2([*websocket(), *credentials(h2, "/b")]))
    fields = credentials(h2)
    seen = h2.h2([*websocket(), *fields])
    verified_or_not_reached(seen, "/a", *lines_of(fields))
    assert seen.told is not None or h2.kind == "granian", "granian has no WebSockets over HTTP/2"
    not_reached(h2.h2([*websocket(), *fields]))
