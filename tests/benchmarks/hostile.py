"""The cost of refusing hostile requests, without and with a valid token.

    python -m tests.benchmarks.hostile [--rounds 15] [--size 40]

Without a valid token, in verifications by the issuer's algorithm (ES256 unless a row names another) of the
same run: of a usual message, or of one as long as the forged token, all of which a signature covers. With
one, as a multiple of the acceptance of a known client whose proofs are of the same algorithm.
Each by the judge alone, then through the whole middleware with logging at its defaults. At last forged proofs
at a token endpoint, in verifications by ES256: nothing bounds these, so they have no bar.
"""

import argparse
import asyncio
import json
import math
import sys
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA512

from dpop_middleware import ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.benchmarks.driving import Running, accepted, refused, stopped_by_middleware, through_middleware
from tests.benchmarks.made_up_tokens import made_up_tokens
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.token_endpoint import forged_proofs
from tests.benchmarks.workload import KNOWN_CLIENTS, RESOURCE, Client, Scope, StubStore, Workload

_FORGED = "forged token"
STRANGER_BAR = 2.0
CLIENT_BAR = 1.5
FLOOD = 5

Ratios = dict[str, float]

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
    "at every bound": '{"a":[' + ",".join(["{}"] * 38) + '],"b":"' + "\\u00e4" * 256 + "x" * 5000 + '"}',
    "duplicate names": "{" + ",".join(['"a":1'] * 50) + "}",
}
# Objects and members, as many as a header may have.
_FLAT = ",".join(['{"a":0}'] * 12 + ["1"] * 150)
# A header may have less: these are as large as one may be.
_HEADERS = _TEXTS | {
    "4 KiB of string": '{"a":"' + "x" * 4080 + '"}',
    "4 KiB of float": '{"a":0.' + "9" * 4080 + "}",
    "4 KiB of blanks": "{" + " " * 4090 + "}",
    "160 escapes": '{"a":"' + "\\u00e4" * 160 + '"}',
    "at every bound": '{"a":[' + _FLAT + '],"b":"' + "\\u00e4" * 160 + "x" * 2600 + '"}',
}
_TOKEN_BOUNDS = '{"a":[{},{},' + ",".join(["1"] * 34) + '],"b":"' + "\\u00e4" * 40 + "x" * 1106 + '"}'
_PATHS = {
    "letters encoded": "%41" * 1360,
    "quotes": '"' * 4090,
    "not ASCII": "\xe4" * 4090,
    "slashes": "/" * 4090,
    "dots": "..a/" * 1020,
    "256 to rewrite": "%41a" * 256,
    "dot segments": "./" * 2000,
    "listed, of dots": "static/" + "." * 4000 + "/..",
    "listed, letters encoded": "static/" + "%41" * 1350 + "/..",
    "listed, of dotted segments": "static" + "/.a" * 1350 + "//",
}
# Nothing but the comparison with the public paths reads as much of a path.
_LONG_PATHS = {
    "8 KiB of dots, listed": "static/" + "." * 8180 + "/..",
    "64 KiB, listed": "static/" + "a" * 65_000 + "/..",
}


def _segment(text: str) -> str:
    return base64url.encode(text.encode("utf-8", "surrogateescape"))


def _changed(scope: Scope, name: bytes, value: str) -> Scope:
    kept = [field for field in scope["headers"] if field[0] != name]
    return scope | {"headers": [*kept, (name, value.encode("latin-1"))]}


def _ruler(scope: Scope) -> Yardstick:
    """The time of a bare verification of exactly the token in `scope`."""
    _, _, token = dict(scope["headers"])[b"authorization"].partition(b" ")
    return Yardstick(octets=len(token.rpartition(b".")[0]))


def _at(scope: Scope, path: str) -> Scope:
    raw = path.encode("latin-1")
    return scope | {"raw_path": raw, "path": path}


