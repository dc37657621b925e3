"""Attacks with URLs and paths: a proof for one resource must not be accepted for another."""

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpop_middleware import DPoPMiddleware
from dpop_middleware._request.public_urls import PublicURLs, request_path, root_prefix, strip_root_path
from dpop_middleware._request.uri import normalize
from dpop_middleware.errors import DPoPError
from tests.support.adapters import ORIGIN, Fields, World, reached, scope_of
from tests.support.api import request
from tests.support.asgi import Answer, call

SEGMENTS = st.sampled_from(
    ["v1", "v2", "a", "api", "", "%61", "v1%2Fa", "A", "b@c", "..", "%2e", "x:", "v10"]
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map(lambda segments: "/" + "/".join(segments))
ROOTS = st.lists(st.sampled_from(["v1", "v2", "a", "api"]), max_size=3).map(
    lambda segments: "".join(f"/{segment}" for segment in segments)
)
PREFIXES = st.lists(ROOTS, min_size=1, max_size=4, unique=True)
HOSTS = st.sampled_from(
    [(), ("h.test",), ("evil.test",), ("h.test", "evil.test"), ("h.test/v1?",), ("x@h.test",)]
)


def target_of(urls: PublicURLs, **asked: Any) -> str | None:
    """Return the URL that a proof must name for a request, None where no proof is accepted."""
    try:
        return urls.target_uri(urls.origin_form(request(**asked)))
    except DPoPError:
        return None


def prefixed(prefixes: list[str], host: str = "https://h.test") -> PublicURLs:
    return PublicURLs([host + prefix for prefix in prefixes], insecure_http_hosts=())


@settings(max_examples=1500)
@given(PREFIXES, ROOTS, PATHS, PATHS)
@example(["/v1/api", "/a"], "/v1", "/api/x", "/v1/v1/api/x")
@example(["/v1", "/v2"], "/v1", "/v2/a", "/v1/v2/a")
@example(["", "/v1"], "/api", "/v1/a", "/api/v1/a")
def test_two_paths_of_one_server_never_have_one_target_uri(
    prefixes: list[str], root: str, one: str, other: str
) -> None:
    """Except a path with and without its root path, which every server and router treats as one."""
    urls = prefixed(prefixes)
    targets = [target_of(urls, raw_path=path, root_path=root) for path in (one, other)]
    if None in targets or targets[0] != targets[1]:
        return
    assert strip_root_path(request_path(one), root) == strip_root_path(request_path(other), root)


@settings(max_examples=500)
@given(PREFIXES, ROOTS, PATHS, HOSTS)
def test_host_never_moves_a_target_uri(prefixes: list[str], root: str, path: str, hosts: Any) -> None:
    urls = prefixed(prefixes)
    assert target_of(urls, raw_path=path, root_path=root, hosts=hosts) == target_of(
        urls, raw_path=path, root_path=root
    )


@settings(max_examples=500)
@given(PREFIXES, ROOTS, PATHS)
def test_a_target_uri_never_leaves_our_urls(prefixes: list[str], root: str, path: str) -> None:
    target = target_of(prefixed(prefixes), raw_path=path, root_path=root)
    if target is None:
        return
    assert normalize(target) == target
    public = target.removeprefix("https://h.test")
    assert any(public == prefix or public.startswith(prefix + "/") for prefix in prefixes)


@settings(max_examples=500)
@given(PREFIXES, ROOTS, PATHS)
def test_the_order_of_urls_never_decides(prefixes: list[str], root: str, path: str) -> None:
    there, back = prefixed(prefixes), prefixed(prefixes[::-1])
    asked: dict[str, Any] = {"raw_path": path, "root_path": root}
    assert target_of(there, **asked) == target_of(back, **asked)


@settings(max_examples=500)
@given(PREFIXES, ROOTS, PATHS, HOSTS)
def test_an_absolute_form_never_has_another_target_uri(
    prefixes: list[str], root: str, path: str, hosts: Any
) -> None:
    urls = prefixed(prefixes)
    absolute = target_of(urls, raw_path=f"HTTPS://H.test:443{path}", root_path=root, hosts=hosts)
    assert absolute == target_of(urls, raw_path=path, root_path=root)
    for origin in ("https://evil.test", "http://h.test", "https://h.test:8443", "https://h.test@evil.test"):
        assert target_of(urls, raw_path=origin + path, root_path=root, hosts=hosts) is None


@settings(max_examples=1000)
@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_an_authority_is_never_read_in_two_ways(text: str) -> None:
    """Only the exact host counts as ours, in any case, with the default port or none."""
    urls = prefixed([""])
    for target in (
        f"https://{text}",
        f"https://h.test{text}",
        f"https://{text}h.test/",
        f"https://{text}@h.test/",
    ):
        try:
            seen = urls.origin_form(request(raw_path=target))
        except DPoPError:
            continue
        assert re.match(r"https://h\.test(:(0*443)?)?([/?]|\Z)", target, re.IGNORECASE | re.ASCII)
        assert seen.raw_path.startswith("/")


@given(ROOTS)
def test_a_root_path_is_never_removed_in_part(root: str) -> None:
    assert root_prefix(root + "/") == root
    assert strip_root_path(f"{root}s/a", root) == (f"{root}s/a" if root else "s/a")


# --- through the middleware


def absolute_scope(origin: str, path: str, fields: Fields | None = None, **changes: Any) -> dict[str, Any]:
    scope = scope_of(path, fields, **changes)
    scope["path"] = origin + scope["path"]
    if scope["raw_path"] is not None:
        scope["raw_path"] = origin.encode() + scope["raw_path"]
    return scope


async def asked(world: World, scope: dict[str, Any], **options: Any) -> tuple[Answer, dict[str, Any]]:
    seen: dict[str, Any] = {}

    async def app(inner: Any, receive: Any, send: Any) -> None:
        seen.update(inner)
        await reached(inner, receive, send)

    urls = options.pop("public_url", ORIGIN)
    protected = DPoPMiddleware(
        app, world.server(public_url=urls), public_paths=["/public", "/open/*"], **options
    )
    return await call(protected, scope), seen


@pytest.mark.parametrize("root_path", ["", "/svc"])
@pytest.mark.parametrize("raw_path", [b"/a%2Fb", None])
async def test_the_application_never_sees_a_host_that_was_not_verified(
    root_path: str, raw_path: bytes | None
) -> None:
    world = World()
    path = "/a%2Fb" if raw_path else "/a/b"
    scope = absolute_scope(
        "HTTPS://API.example.test:443", path, world.fields(path), root_path=root_path, raw_path=raw_path
    )
    scope["headers"] = [(b"Host", b"evil.test"), (b"host", b"evil2.test"), *scope["headers"][1:]]
    answer, seen = await asked(world, scope)
    assert answer.status == 200
    assert (seen["path"], seen["raw_path"], seen["root_path"]) == ("/a/b", raw_path, root_path)
    assert [value for name, value in seen["headers"] if name.lower() == b"host"] == [b"api.example.test"]


async def test_a_proof_for_one_host_is_not_accepted_for_the_host_of_the_host_field() -> None:
    world = World()
    urls = [ORIGIN, "https://b.example.test"]
    scope = absolute_scope("https://b.example.test", "/a", world.fields(f"{ORIGIN}/a"))
    assert (await asked(world, scope, public_url=urls))[0].status == 401
    scope = absolute_scope("https://b.example.test", "/a", world.fields("https://b.example.test/a"))
    answer, seen = await asked(world, scope, public_url=urls)
    assert answer.status == 200
    assert seen["headers"][0] == (b"host", b"b.example.test")


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.test", "http://api.example.test"])
@pytest.mark.parametrize("path", ["/public", "/open/a", "/a"])
async def test_an_absolute_form_is_never_public(origin: str, path: str) -> None:
    assert (await asked(World(), absolute_scope(origin, path)))[0].status == 401


@pytest.mark.parametrize("path", ["/public", "/a"])
async def test_an_anonymous_request_for_another_origin_is_not_served(path: str) -> None:
    answer, seen = await asked(World(), absolute_scope(ORIGIN, path), required=False)
    assert (answer.status, seen["path"], seen["user"].is_authenticated) == (200, path, False)
    assert (await asked(World(), absolute_scope("https://evil.test", path), required=False))[0].status == 401


async def test_a_path_that_was_left_behind_is_not_rewritten() -> None:
    """An outer layer may have rewritten one of the two: only an existing prefix is removed."""
    world = World()
    scope = scope_of("/a", world.fields("/a"))
    scope["path"] = f"{ORIGIN}/a"
    _, seen = await asked(world, scope)
    assert seen["path"] == f"{ORIGIN}/a"
    scope = scope_of("/a")
    scope["raw_path"] = f"{ORIGIN}/b".encode()
    answer, seen = await asked(world, scope, required=False)
    assert (answer.status, seen) == (401, {})
