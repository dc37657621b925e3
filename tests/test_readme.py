"""Every Python snippet of the README runs as it stands, and what it builds protects something."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dpop_middleware import ResourceServer
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPKey

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = [
    (README[: match.start()].count("\n") + 2, match[1])
    for match in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]
ROUTES = [("GET", "/notes"), ("POST", "/notes"), ("POST", "/pay"), ("GET", "/legacy")]


async def _an_application(scope: object, receive: object, send: object) -> None:
    """Stands for the reader's `app`, which some snippets protect."""


@pytest.mark.parametrize(("line", "snippet"), SNIPPETS, ids=[f"line {line}" for line, _ in SNIPPETS])
def test_snippet_runs(line: int, snippet: str) -> None:
    names: dict[str, Any] = {"app": _an_application, "__name__": f"readme_line_{line}"}
    exec(compile("\n" * (line - 1) + snippet, "README.md", "exec"), names)
    assert any(isinstance(value, (ResourceServer, TokenEndpoint, DPoPKey)) for value in names.values())
    if names["app"] is not _an_application:
        client = TestClient(names["app"])
        refused = [client.request(method, path).status_code == 401 for method, path in ROUTES]
        assert any(refused)
    for name, value in names.items():
        if name.startswith("test_"):
            value()


def test_the_readme_has_snippets() -> None:
    assert len(SNIPPETS) >= 12


def test_the_commands_are_the_ones_that_we_promise() -> None:
    first_screen = README[: README.index("---")]
    assert "python3 -m pip install tox && python3 -m tox -e demo\n" in first_screen
    assert "python3 -m pip install tox && python3 -m tox\n" in first_screen
    assert "pipx run tox" in first_screen


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parents[1]
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert {target[1:] for target in targets if target.startswith("#")} <= headings
    local = [target for target in targets if not target.startswith(("#", "https://"))]
    assert [target for target in local if not (root / target).exists()] == []
