"""Compares the lower bounds of pyproject.toml, and the lock, with the known advisories, without a network."""

import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


def lower_bounds(pyproject: dict[str, Any]) -> Iterator[tuple[str, Version]]:
    """The name and the oldest version that the project's dependencies and extras allow."""
    project = pyproject["project"]
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    for line in [*project["dependencies"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")]
        if len(bounds) != 1:
            raise ValueError(f"{line} has no lower bound")
        yield canonicalize_name(requirement.name), bounds[0]


def locked(lock: str) -> Iterator[tuple[str, Version]]:
    """The name and version of each line of the lock."""
    for line in lock.splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), Version(version)


def never_looked_up(known: dict[str, Any]) -> list[str]:
    """The packages for which nobody has looked into the databases yet."""
    return sorted(package["name"] for package in known["package"] if "looked_at" not in package)


def findings(
    known: dict[str, Any], bounds: list[tuple[str, Version]], lock: list[tuple[str, Version]]
) -> list[str]:
    """What speaks against these versions, one sentence each."""
    packages: dict[str, Any] = {canonicalize_name(package["name"]): package for package in known["package"]}
    found = [
        f"{name} is a dependency and has no place among the advisories"
        for name in sorted({name for name, _ in bounds} - set(packages))
    ]
    found += [
        f"{name} is among the advisories and is no dependency"
        for name in sorted(set(packages) - {name for name, _ in bounds})
    ]
    for where, versions in (("the lower bound", bounds), ("the lock", lock)):
        found += [
            f"{where} {name} {version} is affected by {advisory['id']}"
            for name, version in sorted(set(versions))
            for advisory in packages.get(name, {"advisories": []})["advisories"]
            if any(SpecifierSet(part).contains(version, prereleases=True) for part in advisory["affected"])
        ]
    return found


def main() -> int:
    """Print what was found; 1 where there is anything."""
    here = Path(__file__).parent
    known = tomllib.loads((here / "advisories.toml").read_text(encoding="utf-8"))
    pyproject = tomllib.loads((here.parent / "pyproject.toml").read_text(encoding="utf-8"))
    bounds = list(lower_bounds(pyproject))
    found = findings(known, bounds, list(locked((here / "lock.txt").read_text(encoding="utf-8"))))
    for finding in found:
        print(finding)
    unknown = never_looked_up(known)
    if unknown:
        print(f"never looked up in a database: {', '.join(unknown)}")
    count = sum(len(package["advisories"]) for package in known["package"])
    print(f"{len(set(bounds))} lower bounds against {count} advisories")
    return 1 if found or (unknown and os.environ.get("RELEASE_TAG")) else 0


if __name__ == "__main__":
    sys.exit(main())
