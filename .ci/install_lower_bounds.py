"""Installs exactly the lower bound of each of the project's dependencies and extras into this environment."""

import subprocess
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras: dict[str, list[str]] = project["optional-dependencies"]
requirements: list[str] = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
bounds = [requirement.partition(",")[0].replace(">=", "==") for requirement in requirements]
print(*bounds)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *bounds], check=True)
