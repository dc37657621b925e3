"""Public paths: listed paths pass, and no path that a router could read as another one."""

import random
from typing import Any
from urllib.parse import unquote

import pytest

from dpop_middleware._request.public_paths import PublicPaths
from dpop_middleware.errors import ConfigurationError

PATHS = PublicPaths(["/health", "/docs/", "/static/*", "/naïve", "/a b/*"])


def scope(raw_path: str, **changes: Any) -> dict[str, Any]:
    return {"path": unquote(raw_path), "raw_path": raw_path.encode("latin-1"), "root_path": "", **changes}


@pytest.mark.parametrize(
    "raw_path",
    [
        "/health",
        "/docs/",
        "/static/app.js",
        "/static/deep/er/app.js",
        "/static/dir/",
        "/static/.well-known",
        "/static/..app",
        "/static/app;v=1.js",
        "/na%C3%AFve",
        "/a%20b/c",
        "/static/%61pp.js",
        "/static/a%20b",
    ],
)
def test_listed_paths_are_public(raw_path: str) -> None:
    assert scope(raw_path) in PATHS


@pytest.mark.parametrize(
    "raw_path",
    [
        "/",
        "",
        "*",
        "/health/",
        "/healthy",
        "/HEALTH",
        "/docs",
        "/static",
        "/static/",
        "/staticfile",
        "//health",
        "//static/app.js",
        "/static//app.js",
        "/static/../admin",
        "/static/..",
        "/static/./app.js",
        "/static/.",
        "/static/..;/admin",
        "/static/.;a=1/admin",
        "/static/..%3b/admin",
        "/static/%2e%2e/admin",
        "/static/%2E%2e/admin",
        "/static/.%2e/admin",
        "/static%2Fapp.js",
        "/static%2fapp.js",
        "/static/..%2fadmin",
        "/static/a%2Fb",
        "/static/%5C..%5Cadmin",
        "/static/\\admin",
        "/static/%252e%252e/admin",
        "/static/%252fadmin",
        "/static/%25252e%25252e/admin",
        "/static/%00",
        "/static/a%0a",
        "/static/%7f",
        "/static/%ff",
        "/%68ealth",  # BlackSheep compares what was sent
        "/%73tatic/app.js",
        "/a+b/c",
        "/static/a#b",
        "http://api.example.test/health",
    ],
)
def test_other_paths_are_not_public(raw_path: str) -> None:
    assert scope(raw_path) not in PATHS


@pytest.mark.parametrize("path", ["/static/a/../b", "/static/a%2fb", "/static/a//b", "/static/a\\b"])
def test_the_decoded_path_alone_is_enough_to_doubt(path: str) -> None:
    assert scope("/static/a", path=path) not in PATHS
    assert {"path": path} not in PATHS


def test_a_scope_without_a_raw_path_is_compared_by_its_path() -> None:
    assert {"path": "/health"} in PATHS
    assert {"path": "/health", "raw_path": None} in PATHS


@pytest.mark.parametrize("root_path", ["", "/svc"])
def test_a_path_of_8_kib_is_public_and_a_longer_one_is_told(root_path: str) -> None:
    """It is compared in parts: what a stranger can have compared has a bound."""
    longest = f"{root_path}/static/".ljust(8 * 1024, "a")
    given, told = scope(longest, root_path=root_path), (False, "the path has over 8192 characters")
    assert PATHS.judge(given) == (True, None)
    assert given | {"raw_path": f"{longest}?next=/../{longest}".encode()} in PATHS
    assert PATHS.judge(scope(f"{longest}a", root_path=root_path)) == told
    assert PATHS.judge(scope(f"{longest[:-1]}%61", root_path=root_path)) == told
    assert PATHS.judge({"path": f"{longest}a", "root_path": root_path}) == told
    assert PATHS.judge(scope(f"{root_path}/private/{longest}", root_path=root_path)) == (False, None)
    assert PATHS.judge(scope("/health", root_path=f"{longest}a")) == (False, None)


@pytest.mark.parametrize("path", ["/static/a", "/static/a/../b"])
@pytest.mark.parametrize(
    "raw_path", [b"/static/a/../b", b"/static/a/..", b"/static/%2e", b"/static/a%2Fb", b"/static/a#b"]
)
def test_either_form_of_a_path_is_enough_to_doubt(path: str, raw_path: bytes) -> None:
    assert PATHS.judge({"path": path, "raw_path": raw_path}) == (False, None)


def test_the_query_is_no_part_of_a_raw_path() -> None:
    assert scope("/health") | {"raw_path": b"/health?next=//x/../y"} in PATHS


@pytest.mark.parametrize(
    ("path", "root_path", "public"),
    [
        ("/svc/health", "/svc", True),
        ("/health", "/svc", False),
        ("/svc/health", "", False),
        ("/svchealth", "/svc", False),
        ("/svc/svc/health", "/svc", False),
        ("/health/health", "/health", False),
        ("/health", "/health", False),
        ("/svc/../health", "/svc", False),
        ("/svc//health", "/svc", False),
    ],
)
def test_the_path_that_the_router_sees_is_compared(path: str, root_path: str, public: bool) -> None:
    assert (scope(path, root_path=root_path) in PATHS) is public


