"""Work that an attacker wants done: counted, never timed."""

import sys
from typing import Any, ClassVar

import pytest

from dpop_middleware import (
    DPoPMiddleware,
    MemoryReplayStore,
    ResourceMetadata,
    ResourceRequest,
    ResourceServer,
)
from dpop_middleware._adapter.connection import has_credentials
from dpop_middleware._adapter.ticket import take_tickets
from dpop_middleware._judge.misplaced import misplaced
from dpop_middleware._log import escaped, shown
from dpop_middleware._options import shown as option_shown
from dpop_middleware._request.public_urls import PublicURLs, absolute_form, check_request_path
from dpop_middleware._request.request import MAX_FIELDS, credentials
from dpop_middleware._request.secure_url import shown_url
from dpop_middleware._request.uri import URIError, authority, normalize
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
)
from dpop_middleware.forward_auth import ForwardAuth
from tests.support.api import RESOURCE as RESOURCE_URL
from tests.support.api import Api
from tests.support.issuer_tokens import ISSUER, RESOURCE, issuer_key, key_set

PATHS = {
    "letters encoded": "%41" * 1350,
    "quotes": '"' * 4095,
    "not ASCII": "\xe4" * 4095,
    "slashes": "/" * 4095,
    "dots": "..a/" * 1000,
    "dot segments at the end": "a/" * 2000 + "..",
    "half an escape": "%4" * 2000,
    "backslashes": "\\" * 4095,
}


