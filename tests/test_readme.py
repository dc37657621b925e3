"""Every Python snippet of the README runs unchanged, and treats requests as the text says."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dpop_middleware
from dpop_middleware import AccessToken, DPoPMiddleware, errors, profiles
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.reader import API, ISSUER, Scenario, World, ask, driven, follow, opened, replay, world_of
from tests.support.readme import CHAPTERS, ROOT, Block, blocks, text_of

README = text_of("README.md")
MOST_LINES = 400
ABOUT = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/*.md"))


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    async with world_of(monkeypatch, tmp_path) as world:
        yield world


async def first_screen(names: dict[str, Any], world: World) -> None:
    await opened(names["api"])
    assert await replay(names["app"], "GET", "/notes", world.auth()) == [200, 401]
    assert (await ask(names["app"], "GET", "/notes")).status_code == 401


async def around_any_application(names: dict[str, Any], world: World) -> None:
    await opened(names["api"])
    answer = await ask(names["app"], "GET", "/notes", auth=world.auth(sub="ann"))
    assert answer.text == "notes of ann"
    assert await replay(names["app"], "GET", "/notes", world.auth()) == [200, 401]
    for public in ("/health", "/static/style.css"):
        assert (await ask(names["app"], "GET", public)).text == "all is well"


async def fastapi(names: dict[str, Any], world: World) -> None:
    await opened(names["api"])
    app = names["app"]
    ann = world.auth(sub="ann", scopes=["notes:read"])
    assert (await ask(app, "GET", "/notes", auth=ann)).json() == {"notes_of": "ann"}
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 403
    assert await replay(app, "GET", "/notes", ann) == [200, 401]
    my_access_token = SimpleNamespace(subject="bob")
    app.dependency_overrides[names["dpop"]] = lambda: my_access_token
    assert (await ask(app, "GET", "/notes")).json() == {"notes_of": "bob"}


async def starlette_route(names: dict[str, Any], world: World) -> None:
    await opened(names["api"])
    ann = world.auth(sub="ann", scopes=["notes:write"])
    assert (await ask(names["app"], "POST", "/notes", auth=ann)).json() == {"written_by": "ann"}
    assert (await ask(names["app"], "POST", "/notes", auth=world.auth())).status_code == 403
    assert await replay(names["app"], "POST", "/notes", ann) == [200, 401]


async def issuers(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    keycloak = world.issuers[f"{ISSUER}/realms/main"]
    auth = keycloak.auth(sub="ann", header={"typ": "JWT"}, jti="1", azp="my_client")
    assert (await ask(app, "GET", "/notes", auth=auth)).json()["subject"] == "ann"
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 401


async def the_log(names: dict[str, Any], world: World) -> None:
    logger = logging.getLogger("dpop_middleware")
    try:
        assert logger.isEnabledFor(logging.INFO)
        assert logger.hasHandlers()
    finally:
        logger.setLevel(logging.NOTSET)


SCENARIOS: dict[str, list[Scenario]] = {
    "dpop_middleware": [first_screen],
    "Around any ASGI application": [around_any_application],
    "FastAPI in five minutes": [fastapi],
    "One Starlette route": [starlette_route],
    "Issuers": [issuers],
    "The log": [the_log],
}


# What these issuers write into access tokens, where that differs from RFC 9068.
VENDORS: dict[str, dict[str, Any]] = {
    "RFC 9068": {},
    "Keycloak": {
        "header": {"typ": "JWT"},
        "typ": "DPoP",
        "azp": "my_client",
        "client_id": ABSENT,
        "aud": [API, "account"],
        "scope": "openid email",
        "acr": "1",
    },
    "Okta": {
        "header": {"typ": ABSENT},
        "ver": 1,
        "cid": "my_client",
        "client_id": ABSENT,
        "uid": "00u1",
        "scp": ["openid", "email"],
        "scope": ABSENT,
    },
    "Duende": {"scope": ["openid", "email"], "sub": ABSENT},
    "Auth0": {
        "header": {"typ": "JWT"},
        "azp": "my_client",
        "client_id": ABSENT,
        "jti": ABSENT,
        "aud": [API, f"{ISSUER}/userinfo"],
        "scope": "openid email",
    },
}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_row_of_an_issuer_lets_its_tokens_in(vendor: str) -> None:
    (row,) = re.findall(rf"^\| {vendor}[^|]*\| (.*) \|$", README, re.MULTILINE)
    named = re.search(r"`profile=profiles\.(\w+)`", row)
    profile = profiles.RFC9068 if named is None else getattr(profiles, named[1])
    issuer, key = TestIssuer(ISSUER, audience=API), DPoPKey.generate()
    token = issuer.token(jkt=key.jkt, **VENDORS[vendor])

    async def verified(profile: profiles.Profile) -> AccessToken:
        return await profile.verifier(issuer=ISSUER, audience=API, jwks=issuer.jwks()).verify(token)

    wanted = await verified(profile)
    assert (wanted.client_id, wanted.jkt) == ("my_client", key.jkt)
    assert wanted.scopes == (set() if named is None else {"openid", "email"})
    if named is not None:
        with pytest.raises(errors.InvalidToken):
            await verified(profiles.RFC9068)


@pytest.mark.parametrize(("snippet", "scenario"), list(driven("README.md", SCENARIOS)))
async def test_each_snippet_does_what_the_text_says(
    snippet: Block, scenario: Scenario | None, world: World
) -> None:
    assert scenario is not None, "give the new snippet a scenario that drives it"
    await follow(snippet, scenario, world)


def test_every_scenario_has_its_snippet() -> None:
    told = [snippet.heading for snippet in blocks("python") if snippet.file is None]
    assert told == [heading for heading, scenarios in SCENARIOS.items() for _ in scenarios]


def test_the_section_on_testing_works_in_an_empty_folder(tmp_path: Path) -> None:
    suite = blocks("python", "examples/testing/README.md")
    files = [snippet for snippet in (*blocks("python"), *suite) if snippet.file is not None]
    assert [snippet.file for snippet in files] == [
        "test_notes.py",
        "notes.py",
        "test_dpop.py",
        "conftest.py",
        "test_clients.py",
    ]
    for snippet in files:
        (tmp_path / str(snippet.file)).write_text(snippet.text)
    first = [line for line in files[0].text.splitlines()[1:] if line]
    assert len(first) <= 10, "a protected application is tested in ten lines"
    # Of the oldest starlette, which the newest anyio warns about.
    odd = "ignore:The anyio"
    # The reader has pytest alone, and the package from wherever these tests have it.
    reader = {
        "PYTHONPATH": str(Path(dpop_middleware.__path__[0]).parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-W", odd, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | reader,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
    assert "failed" not in done.stdout


def test_the_commands_are_the_ones_that_we_promise() -> None:
    first_screen = README[: README.index("---")]
    assert "python3 -m pip install tox && python3 -m tox -e demo\n" in first_screen
    assert "python3 -m pip install tox && python3 -m tox\n" in first_screen
    assert "pipx run tox" in first_screen


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert README.count("\n") <= MOST_LINES


def test_the_glossary_has_at_most_twelve_words() -> None:
    section = README[README.index("## Words") : README.index("## How to use it")]
    assert 0 < len(re.findall(r"^\| (?!word|---).*\|$", section, re.MULTILINE)) <= 12


def test_the_table_names_every_check_once() -> None:
    table = README.partition("## What is checked")[2].partition("\n\nA refusal is")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)…?`", cell)]
    checks = ["token_" if check.startswith("token_") else check.value for check in Check]
    assert sorted(named) == sorted(set(checks))


def test_the_readme_leads_to_every_chapter() -> None:
    assert [chapter for chapter in CHAPTERS if f"]({chapter})" not in README] == []


def prose_for(block: Block) -> str:
    """The text of a document before its first section, and in the section of `block`, without code."""
    before, *sections = re.split(
        r"^#+ ", re.sub(r"```.*?```", "", text_of(block.document), flags=re.DOTALL), flags=re.MULTILINE
    )[1:]
    return before + "".join(text for text in sections if text.startswith(f"{block.heading}\n"))


@pytest.mark.parametrize("document", ["README.md", *CHAPTERS])
def test_every_recipe_opens_and_closes_the_server_or_says_why_not(document: str) -> None:
    # The middleware does it. The chapter on testing explains it for the README's files.
    silent = [
        block.line
        for block in blocks("python", document)
        if re.search(r"DPoPSecurity\(|requires_dpop\(", block.text)
        and not re.search(r"Middleware\(|async with api", block.text)
        and block.file is None
        and "lifespan" not in prose_for(block)
    ]
    assert silent == []


def test_the_environments_of_tox_are_there() -> None:
    told = {name for document in ("README.md", *CHAPTERS, *ABOUT) for name in environments_named_in(document)}
    assert {"demo", "flow", "cluster", "bench", "release"} <= told
    there = set(
        re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    )
    # Those of the interpreters are made by their names.
    assert {name for name in told if re.fullmatch(r"py3\d+", name) is None} <= there


def environments_named_in(document: str) -> list[str]:
    return re.findall(r"tox -e (\w+)", text_of(document))


def anchors_of(document: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", ["README.md", *CHAPTERS, *ABOUT])
def test_links_lead_somewhere(document: str) -> None:
    lost: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            lost.append(target)
    assert lost == []