# Where a root path is set: the path that a router reads, in each of the known ways.


@pytest.mark.parametrize(
    "path",
    [
        "/static/svc/secret",  # Litestar cuts at the first occurrence
        "/static/svc",
        "/svc/static/svc/secret",
        "/svc/static/xsvc/svcx",
        "/svc/static/SVC/secret",
        "/svc/static/%73vc/secret",
        "/SVC/static/a",
        "/svcx/static/a",
        "/svcstatic/a",
        "/svc",
        "/svc/",
        "/x/svc/static/a",
        "//svc/static/a",
        "/static/a",
        "static/a",
        "http://api.example.test/svc/static/a",
        "/svchttp://api.example.test/static/a",
        "/svc*",
    ],
)
def test_paths_outside_the_root_path_are_not_public(path: str) -> None:
    assert scope(path, root_path="/svc") not in PATHS
    assert {"path": unquote(path), "root_path": "/svc"} not in PATHS


def test_a_path_whose_root_path_the_client_percent_encoded_is_not_public() -> None:
    given = scope("/%73vc/static/a", root_path="/svc")
    assert given not in PATHS  # BlackSheep looks for the root path in raw_path
    assert given | {"raw_path": None} in PATHS


def test_a_root_path_may_overlap_itself() -> None:
    assert scope("/a/a/static/x", root_path="/a/a") in PATHS
    assert scope("/a/a/a/static/x", root_path="/a/a") not in PublicPaths(["/a/*"])


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/svc/", "/svc/health"),
        ("/svc/", "/svc//health"),
        ("svc", "svc/health"),
        ("svc", "/svc/health"),
        ("/", "//health"),
        ("/", "/health"),
        ("/s%76c", "/s%76c/health"),
        ("/a b", "/a%20b/health"),
        ("/a%20b", "/a%20b/health"),
        ("/na\u00efve", "/na%C3%AFve/health"),
        ("/..", "/../health"),
        ("/a/./b", "/a/./b/health"),
        ("//", "///health"),
        ("/a//b", "/a//b/health"),
        ("/a\\b", "/a\\b/health"),
        ("/a?b", "/a%3Fb/health"),
    ],
)
def test_under_a_root_path_that_routers_take_off_in_different_ways_nothing_is_public(
    root_path: str, path: str
) -> None:
    given = scope(path, root_path=root_path)
    assert given not in PATHS
    assert PATHS.judge(given).reason is not None


@pytest.mark.parametrize("root_path", ["", None])
def test_an_empty_root_path_changes_nothing(root_path: Any) -> None:
    assert scope("/health", root_path=root_path) in PATHS
    assert scope("/static/a", root_path=root_path) in PATHS


@pytest.mark.parametrize("root_path", ["/svc", "/svc/v1.0", "/~a/b-c_d", "/a:b@c", "/.well-known"])
def test_a_root_path_that_everybody_takes_off_alike(root_path: str) -> None:
    given = scope(f"{root_path}/health", root_path=root_path)
    assert given in PATHS
    assert given | {"raw_path": None} in PATHS
    assert given | {"raw_path": f"{root_path}/health?{root_path}//..".encode()} in PATHS
    assert given | {"type": "websocket"} in PATHS
    assert PATHS.judge(given).reason is None


@pytest.mark.parametrize(
    ("path", "raw_path", "root_path"),
    [
        ("/health", b"/svc/health", ""),
        ("/svc/health", b"/health", "/svc"),
        ("/health", b"", ""),
        ("/health", b"http://api.example.test/health", ""),
        ("/health", b"/health/", ""),
    ],
)
def test_a_raw_path_that_is_another_path_is_never_public(path: str, raw_path: bytes, root_path: str) -> None:
    given = {"path": path, "raw_path": raw_path, "root_path": root_path}
    assert given not in PATHS


# --- the reasons


@pytest.mark.parametrize(
    ("path", "root_path", "why"),
    [
        ("/health", "/svc", "doesn't start with the root path"),
        ("/static/a", "/svc", "doesn't start with the root path"),
        ("/svc/static/svc.js", "/svc", "twice"),
        ("/health/health", "/health", "twice"),
        ("/health", "/health", "doesn't start with the root path"),
        ("/svc/health", "/svc/", "start with a slash"),
        ("/static/a.js", "/static", "listed with the root path"),
    ],
)
def test_a_refused_request_for_a_listed_path_has_a_reason(path: str, root_path: str, why: str) -> None:
    told = PATHS.judge(scope(path, root_path=root_path)).reason
    assert told is not None
    assert why in told


@pytest.mark.parametrize(
    "given",
    [
        scope("/health"),
        scope("/private"),
        scope("/private", root_path="/svc"),
        scope("/svc/static/%2e%2e/a", root_path="/svc"),
        scope("/static/%2e%2e/a", root_path="/svc"),
        scope("/static/%ff"),
        scope("/static/%ff", root_path="/svc"),
    ],
)
def test_a_path_that_only_the_client_made_ambiguous_has_no_reason(given: dict[str, Any]) -> None:
    assert PATHS.judge(given).reason is None


