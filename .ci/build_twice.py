"""Builds sdist and wheel twice, from two copies of the checkout, and compares them bit for bit.

The build tools are those of `.ci/build_tools.txt`, by their hashes. The second copy lies elsewhere, was
written at another time, is its owner's alone, and is built in another time zone and language.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
# hatchling's own, for a tree without a history.
NO_HISTORY = "1580601600"
LEFT_OUT = shutil.ignore_patterns(".git", ".tox", ".*_cache", "__pycache__", "dist", "build", "node_modules")
ELSEWHERE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}


def builder(folder: Path) -> Path:
    """The interpreter of a new environment that has the pinned build tools, and nothing else."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pinned = CHECKOUT / ".ci" / "build_tools.txt"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-r",
        pinned,
    ]
    subprocess.run(install, check=True)
    return python


def source_date() -> str:
    """When the source was made: SOURCE_DATE_EPOCH, or the newest commit's time."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        return given
    log = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(log, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or NO_HISTORY


def build(python: Path, source: Path, out: Path, **environ: str) -> dict[str, str]:
    """Build into `out`; return the digest of each distribution."""
    command: list[str | Path] = [python, "-m", "build", "--no-isolation", "--outdir", out, source]
    subprocess.run(command, check=True, env=os.environ | environ, stdout=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def main(folder: Path) -> int:
    """Build into `folder / "dist"`; 1 where the two builds differ."""
    shutil.rmtree(folder, ignore_errors=True)
    python, epoch = builder(folder / "builder"), source_date()
    shutil.copytree(CHECKOUT, folder / "one" / "checkout", ignore=LEFT_OUT, symlinks=True)
    first = build(python, folder / "one" / "checkout", folder / "dist", SOURCE_DATE_EPOCH=epoch)
    other = folder / "another" / "place" / "with a blank"
    shutil.copytree(CHECKOUT, other, ignore=LEFT_OUT, symlinks=True, copy_function=shutil.copy)
    for path in other.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    before = os.umask(0o077)
    second = build(python, other, folder / "again", SOURCE_DATE_EPOCH=epoch, **ELSEWHERE)
    os.umask(before)
    for name, digest in first.items():
        print(f"{digest}  {name}" + ("" if second.get(name) == digest else f"  differs: {second.get(name)}"))
    print(f"SOURCE_DATE_EPOCH={epoch}: " + ("the same twice" if first == second else "NOT REPRODUCIBLE"))
    return 0 if first == second else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
