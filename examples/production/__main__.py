"""A whole service under load, and what its operators do to it: nobody is lost, and no thief gets in.

    python -m tox -e production

starts nginx, two servers of two workers each, a replay store of a master and a replica with three Sentinels
(TLS, ACL), and an issuer. Clients call the API and thieves send used proofs again, all through a rolling
restart, a rotation of the issuer's key, the death of the store's master, and a rotation of the nonces'
secret. It prints the timeline, and exits with 1 if a request was lost, a replay got through, or an answer was
503 outside the outage.
"""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
from pathlib import Path

import httpx2

from examples.production.files import Files
from examples.production.load import CLIENTS, THIEVES, Load
from examples.production.metrics import Scraper
from examples.production.service import WORKERS, Service, nginx
from examples.production.steps import FALLBACK, Steps
from examples.production.store import SENTINELS, Store, program
from examples.production.timeline import HEAD, Timeline

EVERY = 2.0


def main() -> int:
    """Start everything, take the steps, print the timeline; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.production", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--without-nginx", action="store_true", help="uvicorn ends TLS, as where nginx is missing"
    )
    parser.add_argument("--wheel", action="store_true", help="the Valkey of the wheel, which has no TLS")
    arguments = parser.parse_args()
    front = None if arguments.without_nginx else nginx()
    server = program(from_wheel=arguments.wheel)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="dpop-") as folder, contextlib.ExitStack() as stack:
        files = Files(Path(folder))
        store = Store(files, server)
        service = Service(files, replay_store=store.url, front=front)
        secret = secrets.token_hex(32)
        service.change(policy=FALLBACK, nonce_secrets=[secret])
        print(f"front         {front or 'none: no nginx here, so uvicorn ends TLS'}")
        print(f"API           {service.resource}, two servers of {WORKERS} workers each")
        print(f"replay store  {server}; master, replica, {SENTINELS} Sentinels, ACL")
        print(f"issuer        {service.issuer}")
        print(f"load          {CLIENTS} clients, {THIEVES} thieves\n", flush=True)
        for part in (store, service):
            stack.callback(part.stop)
            part.start()
        timeline, scraper = asyncio.run(drive(files, service, store, secret))
    faults = timeline.summary()
    print(f"\nmetrics of {scraper.workers} workers, as last read")
    for name, count in scraper.totals().items():
        print(f"{count:8.0f}  {name}")
    print("\nas it must be" if not faults else "\n" + "\n".join(faults))
    return 1 if faults else 0


async def drive(files: Files, service: Service, store: Store, secret: str) -> tuple[Timeline, Scraper]:
    """Run the load, and take the steps meanwhile; return what happened when, and what was measured."""
    timeline, scraper, trust = Timeline(), Scraper(service.targets), files.trust()
    load = Load(
        timeline,
        resource=service.resource,
        issuer=service.issuer,
        secret=service.client_secret,
        resend=service.serves_alone,
    )
    print(HEAD)
    timeline.begin("the service is started")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(trust))
        watching = tasks.create_task(watch(timeline, scraper, service))
        await Steps(timeline, load, service=service, store=store, trust=trust).run(secret)
        load.end()
        watching.cancel()
    return timeline, scraper


async def watch(timeline: Timeline, scraper: Scraper, service: Service) -> None:
    """Print a row now and then, and read the metrics."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        while True:
            await asyncio.sleep(EVERY)
            await scraper.scrape(http)
            timeline.show(await asyncio.to_thread(service.ready))


if __name__ == "__main__":
    sys.exit(main())
