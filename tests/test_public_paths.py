"""Public paths: what is meant is let through, and nothing that a router could read as something else."""

from typing import Any
from urllib.parse import unquote

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.public_paths import PublicPaths

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
        "/%68ealth",
        "/na%C3%AFve",
        "/a%20b/c",
    ],
)
def test_public(raw_path: str) -> None:
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
        "http://api.example.test/health",
    ],
)
def test_not_public(raw_path: str) -> None:
    assert scope(raw_path) not in PATHS


@pytest.mark.parametrize("path", ["/static/a/../b", "/static/a%2fb", "/static/a//b", "/static/a\\b"])
def test_the_decoded_path_alone_is_enough_to_doubt(path: str) -> None:
    assert scope("/static/a", path=path) not in PATHS
    assert {"path": path} not in PATHS


def test_without_a_raw_path() -> None:
    assert {"path": "/health"} in PATHS
    assert {"path": "/health", "raw_path": None} in PATHS


def test_the_query_is_no_part_of_a_raw_path() -> None:
    assert scope("/health") | {"raw_path": b"/health?next=//x/../y"} in PATHS


@pytest.mark.parametrize(
    ("path", "root_path", "public"),
    [
        ("/svc/health", "/svc", True),
        ("/health", "/svc", True),
        ("/svc/health", "", False),
        ("/svchealth", "/svc", False),
        ("/svc/svc/health", "/svc", False),
        ("/health/health", "/health", True),
        ("/health", "/health", False),
        ("/svc/../health", "/svc", False),
        ("/svc//health", "/svc", False),
    ],
)
def test_the_path_that_the_router_sees(path: str, root_path: str, public: bool) -> None:
    assert (scope(path, root_path=root_path) in PATHS) is public


def test_no_public_paths() -> None:
    assert scope("/") not in PublicPaths([])
    assert scope("/health") not in PublicPaths(())


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        ("/health", "takes a sequence of paths"),
        (None, "takes a sequence of paths"),
        (iter(["/health"]), "takes a sequence of paths"),
        (["health"], "starts with a slash"),
        ([""], "starts with a slash"),
        ([b"/health"], "starts with a slash"),
        (["/*"], "leave the middleware out"),
        (["//*"], "decoded path or a prefix"),
        (["/a*"], "decoded path or a prefix"),
        (["/*/a"], "decoded path or a prefix"),
        (["/a/**"], "decoded path or a prefix"),
        (["/a?b"], "decoded path or a prefix"),
        (["/a#b"], "decoded path or a prefix"),
        (["/a%20b"], "decoded path or a prefix"),
        (["/a/../b"], "decoded path or a prefix"),
        (["/a//b"], "decoded path or a prefix"),
        (["/a\\b"], "decoded path or a prefix"),
        (["/../*"], "decoded path or a prefix"),
    ],
)
def test_bad_configuration(paths: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        PublicPaths(paths)