def strangers(client: Client) -> dict[str, Scope]:
    """Requests without a valid token, by their kind of attack."""
    usual = client.scope(client.proof())
    header, payload, signature = client.token.split(".")
    # Of another message: numbers as a real signature has them are multiplied to the end.
    _, _, wrong = client.proof().split(".")
    forged = f"{header}.{payload}.{wrong}"
    bounds = _TOKEN_BOUNDS.replace("{", '{"typ":"at+jwt","alg":"ES256",', 1)
    large = f"{header}.{_segment('x' * 11_500)}.{wrong}"
    found = {
        "forged token": _changed(usual, b"authorization", f"DPoP {forged}"),
        "forged token of 16 KB": _changed(usual, b"authorization", f"DPoP {large}"),
        "forged token, header at every bound": _changed(
            usual, b"authorization", f"DPoP {_segment(bounds)}.{_segment('x' * 8000)}.{wrong}"
        ),
        "garbage token": _changed(usual, b"authorization", "DPoP " + "a" * 16_000),
        "dots": _changed(usual, b"authorization", "DPoP " + "." * 16_000),
        "illegal token": _changed(usual, b"authorization", "DPoP " + '"' * 16_000),
        "long scheme": _changed(usual, b"authorization", "a" * 16_000),
        "many fields": usual | {"headers": [(b"authorization", b"DPoP a")] * 1000},
        "many fields of one name": usual | {"headers": [(b"dpop", b" " * 70 + b"a" + b" " * 70)] * 256},
        "commas": _changed(usual, b"dpop", "," * 16_000),
    }
    found |= {
        f"token header: {name}": _changed(
            usual, b"authorization", f"DPoP {_segment(text)}.{payload}.{signature}"
        )
        for name, text in (_HEADERS | {"at every bound": _TOKEN_BOUNDS}).items()
    }
    forged_scope = found["forged token"]
    paths = _PATHS | _LONG_PATHS
    return found | {f"path: {name}": _at(forged_scope, f"/{path}") for name, path in paths.items()}


def clients(client: Client) -> dict[str, Scope]:
    """Requests with a valid token."""
    usual = client.scope(client.proof())
    header, _, signature = client.proof().split(".")
    found = {
        f"proof {part}: {name}": _changed(
            usual, b"dpop", f"{header}.{_segment(text)[:7800]}.{signature}" if part == "claims"
            else f"{_segment(text)[:7800]}.{_segment('{}')}.{signature}"
        )
        for part, texts in (("header", _HEADERS), ("claims", _TEXTS)) for name, text in texts.items()
    }  # fmt: skip
    for name, path in _PATHS.items():
        found[f"path: {name}"] = _at(usual, f"/{path}")
        text = json.dumps(
            {"jti": "1", "htm": "GET", "iat": 1, "htu": f"https://api.example.test/{path[:5000]}"}
        )
        found[f"htu: {name}"] = _changed(usual, b"dpop", f"{header}.{_segment(text)}.{signature}")
    found["bad signature"] = _changed(usual, b"dpop", client.proof().rpartition(".")[0] + "." + signature)
    return found


def without_kid(algorithm: str, keys: int) -> tuple[ResourceServer, Scope]:
    """A server whose issuer has `keys` keys, and a request with a forged token that names none of them."""
    issuer = TestIssuer(audience=RESOURCE, algorithm=algorithm)
    others = [TestIssuer(algorithm=algorithm).jwks()["keys"][0] for _ in range(keys)]
    api = ResourceServer(
        issuer=issuer.issuer, resource=RESOURCE, jwks={"keys": others}, replay_store=StubStore()
    )
    key = DPoPKey.generate()
    client = Client(key, issuer.token(jkt=key.jkt, header={"kid": ABSENT}))
    return api, client.scope(client.proof())


