"""Compares the version of pyproject.toml with the changelog, and with the tag of a release."""

import os
import re
import sys
import tomllib
from pathlib import Path


def findings(version: str, changelog: str, tag: str | None) -> list[str]:
    """What speaks against a release of `version`; `tag` is None where nothing is released."""
    newest = re.search(r"^## (\S+) \((.+)\)$", changelog, re.MULTILINE)
    if newest is None or newest[1] != version:
        return [f"the newest version of the changelog isn't {version}"]
    if tag is None:
        return []
    found = [] if tag == f"v{version}" else [f"the tag is {tag}, the version {version}"]
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", newest[2]) is None:
        found.append(f"the changelog doesn't say when {version} was released: {newest[2]}")
    return found


def main() -> int:
    """Print what was found; 1 where there is anything."""
    here = Path(__file__).parents[1]
    version = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (here / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    found = findings(version, changelog, os.environ.get("RELEASE_TAG") or None)
    print(*(found or [f"version {version} is the changelog's newest"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
