"""The real Envoy in front of an application: one process, on loopback, in a folder of its own."""

import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

from tests.support.processes import listening

__all__ = ["ENVOY", "envoy"]

# A wheel puts it beside the interpreter.
ENVOY = shutil.which("envoy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))

_CLUSTER = """
  - name: {name}
    connect_timeout: 5s
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"""
_TYPES = "type.googleapis.com/envoy.extensions.filters.network"
_BOOTSTRAP = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {types}.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: gateway
{manager}
  clusters:{clusters}
"""


@contextmanager
def envoy(folder: Path, manager: str, port: int, *, clusters: dict[str, int]) -> Generator[None]:
    """Run Envoy with this connection manager on `port`, and with clusters that have one port each."""
    assert ENVOY is not None
    config, log = folder / "envoy.yaml", folder / "envoy.log"
    config.write_text(
        _BOOTSTRAP.format(
            port=port,
            types=_TYPES,
            manager=indent(manager, " " * 10),
            clusters="".join(_CLUSTER.format(name=name, port=at) for name, at in clusters.items()),
        )
    )
    command = [ENVOY, "--config-path", str(config), "--concurrency", "1"]
    command += ["--log-level", "warning", "--disable-hot-restart"]
    with listening(command, port, log):
        yield
