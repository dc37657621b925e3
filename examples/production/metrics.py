"""What Prometheus would know of the workers: their counters, also of those that have ended."""

import contextlib
import json
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

SHOWN = {
    "dpop_authentication_challenges_total": "dpop_check",
    "dpop_authentication_unavailable_total": "dpop_check",
    "dpop_proof_age_seconds_count": "",
}


class Scraper:
    """Reads the metrics of every worker that a file in `targets` names."""

    def __init__(self, targets: Path) -> None:
        self._targets = targets
        self._last: dict[str, dict[str, float]] = {}

    async def scrape(self, http: httpx2.AsyncClient) -> None:
        """Read what each worker has counted by now; a worker that just ended keeps its last figures."""
        for file in sorted(self._targets.glob("*.json")):
            with contextlib.suppress(OSError, httpx2.TransportError):
                (target,) = json.loads(file.read_text(encoding="utf-8"))[0]["targets"]
                answer = await http.get(f"http://{target}/metrics")
                self._last[file.stem] = _counts(answer.text)

    def totals(self) -> dict[str, float]:
        """Return the sums over all workers."""
        names = sorted({name for counts in self._last.values() for name in counts})
        return {name: sum(counts.get(name, 0) for counts in self._last.values()) for name in names}

    @property
    def workers(self) -> int:
        """How many workers there were."""
        return len(self._last)


def _counts(text: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in SHOWN:
                label = sample.labels.get(SHOWN[sample.name], "")
                name = f"{sample.name} {label}".rstrip()
                counts[name] = counts.get(name, 0) + sample.value
    return counts
