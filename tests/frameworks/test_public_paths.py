"""With every router and server, a request without credentials reaches only listed public paths.

Paths that are made by a seeded generator are sent as raw bytes to every server, at several root paths, and
each server passes them to every framework. Handlers that are not listed must never run; listed paths that are
unambiguous must be served. One of the root paths has the name of a public prefix.
"""

import json
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.frameworks.houses import MOUNT, every_house
from tests.frameworks.served import serving_apart
from tests.support.seeds import first_seed
from tests.support.servers import exchange, serving

PATHS_A_SERVER = 250
ROOT_PATHS = ("", "/api", "/api/v1", "/static", "/api/")
SERVERS = ("uvicorn-httptools", "uvicorn-h11", "hypercorn", "granian", "daphne")

SEGMENTS = [
    "", ".", "..", "%2e%2e", ".%2e", "..;", "a.js", "health", "HEALTH", "health%0a", "healt%68", "static",
    "STATIC", "%73tatic", "static%2f", "secret", "mnt", "MNT", "%6dnt", "api", "API", "Api", "%61pi",
    "api%2fv1", "apiv1", "v1", "V1", "xapi", "api.js", "%2fapi", "%5c", "..%2f", "..%5c", "%252e%252e", "%00",
    "%0a", "%ff", "%c3%a9", "a%20b", "~", "*", "@", "a:b", "http:", "%3f", "%23", "%",
]  # fmt: skip
PREFIXES = ["/api", "/api/v1", "/static", "/mnt", "/health", "/API", "/%61pi", "//api", "/api/", "/x"]


@contextmanager
def served(server: str, root_path: str) -> Generator[str]:
    if server in ("granian", "daphne"):
        with serving_apart(server, root_path) as origin:
            yield origin
    else:
        kind: Any = server
        with serving(kind, lambda _: every_house(), root_path=root_path) as origin:
            yield origin


def hostile_paths(lots: random.Random, origin: str) -> Iterator[str]:
    yield from ("/static/api/secret", "/static/api/v1/secret", "/static/mnt/secret", "/mnt/static/mnt/secret")
    yield from ("/static/api/mnt/secret", "/api/static/api/secret", "/api/mnt/static/api/mnt/secret", "*")
    yield from (f"{origin}/health", f"{origin}/api/health", f"{origin}/static/a.js", "http://x/static/a.js")
    while True:
        front = "".join(lots.choices(PREFIXES, k=lots.randrange(3)))
        listed = lots.choice(("", "", "/health", "/static", "/static/", "/mnt/static", "/mnt/health"))
        behind = "".join(f"/{segment}" for segment in lots.choices(SEGMENTS, k=lots.randrange(4)))
        yield (front + listed + behind) or "/"


def ask(origin: str, path: str, *fields: str) -> dict[str, Any] | None:
    """Return the answers of the applications, None where the server itself refused."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *fields, "", ""]
    head, _, body = exchange(origin, "\r\n".join(lines).encode(), timeout=30).partition(b"\r\n\r\n")
    return json.loads(body) if head.split(b" ")[1:2] == [b"200"] else None


@pytest.mark.parametrize("root_path", ROOT_PATHS)
@pytest.mark.parametrize("server", SERVERS)
def test_without_credentials_only_what_is_listed_is_served(server: str, root_path: str) -> None:
    lots = random.Random(f"{first_seed()} {server} {root_path}")
    # uvicorn puts the root path before the path that was sent; the others want it sent.
    in_front = "" if server.startswith("uvicorn") else root_path
    answered = 0
    with served(server, root_path) as origin:
        for path, _ in zip(hostile_paths(lots, origin), range(PATHS_A_SERVER), strict=False):
            told = ask(origin, path)
            if told is not None:
                answered += 1
                reached = [name for name, answer in told["answers"].items() if answer == "200 protected"]
                assert not reached, (path, told)
        if not root_path.endswith("/"):
            for listed in plainly_listed(root_path):
                told = ask(origin, in_front + listed)
                assert told is not None
                expected = {name for name in told["answers"] if (MOUNT in listed) == (" mount" in name)}
                served_by = {name for name, answer in told["answers"].items() if answer == "200 public"}
                assert served_by == expected, (listed, told)
    assert answered > PATHS_A_SERVER / 2


def test_a_root_path_that_the_client_chooses_opens_nothing() -> None:
    """daphne takes a root path from a header field of the request."""
    paths = [
        "/health",
        "/static/a.js",
        "/x/health",
        "/x/static/secret",
        "/secret/static/a.js",
        "/x/mnt/health",
        "/mnt/health",
        "/mnt/static/a.js",
    ]
    roots = ["/", "/x", "/secret", "/static", "/mnt", "/x/", "x", "%2fx", "/x/mnt", "/s", "/he", ""]
    with served("daphne", "") as origin:
        for path in paths:
            for root_path in roots:
                told = ask(origin, path, f"Daphne-Root-Path: {root_path}")
                assert told is not None
                assert "200 protected" not in told["answers"].values(), (path, told)


def plainly_listed(root_path: str) -> list[str]:
    """Listed paths that every router reads alike: ordinary characters, the root path once."""
    below = ["/health", "/static/a.js", "/static/deep/er/a.js", "/static/%61.js", "/static/a%20b"]
    listed = [mount + path for mount in ("", MOUNT) for path in below]
    return [path for path in listed if not root_path or root_path not in path]
