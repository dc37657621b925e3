"""Four processes race for the same proofs: one winner each, on every kind of deployment."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.valkey import Cluster, Server

HOUSE = Path(__file__).parents[2]
PROCESSES = 4
PROOFS = int(os.environ.get("DPOP_RACE_PROOFS", "5000"))

RACER = """
import asyncio, random, sys, time
from dpop_middleware.replay import RedisReplayStore
from tests.support.replay import entry

async def main(url, proofs, start):
    store = RedisReplayStore.from_url(url, new_server="accept", timeout=5.0)
    await store.add(entry(f"warm {random.random()}"))
    items = [entry(f"raced {number}") for number in range(proofs)]
    wins = bytearray(proofs)
    async def race(number):
        wins[number] = await store.add(items[number])
    # In waves by the clock, so that the processes meet at the same proofs, each in an order of its own.
    for wave in range(0, proofs, 100):
        await asyncio.sleep(start + wave / 5000 - time.time())
        numbers = random.sample(range(wave, min(wave + 100, proofs)), min(100, proofs - wave))
        await asyncio.gather(*map(race, numbers))
    await store.aclose()
    sys.stdout.write(wins.hex())

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


async def race(url: str, proofs: int) -> list[int]:
    """How many of the processes won each proof."""
    start = str(time.time() + 2.5)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(HOUSE)))}
    command = (sys.executable, "-c", RACER, url, str(proofs), start)
    racers = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
        for _ in range(PROCESSES)
    ]
    outputs = await asyncio.gather(*(racer.communicate() for racer in racers))
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    wins = [bytes.fromhex(output.decode()) for output, _ in outputs]
    assert min(sum(each) for each in wins) > proofs / 100, "they did not meet"
    return [sum(each) for each in zip(*wins, strict=True)]


async def test_four_processes_have_one_winner_for_each_proof(server: Server) -> None:
    assert await race(server.url, PROOFS) == [1] * PROOFS


@pytest.mark.slow
async def test_twenty_thousand_proofs_on_one_server(server: Server) -> None:
    assert await race(server.url, 20_000) == [1] * 20_000


@pytest.mark.slow
async def test_twenty_thousand_proofs_on_a_cluster(implementation: str) -> None:
    with Cluster(masters=3, replicas=1, implementation=implementation) as cluster:
        assert await race(cluster.url, 20_000) == [1] * 20_000
