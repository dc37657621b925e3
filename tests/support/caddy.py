"""The real Caddy in front of an application: one process, on loopback, in a folder of its own."""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import listening

__all__ = ["CADDY", "caddy"]

CADDY = shutil.which("caddy")

_GLOBAL = "{\n\tadmin off\n\tauto_https off\n}\n"


@contextmanager
def caddy(folder: Path, sites: str, port: int, *, environ: Mapping[str, str]) -> Generator[None]:
    """Run Caddy with these sites, one of which listens on `port`."""
    assert CADDY is not None
    config, log = folder / "Caddyfile", folder / "caddy.log"
    config.write_text(_GLOBAL + sites)
    command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(config)]
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with listening(command, port, log, environ={"PATH": os.environ["PATH"], **homes, **environ}):
        yield