async def figures(*, rounds: int, size: int, running: Running, letting_in: Running) -> tuple[Ratios, Ratios]:
    """Return the ratio of each refusal, without and with a valid token.

    `running` has requests refused, `letting_in` has them accepted: by the judge alone, or by the middleware.
    """
    workload, yardstick = Workload(), Yardstick()
    api: ResourceServer = workload.server(StubStore())
    await accepted(api, workload.known(KNOWN_CLIENTS))
    client = workload.clients[0]
    acceptance = Samples()
    rows = [
        {name: (scope, Samples()) for name, scope in kind(client).items()} for kind in (strangers, clients)
    ]
    rulers = {name: _ruler(scope) for name, (scope, _) in rows[0].items() if name.startswith(_FORGED)}
    by_kid = {
        f"a flood without kid, {keys} keys of {algorithm}": (without_kid(algorithm, keys), ruler, Samples())
        for algorithm, keys, ruler in (
            ("ES256", 2, yardstick),
            ("ES512", 2, Yardstick(ec.SECP521R1(), SHA512())),
            ("ES512", 8, Yardstick(ec.SECP521R1(), SHA512())),
        )
    }
    other_key = DPoPKey.generate("ES512")
    other = Client(other_key, workload.issuer.token(jkt=other_key.jkt))
    other_acceptance, other_refusal = Samples(), Samples()
    for _ in range(rounds):
        await measure(acceptance, yardstick, partial(letting_in, api, workload.known(size)), size=size)
        for row in rows:
            for name, (scope, samples) in row.items():
                ruler = rulers.get(name, yardstick)
                await measure(samples, ruler, partial(running, api, [scope] * size), size=size)
        for (one_api, scope), ruler, samples in by_kid.values():
            # Ten a second are tried twice: a batch is as long as a flood feels.
            flood = [scope] * (FLOOD * size)
            await measure(samples, ruler, partial(running, one_api, flood), size=len(flood))
        proofs = [other.proof() for _ in range(size + 1)]
        scopes = [other.scope(proof) for proof in proofs[1:]]
        await accepted(api, [other.scope(proofs[0])])
        await measure(other_acceptance, yardstick, partial(letting_in, api, scopes), size=size)
        forged = other.scope(proofs[0].rpartition(".")[0] + "." + proofs[1].rpartition(".")[2])
        await measure(other_refusal, yardstick, partial(running, api, [forged] * size), size=size)
    without, with_token = ({name: samples.ratio for name, (_, samples) in row.items()} for row in rows)
    without |= {name: samples.ratio for name, (_, _, samples) in by_kid.items()}
    without |= await made_up_tokens(rounds=rounds, size=5 * FLOOD * size, running=running)
    with_token = {name: ratio / acceptance.ratio for name, ratio in with_token.items()}
    with_token["bad signature by ES512"] = other_refusal.ratio / other_acceptance.ratio
    return without, with_token


def show(title: str, ratios: dict[str, float], bar: float) -> bool:
    """Print the costliest first; whether all meet the bar."""
    print(f"\n{title}: {len(ratios)} kinds, {'no bar' if bar == math.inf else f'bar {bar}'}")
    for name, ratio in sorted(ratios.items(), key=lambda row: -row[1]):
        print(f"{name:42}{ratio:8.2f}{' MISSED' if ratio > bar else ''}")
    return max(ratios.values()) <= bar


def main() -> None:
    """Print the figures; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15, help="batches for each kind")
    parser.add_argument("--size", type=int, default=40, help="requests in a batch")
    options = parser.parse_args()
    met = True
    for place, running, letting_in in (
        ("the judge", refused, accepted),
        ("the middleware", stopped_by_middleware, through_middleware),
    ):
        without, with_token = asyncio.run(
            figures(rounds=options.rounds, size=options.size, running=running, letting_in=letting_in)
        )
        met = show(f"{place}, without a valid token, × one verification", without, STRANGER_BAR) and met
        met = show(f"{place}, with one, ÷ the acceptance of a known client", with_token, CLIENT_BAR) and met
    ratios = asyncio.run(forged_proofs(rounds=options.rounds, size=options.size))
    show("a token endpoint, × one verification by ES256", ratios, math.inf)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
