"""Makes `tests` and `examples` importable without letting the checkout hide an installed wheel."""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

import_root = str(Path(__file__).parents[1])
if import_root not in sys.path:
    sys.path.append(import_root)  # appended: what is installed comes first


def pytest_configure() -> None:
    """Under tox the tests judge the wheel, so a checkout in its place would be a lie."""
    import dpop_middleware

    if "TOX_ENV_NAME" in os.environ:
        where = Path(dpop_middleware.__path__[0])
        if not where.is_relative_to(sysconfig.get_path("purelib")):
            raise pytest.UsageError(f"the tests run on {where} instead of the installed wheel")
