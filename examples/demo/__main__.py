"""The whole of DPoP on this machine: an authorization server, a protected API, a client, and a thief.

    python -m tox -e demo

starts an embedded Valkey, an authorization server, and the API under uvicorn with two workers that share the
replay store; then it walks the flow and the attacks. It exits with 1 if any verdict is wrong.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from examples.demo.report import print_steps
from examples.demo.servers import free_port, uvicorn, valkey
from examples.demo.walk import Walk


def main() -> int:
    """Start the servers, walk, stop the servers; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--memory", action="store_true", help="memory replay store and one worker, no Valkey")
    memory = parser.parse_args().memory
    issuer, resource = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with contextlib.ExitStack() as stack:
        redis_url = None if memory else stack.enter_context(valkey())
        workers = 2 if redis_url else 1
        events = Path(stack.enter_context(tempfile.TemporaryDirectory()), "events.jsonl")
        events.touch()
        environment = {"DEMO_ISSUER": issuer, "DEMO_RESOURCE": resource, "DEMO_EVENTS": str(events)}
        if redis_url:
            environment["DEMO_REDIS_URL"] = redis_url
        stack.enter_context(
            uvicorn("demo.authorization_server:create_app", url=issuer, environment=environment)
        )
        stack.enter_context(
            uvicorn("demo.api:create_app", url=resource, workers=workers, environment=environment)
        )
        print(f"authorization server  {issuer}")
        print(f"API                   {resource}, uvicorn with {workers} worker{'s' if workers > 1 else ''}")
        print(f"replay store          {redis_url or 'memory: no Valkey here, so one worker only'}\n")
        right = print_steps(Walk(issuer=issuer, resource=resource, events=events, workers=workers).steps())
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