@pytest.mark.parametrize(
    ("raw_path", "root_path"),
    [
        ("/%68ealth", ""),
        ("/na%c3%afve", ""),
        ("/svc/%73tatic/a", "/svc"),
        ("/%73vc/health", "/svc"),
    ],
)
def test_a_listed_path_in_another_spelling_is_told(raw_path: str, root_path: str) -> None:
    """Some clients encode more than they must, or with digits in lower case."""
    told = PATHS.judge(scope(raw_path, root_path=root_path))
    assert told == (False, "the client percent-encodes it in another way than RFC 3986 asks for")


def test_a_raw_path_of_another_path_is_told() -> None:
    told = PATHS.judge({"path": "/health", "raw_path": b"/mount/health", "root_path": ""}).reason
    assert told == "path and raw_path are two paths"


# --- a root path that the application itself sets


@pytest.mark.parametrize(
    ("mount", "inner", "path", "root_path", "public"),
    [
        ("", "/static", "/static/secret", "", False),
        ("", "/static", "/health", "", True),
        ("", "/api", "/static/api/secret", "", False),
        ("", "/api", "/static/API/secret", "", False),
        ("", "/svc", "/svc/health", "/svc", True),
        ("", "/api", "/svc/health", "/svc", False),
        ("/sub", "/svc/sub", "/svc/health", "/svc", True),
        ("/static", "/svc/static", "/svc/static/a", "/svc", True),
        ("/static", "/static", "/static/a", "", True),
        ("/static", "/static/x", "/static/x/secret", "", False),
    ],
)
def test_an_inner_root_path_limits_public_paths(
    mount: str, inner: str, path: str, root_path: str, public: bool
) -> None:
    paths = PublicPaths(["/health", "/static/*"], inner_root_paths=[(mount, inner)])
    given = scope(path, root_path=root_path)
    assert (given in paths) is public
    assert (paths.judge(given).reason is None) is public


def test_listed_paths_and_prefixes_are_covered() -> None:
    assert PATHS.covers("/health")
    assert not PATHS.covers("/static/")
    assert PATHS.covers_all_below("/static/")
    assert not PATHS.covers_all_below("/health/")


def test_a_root_path_that_no_url_can_have_makes_nothing_public() -> None:
    assert scope("/svc/health", root_path="/\ud800") not in PATHS


def test_a_path_that_was_sent_without_any_encoding() -> None:
    raw_path = "/na\u00efve".encode()
    assert {"path": "/na\u00efve", "raw_path": raw_path} in PATHS


def test_without_public_paths_nothing_is_public() -> None:
    assert scope("/") not in PublicPaths([])
    assert scope("/health") not in PublicPaths(())


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        ("/health", "takes a sequence of paths"),
        (None, "takes a sequence of paths"),
        (iter(["/health"]), "takes a sequence of paths"),
        (["health"], "takes paths that start with a slash, not"),
        ([""], "takes paths that start with a slash, not"),
        ([b"/health"], "takes paths that start with a slash, not"),
        (["/*"], "leave the middleware out"),
        (["//*"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a*"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/*/a"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a/**"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a?b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a#b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a/{b}"], "takes decoded paths and prefixes that end in '/\\*', not '/a/{b}'"),
        (["/a/<int:b>"], "takes decoded paths and prefixes that end in '/\\*', not '/a/<int:b>'"),
        (["/a%20b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a/../b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a//b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/a\\b"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/../*"], "takes decoded paths and prefixes that end in '/\\*', not"),
        (["/\ud800"], "takes decoded paths and prefixes that end in '/\\*', not"),
    ],
)
def test_wrong_public_paths_are_a_configuration_error(paths: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        PublicPaths(paths)


@pytest.mark.parametrize("seed", range(20))
def test_a_raw_path_is_decoded_as_servers_do(seed: int) -> None:
    """With any octets: a path that differs from the server's is never public, an equal one is."""
    draw = random.Random(seed)
    parts = ["%41", "%3d", "=", "_", "a", "%C3%A9", "%09", "=41", "%20", "~"]
    listed = PublicPaths(["/p/*"])
    for _ in range(200):
        raw = "/p/" + "".join(draw.choices(parts, k=draw.randint(1, 8)))
        path = unquote(raw)
        scope = {"type": "http", "path": path, "raw_path": raw.encode()}
        assert (scope in listed) is ("\t" not in path)
        assert scope | {"path": path + "x"} not in listed


@pytest.mark.parametrize("raw_path", [b"/p/a%\nb", b"/p/a=\r\nb", b"/p/a\n"])
def test_a_raw_path_with_a_line_break_is_not_public(raw_path: bytes) -> None:
    assert {"type": "http", "path": "/p/ab", "raw_path": raw_path} not in PublicPaths(["/p/*"])
