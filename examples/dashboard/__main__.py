"""What a dashboard sees: requests of every kind to a real API, then its metrics as Prometheus reads them.

    python -m tox -e dashboard

starts an embedded Valkey, an authorization server, and the API under uvicorn; it sends honest requests, a
thief's, a late one, then stops Valkey and sends one more. It exits with 1 if a metric doesn't tell of it.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from dpop_middleware.client import DPoPKey
from examples.demo.servers import free_port, uvicorn, valkey

HONEST = 40
WIDTH = 99


@dataclass(frozen=True)
class Series:
    """One line of what Prometheus reads."""

    name: str
    labels: dict[str, str]
    value: float

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.labels.items() if value)
        return f"{self.name:<58} {self.value:>9.4g}  {told}".rstrip()


class Client:
    """Sends requests with a bound token: its own, and those of a thief who has the token only."""

    def __init__(self, issuer: str, resource: str) -> None:
        self._resource = resource
        self._key = DPoPKey.generate("ES256")
        proof = self._key.proof("POST", f"{issuer}/token")
        form = {"grant_type": "authorization_code", "code": "SPLIT_123", "client_id": "dashboard"}
        answer = httpx2.post(f"{issuer}/token", headers={"DPoP": proof}, data=form, trust_env=False)
        self._token: str = answer.json()["access_token"]

    def proof(self, method: str = "GET", path: str = "/accounts", *, late: float = 0) -> str:
        """Return a proof of the client's key, made `late` seconds ago."""
        now = time.time() - late
        return self._key.proof(method, f"{self._resource}{path}", access_token=self._token, now=now)

    def send(self, proof: str | None = None, method: str = "GET", path: str = "/accounts") -> int:
        """Send one request, and return the status of its answer; without a proof, the token as Bearer."""
        fields = {"Authorization": f"{'Bearer' if proof is None else 'DPoP'} {self._token}"}
        if proof is not None:
            fields["DPoP"] = proof
        return httpx2.request(method, f"{self._resource}{path}", headers=fields, trust_env=False).status_code

    def say_nothing(self) -> int:
        """Send a request without credentials."""
        return httpx2.get(f"{self._resource}/accounts", trust_env=False).status_code


def busy_day(client: Client) -> Iterator[tuple[str, list[int]]]:
    """Send what a busy day brings, and say what was answered."""
    proofs = [client.proof(late=second % 20) for second in range(HONEST)]
    with ThreadPoolExecutor(8) as pool:
        yield f"{HONEST} honest requests, eight at a time", list(pool.map(client.send, proofs))
    yield "a proof that was sent before, three times", [client.send(proofs[0]) for _ in range(3)]
    yield "the stolen token as Bearer", [client.send()]
    stolen = DPoPKey.generate("ES256")
    yield "the stolen token with the thief's key", [client.send(stolen.proof("GET", "https://x.example/"))]
    yield "a proof that is ten minutes old", [client.send(client.proof(late=600))]
    yield "a request without credentials", [client.say_nothing()]
    transfer = client.proof("POST", "/transfers")
    yield "a transfer without its scope", [client.send(transfer, "POST", "/transfers")]


def scrape(url: str) -> list[Series]:
    """Read the metrics of ours as Prometheus does, without the buckets of histograms."""
    text = httpx2.get(url, trust_env=False).text
    return [
        Series(
            sample.name,
            {name: value for name, value in sample.labels.items() if "otel" not in name},
            sample.value,
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("dpop_") and not sample.name.endswith(("_bucket", "_created"))
    ]


def count(series: list[Series], name: str, **labels: str) -> float:
    """Return the sum of the series of one name that have `labels`."""
    found = (one for one in series if one.name == name and labels.items() <= one.labels.items())
    return sum(one.value for one in found)


def expected(series: list[Series], *, with_store: bool) -> dict[str, bool]:
    """Return whether the metrics tell what was sent."""
    refused = "dpop_authentication_challenges_total"
    told = {
        f"{HONEST} were accepted": count(series, "dpop_proof_age_seconds_count") == HONEST,
        "3 replays": count(series, refused, dpop_check="jti") == 3,
        "2 uses of a stolen token": count(series, refused, dpop_check="binding")
        + count(series, refused, dpop_check="jkt")
        == 2,
        "1 late proof": count(series, refused, dpop_check="iat") == 1,
        "1 without credentials": count(series, refused, dpop_check="authorization") == 1,
        "1 transfer was refused by its route": count(series, "dpop_authentication_forbids_total") == 1,
        "how old the issuer's keys are": count(series, "dpop_issuer_keys_age_seconds") > 0,
    }
    if with_store:
        told["1 while the store was away"] = (
            count(series, "dpop_authentication_unavailable_total", dpop_check="jti") == 1
        )
        sent = count(series, "dpop_replay_store_exchange_entries_sum")
        told["how many entries travelled"] = sent >= HONEST
    return told


def main() -> int:
    """Start the servers, send the requests, print the metrics; return the exit status."""
    issuer, resource, metrics = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    environment = {
        "DEMO_ISSUER": issuer,
        "DEMO_RESOURCE": resource,
        "DASHBOARD_METRICS_PORT": metrics.rpartition(":")[2],
    }
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as store:
        redis_url = store.enter_context(valkey())
        if redis_url is not None:
            environment["DEMO_REDIS_URL"] = redis_url
        for app, url in (("demo.authorization_server", issuer), ("dashboard.api", resource)):
            stack.enter_context(uvicorn(f"{app}:create_app", url=url, environment=environment))
        client = Client(issuer, resource)
        print(f"API      {resource}\nmetrics  {metrics}/metrics\n\nwhat was sent, and what was answered")
        for title, statuses in busy_day(client):
            print(f"  {title:<44} {', '.join(map(str, dict.fromkeys(statuses)))}")
        if redis_url is not None:
            store.close()
            print(f"  {'an honest request while the store is away':<44} {client.send(client.proof())}")
        series = scrape(f"{metrics}/metrics")
    print(f"\nwhat Prometheus reads\n{'-' * WIDTH}")
    print(*series, sep="\n")
    told = expected(series, with_store=redis_url is not None)
    print(
        "-" * WIDTH, *(f"{'seen   ' if seen else 'MISSING'}  {what}" for what, seen in told.items()), sep="\n"
    )
    return 0 if all(told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
