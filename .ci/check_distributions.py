"""Builds wheel and sdist, looks at what is in them, and uses the wheel in an empty environment."""

import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path

PACKAGE = "dpop_middleware"
TOP_LEVEL_OF_SDIST = {"PKG-INFO", "README.md", "LICENSE", ".gitignore", "pyproject.toml", "tox.ini"} | {
    PACKAGE,
    ".ci",
    ".github",
    "examples",
    "tests",
}
USE_IT = f"""
import importlib, pkgutil, sys
import {PACKAGE}
assert "site-packages" in {PACKAGE}.__file__, {PACKAGE}.__file__
foreign = sorted({{"fastapi", "httpx", "httpx2", "pytest"}} & set(sys.modules))
assert not foreign, f"import {PACKAGE} imports {{foreign}}"
server = {PACKAGE}.ResourceServer(
    issuer="https://auth.example.com",
    resource="https://api.example.com",
    replay_store={PACKAGE}.MemoryReplayStore(),
)
{PACKAGE}.DPoPMiddleware(lambda scope, receive, send: None, server)
"""


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def files_of_the_package() -> set[str]:
    files = Path(PACKAGE).rglob("*")
    return {path.as_posix() for path in files if path.is_file() and "__pycache__" not in path.parts}


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata_name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(metadata_name))
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert names == files_of_the_package(), names ^ files_of_the_package()
    assert f"{PACKAGE}/py.typed" in names
    assert len(licences) == 1
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    check_page(metadata.get_payload())


def check_page(page: object) -> None:
    """On the index's page no link leads to a file, or to a heading, that isn't there."""
    assert isinstance(page, str)
    assert page.startswith(f"# {PACKAGE}\n")
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert targets
    assert all(target.startswith("https://") for target in targets), targets
    version = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\n## {version} (" in page, "the page doesn't show what this version changes"


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [Path(name).parts[1:] for name in archive.getnames()]
    assert {parts[0] for parts in names} == TOP_LEVEL_OF_SDIST
    assert not any("__pycache__" in parts for parts in names)
    assert files_of_the_package() <= {"/".join(parts) for parts in names}


def check_in_an_empty_environment(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    run(python, "-m", "pip", "check")
    run(python, "-I", "-W", "error", "-c", USE_IT)


def main(folder: Path, *, built: bool) -> None:
    """Look at the distributions in `folder`, which are built first unless they are `built` already."""
    if not built:
        for stale in folder.glob(f"{PACKAGE}-*"):
            stale.unlink()
        run(sys.executable, "-m", "build", "--outdir", folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory() as empty:
        check_in_an_empty_environment(wheel, Path(empty))
    print(f"{wheel.name} and {sdist.name}: as they should be")


if __name__ == "__main__":
    main(Path(sys.argv[1]), built="--built" in sys.argv[2:])
