"""Writes the CycloneDX SBOM of the wheel with all its extras, and compares it with the lock.

The lock, `.ci/lock.txt`, holds the versions of a release's components: what `pip install` of the wheel with
all its extras brings along on Linux with our oldest Python. `--lock` writes it anew from what is newest.
"""

import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
LOCK = CHECKOUT / ".ci" / "lock.txt"
HEAD = "# What the wheel with all its extras brings along: written by `python .ci/sbom.py DIST --lock`.\n"
NAME = "dpop_middleware"
OF_THE_ENVIRONMENT = {"pip", "setuptools"}


def environment(dist: Path, *, constrained: bool) -> Path:
    """The interpreter of a new environment that has the wheel of `dist` with its extras."""
    folder = dist.parent / "locked"
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    (wheel,) = dist.glob("*.whl")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = ",".join(project["optional-dependencies"])
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", f"{wheel}[{extras}]"]
    if constrained:
        install += ["--constraint", LOCK]
    subprocess.run(install, check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """The versions of what is in the environment, but for the wheel and what made the environment."""
    command: list[str | Path] = [python, "-m", "pip", "list", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(done.stdout)}
    return {
        name: version
        for name, version in listed.items()
        if name not in OF_THE_ENVIRONMENT | {NAME.replace("_", "-")}
    }


def locked() -> dict[str, str]:
    """The versions of the lock."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {name: version for name, _, version in pairs}


def sbom_of(python: Path, file: Path) -> dict[str, Any]:
    """Write the SBOM of an environment to `file`; return it."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--validate"]
    root: list[str | Path] = ["--pyproject", CHECKOUT / "pyproject.toml", "--mc-type", "library"]
    subprocess.run([*tool, *root, "--output-file", file, python], check=True)
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def main(dist: Path, *, renew: bool) -> int:
    """Write `sbom.cdx.json` beside `dist`; 1 where it isn't what the lock says."""
    python = environment(dist, constrained=not renew)
    if renew:
        lines = [f"{name}=={version}\n" for name, version in sorted(installed(python).items())]
        LOCK.write_text(HEAD + "".join(lines), encoding="utf-8")
    file = dist.parent / "sbom.cdx.json"
    document = sbom_of(python, file)
    listed = {each["name"].lower().replace("_", "-"): each["version"] for each in document["components"]}
    told = {name: version for name, version in listed.items() if name not in OF_THE_ENVIRONMENT}
    told.pop(NAME.replace("_", "-"), None)
    differing = sorted(set(told.items()) ^ set(locked().items()))
    root = document["metadata"]["component"]
    print(f"{file.name}: {root['name']} {root['version']} with {len(told)} components")
    for name, version in differing:
        print(f"{name} {version} is {'only in the SBOM' if name in told else 'only in the lock'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), renew="--lock" in sys.argv[2:]))
