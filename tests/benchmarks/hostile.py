"""What refusals of hostile requests cost, without and with a valid token.

    python -m tests.benchmarks.hostile [--rounds 15] [--size 40]

Without a valid token, in verifications by the issuer's algorithm (ES256) of the same run; with one, as a
multiple of the acceptance of a known client in the same run.
"""

import argparse
import asyncio
import json
import sys
from functools import partial

from dpop_middleware import ResourceServer
from dpop_middleware.jose import base64url
from tests.benchmarks.judge import accepted, refused
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.workload import KNOWN_CLIENTS, Client, Scope, StubStore, Workload

STRANGER_BAR = 2.0
CLIENT_BAR = 1.5

_TEXTS = {
    "nested objects": '{"a":[' + ",".join(["{}"] * 2500) + "]}",
    "flat numbers": "[" + ",".join(["1"] * 3500) + "]",
    "1,500 names": json.dumps({f"{number:x}": 1 for number in range(900)}),
    "deep arrays": '{"a":' + "[" * 3500 + "]" * 3500 + "}",
    "unicode escapes": '{"a":"' + "\\u00e4" * 1200 + '"}',
    "long integer": '{"a":' + "9" * 7000 + "}",
    "long float": '{"a":0.' + "9" * 7000 + "}",
    "long string": '{"a":"' + "x" * 7500 + '"}',
    "not UTF-8": "\udcff" * 7000,
    "blanks": "{" + " " * 7900 + "}",
    "at every bound": '{"a":[' + ",".join(["{}"] * 80) + '],"b":"' + "\\u00e4" * 256 + "x" * 5000 + '"}',
    "duplicate names": "{" + ",".join(['"a":1'] * 50) + "}",
}
_PATHS = {
    "letters encoded": "%41" * 2700,
    "quotes": '"' * 8100,
    "not ASCII": "\xe4" * 8100,
    "slashes": "/" * 8100,
    "dots": "..a/" * 2000,
    "512 to rewrite": "%41a" * 512,
    "dot segments": "./" * 4000,
}


def _segment(text: str) -> str:
    return base64url.encode(text.encode("utf-8", "surrogateescape"))


def _changed(scope: Scope, name: bytes, value: str) -> Scope:
    kept = [field for field in scope["headers"] if field[0] != name]
    return scope | {"headers": [*kept, (name, value.encode("latin-1"))]}


def _at(scope: Scope, path: str) -> Scope:
    raw = path.encode("latin-1")
    return scope | {"raw_path": raw, "path": path}


def strangers(client: Client) -> dict[str, Scope]:
    """Requests without a valid token, by what is hostile about them."""
    usual = client.scope(client.proof())
    header, payload, signature = client.token.split(".")
    forged = f"{header}.{payload}.{'A' * 86}"
    bounds = _TEXTS["at every bound"].replace("{", '{"typ":"at+jwt","alg":"ES256",', 1)
    large = f"{header}.{_segment('x' * 11_500)}.{'A' * 86}"
    found = {
        "forged token": _changed(usual, b"authorization", f"DPoP {forged}"),
        "forged token of 16 KB": _changed(usual, b"authorization", f"DPoP {large}"),
        "forged token, header at every bound": _changed(
            usual, b"authorization", f"DPoP {_segment(bounds)}.{_segment('x' * 3500)}.{'A' * 86}"
        ),
        "garbage token": _changed(usual, b"authorization", "DPoP " + "a" * 16_000),
        "dots": _changed(usual, b"authorization", "DPoP " + "." * 16_000),
        "illegal token": _changed(usual, b"authorization", "DPoP " + '"' * 16_000),
        "long scheme": _changed(usual, b"authorization", "a" * 16_000),
        "many fields": usual | {"headers": [(b"authorization", b"DPoP a")] * 1000},
        "commas": _changed(usual, b"dpop", "," * 16_000),
    }
    found |= {
        f"token header: {name}": _changed(
            usual, b"authorization", f"DPoP {_segment(text)}.{payload}.{signature}"
        )
        for name, text in _TEXTS.items()
    }
    forged_scope = found["forged token"]
    return found | {f"path: {name}": _at(forged_scope, f"/{path}") for name, path in _PATHS.items()}


def clients(client: Client) -> dict[str, Scope]:
    """Requests with a valid token."""
    usual = client.scope(client.proof())
    header, _, signature = client.proof().split(".")
    found = {
        f"proof {part}: {name}": _changed(
            usual, b"dpop", f"{header}.{_segment(text)[:7800]}.{signature}" if part == "claims"
            else f"{_segment(text)[:7800]}.{_segment('{}')}.{signature}"
        )
        for part in ("header", "claims") for name, text in _TEXTS.items()
    }  # fmt: skip
    for name, path in _PATHS.items():
        found[f"path: {name}"] = _at(usual, f"/{path}")
        text = json.dumps(
            {"jti": "1", "htm": "GET", "iat": 1, "htu": f"https://api.example.test/{path[:5000]}"}
        )
        found[f"htu: {name}"] = _changed(usual, b"dpop", f"{header}.{_segment(text)}.{signature}")
    found["bad signature"] = _changed(usual, b"dpop", client.proof().rpartition(".")[0] + "." + signature)
    return found


async def figures(*, rounds: int, size: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the ratio of each refusal, without and with a valid token."""
    workload, yardstick = Workload(), Yardstick()
    api: ResourceServer = workload.server(StubStore())
    await accepted(api, workload.known(KNOWN_CLIENTS))
    client = workload.clients[0]
    acceptance = Samples()
    rows = [
        {name: (scope, Samples()) for name, scope in kind(client).items()} for kind in (strangers, clients)
    ]
    for _ in range(rounds):
        await measure(acceptance, yardstick, partial(accepted, api, workload.known(size)), size=size)
        for row in rows:
            for scope, samples in row.values():
                await measure(samples, yardstick, partial(refused, api, [scope] * size), size=size)
    without, with_token = ({name: samples.ratio for name, (_, samples) in row.items()} for row in rows)
    return without, {name: ratio / acceptance.ratio for name, ratio in with_token.items()}


def show(title: str, ratios: dict[str, float], bar: float) -> bool:
    """Print the costliest first; whether all meet the bar."""
    print(f"\n{title}: {len(ratios)} kinds, bar {bar}")
    for name, ratio in sorted(ratios.items(), key=lambda row: -row[1]):
        print(f"{name:42}{ratio:8.2f}{' MISSED' if ratio > bar else ''}")
    return max(ratios.values()) <= bar


def main() -> None:
    """Print the figures; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15, help="batches for each kind")
    parser.add_argument("--size", type=int, default=40, help="requests in a batch")
    options = parser.parse_args()
    without, with_token = asyncio.run(figures(rounds=options.rounds, size=options.size))
    met = show("without a valid token, × one ES256 verification", without, STRANGER_BAR)
    met = show("with a valid token, ÷ the acceptance of a known client", with_token, CLIENT_BAR) and met
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