async def nowhere(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError


def calls(function: Any, *arguments: Any) -> int:
    """How many functions of Python and C are called."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function(*arguments)
    except (URIError, DPoPError):
        pass
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_attacker_wants_a_path_that_costs_more_than_another(path: str) -> None:
    assert calls(check_request_path, f"/{path}") <= calls(check_request_path, "/%41") + 20


@pytest.mark.parametrize("path", ["/./" * 2000, "%41" * 2000, '"' * 6000])
def test_the_attacker_wants_an_htu_that_is_rewritten_for_long(path: str) -> None:
    with pytest.raises(URIError, match="too many"):
        normalize(f"https://api.example.com/{path}")


def test_the_attacker_wants_a_long_htu_split_for_dots_that_are_no_dot_segment() -> None:
    plain = "https://api.example.com/"
    assert calls(normalize, plain + ".a/" * 2000) <= calls(normalize, plain) + 1


class Watched(str):
    """Text that counts the characters whose case was changed."""

    __slots__ = ()
    changed: ClassVar[list[int]] = []

    def lower(self) -> str:
        self.changed.append(len(self))
        return super().lower()

    def strip(self, characters: str | None = None, /) -> "Watched":
        return Watched(super().strip(characters))

    def partition(self, separator: str, /) -> tuple["Watched", "Watched", "Watched"]:
        before, found, after = super().partition(separator)
        return Watched(before), Watched(found), Watched(after)

    def __getitem__(self, index: Any, /) -> "Watched":
        return Watched(super().__getitem__(index))


@pytest.mark.parametrize("scheme", ["DPoP ", "Bearer ", "DPoP DPoP ", "Basic ", ""])
@pytest.mark.parametrize("with_proof", [True, False])
def test_the_attacker_wants_the_case_of_a_long_field_changed_for_a_hint(
    scheme: str, with_proof: bool
) -> None:
    Watched.changed.clear()
    field = Watched(scheme + "\xc4" * 60_000)
    request = ResourceRequest("GET", "/", (), (field,), (Watched("\xc4" * 8000),) if with_proof else ())
    for error in (
        MissingCredentials("", check=Check.AUTHORIZATION),
        InvalidRequest("", check=Check.AUTHORIZATION),
        InvalidToken("", check=Check.AUTHORIZATION),
        InvalidDPoPProof("", check=Check.FORMAT),
    ):
        misplaced(error, request)
    assert Watched.changed
    assert max(Watched.changed) <= 16


@pytest.mark.parametrize("path", ["a" * 4000, "%E4%BD%A0" * 170, "a/" * 2000, "\xe4" * 500])
def test_an_honest_long_path_passes(path: str) -> None:
    check_request_path(f"/{path}")
    with pytest.raises(URIError, match="dot segment"):
        check_request_path(f"/{path}/%2e%2E")


@pytest.mark.parametrize("blanks", ["\t" * 16_000, " " * 16_000, " \t" * 8000])
def test_the_attacker_wants_much_white_space_removed_character_by_character(blanks: str) -> None:
    for value in (f"{blanks}DPoP x", f"DPoP x{blanks}", f"DPoP {blanks}x", blanks):
        scope = {
            "type": "http", "method": "GET", "path": "/", "raw_path": b"/",
            "headers": [(b"authorization", value.encode()), (b"dpop", value.encode())],
        }  # fmt: skip
        request = ResourceRequest.from_scope(scope)
        assert len(request.dpop[0]) >= len(value) - 2 * 64
        with pytest.raises((MissingCredentials, InvalidRequest, InvalidToken)):
            credentials(request.authorization)


def test_an_honest_sender_may_put_some_white_space_there() -> None:
    field = b" \t" * 32 + b"DPoP" + b" " * 65 + b"x" + b"\t " * 32
    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/",
        "headers": [(b"authorization", field)],
    }  # fmt: skip
    assert credentials(ResourceRequest.from_scope(scope).authorization) == ("DPoP", "x")


@pytest.mark.parametrize("host", ["a" * 16_000, f"[{':' * 16_000}]", f"[{'1:' * 8000}]", "@" * 301])
def test_the_attacker_wants_a_long_authority_parsed(host: str) -> None:
    assert absolute_form(f"https://{host}/x") is None
    with pytest.raises(URIError, match="the authority is too long"):
        authority(host, scheme="https")
    with pytest.raises(URIError, match="the authority is too long"):
        normalize(f"https://{host}/x")


def test_an_honest_long_authority_passes() -> None:
    host = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}:65535"
    assert authority(host, scheme="https") == host
    assert normalize(f"https://{host}/x") == f"https://{host}/x"
    for target in (f"https://{host}/x", f"https://{host}?x", f"https://{host}"):
        assert absolute_form(target) == (f"https://{host}", target.removeprefix(f"https://{host}"))


@pytest.mark.parametrize("name", [b"authorization", b"dpop", b"host", b"cookie", b"x"])
async def test_the_attacker_wants_thousands_of_header_fields_read(name: bytes) -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": [(name, b"a")] * 4000,
    }  # fmt: skip
    request = ResourceRequest.from_scope(scope)
    assert (request.fields, request.authorization, request.dpop, request.hosts) == (4000, (), (), ())
    assert has_credentials(scope)
    api = ResourceServer(
        issuer=ISSUER, resource=RESOURCE, jwks=key_set(issuer_key()), replay_store=MemoryReplayStore()
    )
    with pytest.raises(InvalidRequest) as caught:
        await api.authenticate(request)
    assert (caught.value.expected, caught.value.actual) == (MAX_FIELDS, 4000)


@pytest.mark.parametrize("path", ["日" * 4095, "日a" * 2048, '"' * 4095, "%a" * 2048, "\U0001f600" * 60_000])
def test_the_attacker_wants_a_decoded_path_encoded_character_by_character(path: str) -> None:
    """Some servers have no raw path."""
    scope = {"type": "http", "method": "GET", "path": f"/{path}", "headers": []}
    usual = calls(ResourceRequest.from_scope, scope | {"path": "/usual"})
    assert calls(ResourceRequest.from_scope, scope) < usual + 6 * 128 + 20
    with pytest.raises(URIError, match="too long|doesn't start with a slash"):
        check_request_path(ResourceRequest.from_scope(scope).raw_path)


@pytest.mark.parametrize("name", ["authorization", "dpop", "hosts"])
@pytest.mark.parametrize("value", [b" " * 70 + b"a" + b" " * 70, b"," * 1000], ids=["blanks", "commas"])
def test_the_attacker_wants_each_of_many_fields_of_one_name_read(name: str, value: bytes) -> None:
    api, costs = Api(), dict[int, int]()

    def refused(fields: list[tuple[bytes, bytes]]) -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": fields}
        request = ResourceRequest.from_scope(scope)
        assert len(getattr(request, name)) == min(len(fields), 16)
        with pytest.raises(StopIteration):
            api.server.verification.judge(request, api.server.policy).send(None)

    for count in (2, MAX_FIELDS):
        costs[count] = calls(refused, [(name.removesuffix("s").encode(), value)] * count)
    assert costs[MAX_FIELDS] < costs[2] + 5 * MAX_FIELDS


async def test_the_attacker_wants_the_fields_of_one_request_read_twice() -> None:
    """Once for the verdict, and once for the host whose document the refusal names."""
    hosts = ["https://api.example.com", "https://b.example.com"]
    options: Any = {"issuer": ISSUER, "jwks": key_set(issuer_key()), "replay_store": MemoryReplayStore()}
    api = ResourceServer(
        resource=hosts[0], public_url=hosts, audience=hosts, metadata=ResourceMetadata(), **options
    )
    app = DPoPMiddleware(nowhere, api)

    async def nothing(_message: object = None) -> Any:
        return None

    def refused(count: int) -> None:
        fields = [(b"host", b"b.example.com")] * count
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": fields}
        with pytest.raises(StopIteration):
            app(scope, nothing, nothing).send(None)

    calls(refused, 16)
    assert calls(refused, MAX_FIELDS) < calls(refused, 16) + 4 * (MAX_FIELDS - 16)


@pytest.mark.parametrize("values", [[b"," * 60_000], [b'"a"'] * 4000], ids=["one list", "many fields"])
def test_the_attacker_wants_a_long_list_of_documents_compared(values: list[bytes]) -> None:
    api = ResourceServer(
        issuer=ISSUER,
        resource=RESOURCE,
        jwks=key_set(issuer_key()),
        replay_store=MemoryReplayStore(),
        metadata=ResourceMetadata(),
    )
    app, sent = DPoPMiddleware(nowhere, api), list[Any]()

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    def answered() -> None:
        path = "/.well-known/oauth-protected-resource"
        fields = [(b"if-none-match", value) for value in values]
        scope = {"type": "http", "method": "GET", "path": path, "headers": fields}
        with pytest.raises(StopIteration):
            app(scope, receive, send).send(None)

    assert calls(answered) < 2000
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("query", "found", "left"),
    [
        (b"&" * 60_000, 0, b"&" * 60_000),
        (b"&".join([b"ticket=a"] * 6000), 16, b""),
        (b"ticket" * 10_000, 0, b"ticket" * 10_000),
        (b"a&ticket=b&&xticket=c&ticket=d&", 2, b"a&&xticket=c&"),
    ],
    ids=["ampersands", "tickets", "half a ticket", "an honest query"],
)
def test_the_attacker_wants_a_long_query_cut_into_pieces(query: bytes, found: int, left: bytes) -> None:
    scope: dict[str, Any] = {"type": "websocket", "subprotocols": [], "headers": [], "query_string": query}
    carried = list[Any]()
    assert calls(lambda: carried.append(take_tickets(scope, "ticket"))) < 1000
    assert (len(carried[0].tickets), scope["query_string"]) == (found, left)


@pytest.mark.parametrize("many", ["subprotocols", "headers"])
def test_the_attacker_wants_thousands_of_subprotocols_or_fields_searched_for_a_ticket(many: str) -> None:
    offered, fields = ["dpop.ticket.a"], [(b"sec-websocket-protocol", b"dpop.ticket.a")]
    scope: dict[str, Any] = {"type": "websocket", "subprotocols": offered, "headers": fields}
    scope[many] = scope[many] * 10_000
    carried = list[Any]()
    assert calls(lambda: carried.append(take_tickets(scope, None))) < 10
    assert (carried[0].tickets, carried[0].too_many) == ((), True)


def test_the_attacker_wants_thousands_of_fields_searched_for_what_an_event_source_accepts() -> None:
    fields = [(b"accept", b"text/html")] * 10_000
    scope: dict[str, Any] = {"type": "http", "method": "GET", "query_string": b"ticket=a", "headers": fields}
    carried = list[Any]()
    assert calls(lambda: carried.append(take_tickets(scope, "ticket"))) < 50
    assert (carried[0].tickets, scope["query_string"]) == (("a",), b"")


def test_the_attacker_wants_thousands_of_fields_of_a_question_searched() -> None:
    app = ForwardAuth(Api().server, secret="s" * 32)
    fields = [(b"x", b"y")] * 10_000

    async def nothing(_message: object = None) -> Any:
        return None

    def asked() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": fields}
        with pytest.raises(StopIteration):
            app(scope, nothing, nothing).send(None)

    assert calls(asked) < 1000


@pytest.mark.parametrize("value", ["/", "//@:", "/@", "//:1/"])
def test_whoever_gives_a_long_option_waits_for_the_error_as_long_as_for_its_text(value: str) -> None:
    """With a megabyte, what looks at each place once for each other place doesn't end."""
    long = value * (1024 * 1024)
    assert len(option_shown(long)) <= len(long) + len("'...'")
    assert len(shown_url(long)) <= len(long) + len("'...'")


def test_the_attacker_wants_a_long_value_escaped_for_the_log() -> None:
    assert len(escaped("\0" * 16_000)) < 250
    assert len(shown("\0" * 16_000)) < 150


@pytest.mark.parametrize("path", ["/" + "%E6%97%A5" * 450, "/" + "%41" * 1300, "/" + "a/" * 2000 + "b"])
async def test_an_honest_client_signs_a_long_path_as_it_sends_it(path: str) -> None:
    api = Api()
    await api.server.authenticate(api.request(api.proof(url=RESOURCE_URL + path), raw_path=path))
    with pytest.raises(InvalidDPoPProof) as caught:
        await api.server.authenticate(api.request(api.proof(url=RESOURCE_URL + path + "x"), raw_path=path))
    assert caught.value.check is Check.HTU


@pytest.mark.parametrize("path", ["/a#b", "/a?b", "/a\\b", '/a"b', "/ä", "/a b"])
async def test_a_character_at_which_a_url_can_be_cut_is_never_compared_letter_by_letter(path: str) -> None:
    api = Api()
    base = PublicURLs(RESOURCE_URL, insecure_http_hosts=())
    assert not base.is_target(RESOURCE_URL + path, api.request(raw_path=path))
