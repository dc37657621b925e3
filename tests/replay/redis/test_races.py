"""Four processes race for the same proofs: one winner each, on every kind of deployment."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.valkey import Cluster, Server

HOUSE = Path(__file__).parents[2]
PROCESSES = 4
PROOFS = int(os.environ.get("DPOP_RACE_PROOFS", "20000"))

RACER = """
import asyncio, random, sys, time
from dpop_middleware.replay import RedisReplayStore
from tests.support.replay import entry

async def main(url, proofs):
    store = RedisReplayStore.from_url(url, new_server="accept", timeout=30.0)
    await store.add(entry(f"warm {random.random()}"))
    items = [entry(f"raced {number}") for number in range(proofs)]
    wins = bytearray(proofs)
    async def race(number):
        wins[number] = await store.add(items[number])
    # In waves, so that the processes meet at the same proofs, each in an order of its own.
    for wave in range(0, proofs, 100):
        print("ready", flush=True)
        start = float(sys.stdin.readline())
        numbers = random.sample(range(wave, min(wave + 100, proofs)), min(100, proofs - wave))
        await asyncio.sleep(start - time.time())
        await asyncio.gather(*map(race, numbers))
    await store.aclose()
    print(wins.hex())

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def race(url: str, proofs: int) -> list[int]:
    """How many of the processes won each proof."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(HOUSE)))}
    command = (sys.executable, "-c", RACER, url, str(proofs))
    racers = [
        await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        for _ in range(PROCESSES)
    ]
    try:
        for _ in range(0, proofs, 100):
            await start_together(racers)
        outputs = [output for output, _ in await asyncio.gather(*(racer.communicate() for racer in racers))]
    finally:
        for racer in racers:
            if racer.returncode is None:
                racer.kill()
                await racer.wait()
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    wins = [bytes.fromhex(output.decode()) for output in outputs]
    assert min(sum(each) for each in wins) > proofs / 100, "they did not meet"
    return [sum(each) for each in zip(*wins, strict=True)]


async def start_together(racers: list[asyncio.subprocess.Process]) -> None:
    """Wait until every racer is ready, and give all of them the same start."""
    for racer in racers:
        assert racer.stdout is not None
        assert await racer.stdout.readline() == b"ready\n"
    start = time.time() + 0.005
    for racer in random.sample(racers, len(racers)):
        assert racer.stdin is not None
        racer.stdin.write(b"%r\n" % start)
        await racer.stdin.drain()


@pytest.mark.slow
async def test_four_processes_have_one_winner_for_each_proof_on_one_server(server: Server) -> None:
    assert await race(server.url, PROOFS) == [1] * PROOFS


@pytest.mark.slow
async def test_four_processes_have_one_winner_for_each_proof_on_a_cluster(implementation: str) -> None:
    with Cluster(masters=3, replicas=1, implementation=implementation) as cluster:
        assert await race(cluster.url, PROOFS) == [1] * PROOFS
