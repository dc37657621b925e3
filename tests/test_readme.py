"""Every Python snippet of the README runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = [
    (README[: match.start()].count("\n") + 2, match[1])
    for match in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


async def _an_application(scope: object, receive: object, send: object) -> None:
    """Stands for the reader's `app`, which the first snippet protects."""


@pytest.mark.parametrize(("line", "snippet"), SNIPPETS, ids=[f"line {line}" for line, _ in SNIPPETS])
def test_snippet_runs(line: int, snippet: str) -> None:
    names: dict[str, object] = {"app": _an_application, "__name__": f"readme_line_{line}"}
    exec(compile("\n" * (line - 1) + snippet, "README.md", "exec"), names)
    assert {"api", "app", "dpop"} & (names.keys() - {"app"}) or names["app"] is not _an_application


def test_the_commands_are_the_ones_that_we_promise() -> None:
    assert "python3 -m pip install tox && python3 -m tox -e demo\n" in README
    assert "python3 -m pip install tox && python3 -m tox\n" in README
    assert "pipx run tox" in README
