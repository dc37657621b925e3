"""An attacker changes anything: our verdict on each of thousands of mutations is that of the oracle.

A client with a token and its key can sign anything, so claims and headers are mutated and signed again;
octets are mutated after the signature. A mutation that we accept and the oracle refuses is a hole, one that
we refuse and it accepts locks an honest client out, and an exception is a 500. More mutations are made with
`MUTATIONS=…`, others with `DPOP_SEED=…`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dpop_middleware.jose import base64url
from tests.support.api import NOW, RESOURCE
from tests.support.judges import AUTHORIZATION, HOST, TOKEN, Judges
from tests.support.mutations import Mutator
from tests.support.oracle import Asked
from tests.support.seeds import first_seed
from tests.support.signer import Signer, signer

MUTATIONS = int(os.environ.get("MUTATIONS", "24000"))
# Signing by RSA takes ten times as long as all the rest.
ALGORITHMS = ("ES256",) * 10 + ("EdDSA", "Ed25519", "ES384", "RS256", "PS256")
PATHS = (
    *("/notes", "/", "/a@b.c", "/a%40b.c", "/a//b/", "/~x;y=z", "/%E6%97%A5/.x", "/caf%C3%A9", "/e%CC%81"),
    *(
        "/a%2Fb",
        "/a%20b",
        "/a%5Cb",
        "/a%3Fb",
        "/a%23b",
        "/a%0Ab",
        "/a%00",
        "/a%C2%85",
        "/a%7F",
        "/%252e",
        "/a%FF",
    ),
)
METHODS = ("GET", "POST", "DELETE", "PROPFIND")
SHOWN = 5

Case = Callable[[Mutator, Signer], Asked]


def asked(proof: str | bytes, *, method: str = "GET", path: str | bytes = "/notes") -> Asked:
    field = proof if isinstance(proof, bytes) else proof.encode("utf-8", "surrogatepass")
    raw = path if isinstance(path, bytes) else path.encode("latin-1")
    return Asked(method, raw, [HOST, AUTHORIZATION, (b"dpop", field)])


def honest(mutator: Mutator, key: Signer) -> tuple[str, str, dict[str, Any]]:
    """Return a method, a path and the claims of an honest proof for them."""
    method, path = mutator.rng.choice(METHODS), mutator.rng.choice(PATHS)
    return method, path, key.claims(method, RESOURCE + path, token=TOKEN, now=NOW)


def octets_of_a_signed_proof(mutator: Mutator, key: Signer) -> Asked:
    proof = key.jws(key.header(), key.claims("GET", f"{RESOURCE}/notes", token=TOKEN, now=NOW))
    if mutator.often(0.4):
        return asked(mutator.octets(proof.encode()))
    segments = proof.split(".")
    number = mutator.rng.choice([0, 1, 2, 2])
    # Decoded, mutated and encoded canonically: another signature, or other claims under the same one.
    segments[number] = base64url.encode(mutator.octets(base64url.decode(segments[number])))
    return asked(".".join(segments))


def octets_under_the_signature(mutator: Mutator, key: Signer) -> Asked:
    method, path, claims = honest(mutator, key)
    parts = [mutator.json(key.header()).encode(), mutator.json(claims).encode()]
    number = mutator.rng.randrange(2)
    parts[number] = mutator.octets(parts[number])
    return asked(key.jws(*parts), method=method, path=path)


def claims_signed_again(mutator: Mutator, key: Signer) -> Asked:
    method, path, claims = honest(mutator, key)
    names = ["jti", "htm", "htu", "iat", "ath", "nonce", "exp", "nbf", "aud", "sub", "x"]
    mutated = spelled(mutator, mutator.members(claims, names))
    return asked(key.jws(key.header(), mutated), method=method, path=path)


def headers_signed_again(mutator: Mutator, key: Signer) -> Asked:
    method, path, claims = honest(mutator, key)
    names = ["typ", "alg", "jwk", "crit", "b64", "zip", "kid", "x5c", "jku", "enc", "x"]
    mutated = spelled(mutator, mutator.members(key.header(), names))
    return asked(key.jws(mutated, claims), method=method, path=path)


def keys_signed_again(mutator: Mutator, key: Signer) -> Asked:
    method, path, claims = honest(mutator, key)
    names = ["use", "key_ops", "alg", "kid", "x5c", "oth", "d", "k", "p", "ext", "n", "e", "x", "y"]
    header = key.header() | {"jwk": mutator.members(key.jwk, names)}
    return asked(key.jws(spelled(mutator, header), claims), method=method, path=path)


def uris_signed_again(mutator: Mutator, key: Signer) -> Asked:
    method, path, claims = honest(mutator, key)
    claims["htu"] = mutator.uri(str(claims["htu"]))
    return asked(key.jws(key.header(), claims), method=method, path=path)


def requests_around_an_honest_proof(mutator: Mutator, key: Signer) -> Asked:
    rng = mutator.rng
    method, path, claims = honest(mutator, key)
    proof = key.jws(key.header(), claims).encode()
    sent = path.encode()
    kind = rng.randrange(6)
    if kind == 0:
        sent = mutator.octets(sent)
    elif kind == 1:
        sent = mutator.uri(path).encode("utf-8", "surrogatepass")
    elif kind == 2:
        method = mutator.text(method)
    authorization, fields = AUTHORIZATION[1], [proof]
    if kind == 3:
        authorization = mutator.octets(authorization)
    if kind == 4:
        joined, blank = proof + b"," + proof, b" " + proof + b"\t"
        fields = rng.choice([[], [proof] * 2, [proof, b""], [blank], [b""], [joined], [b"x", proof]])
    sender = (rng.choice([b"authorization", b"Authorization", b"AUTHORIZATION"]), authorization)
    senders = [sender] * rng.choice([0, 2, 3] if kind == 5 else [1])
    return Asked(method, sent, [HOST, *senders, *((rng.choice([b"dpop", b"DPoP"]), one) for one in fields)])


def spelled(mutator: Mutator, members: dict[str, Any]) -> str | bytes:
    return mutator.json(members).encode("utf-8", "surrogatepass")


CASES: dict[str, tuple[Case, float]] = {
    "forge by changing octets of a signed proof": (octets_of_a_signed_proof, 0.2),
    "say one thing to one JSON reader and another to the next": (octets_under_the_signature, 0.2),
    "use a proof for another request, later, or twice": (claims_signed_again, 0.2),
    "choose how the proof is verified": (headers_signed_again, 0.1),
    "pass off another key as the token's": (keys_signed_again, 0.1),
    "have two URIs taken for one": (uris_signed_again, 0.1),
    "reach another path or method, or bring two credentials": (requests_around_an_honest_proof, 0.1),
}


def mutations(goal: str, seed: str) -> Iterator[tuple[Signer, Asked]]:
    case, share = CASES[goal]
    mutator = Mutator(f"{seed} {goal}")
    for _ in range(int(MUTATIONS * share)):
        key = signer(mutator.rng.choice(ALGORITHMS))
        yield key, case(mutator, key)


def test_the_run_is_as_long_as_promised() -> None:
    assert MUTATIONS >= 20_000
    assert sum(int(MUTATIONS * share) for _, share in CASES.values()) >= MUTATIONS - len(CASES)


@pytest.mark.parametrize("goal", CASES)
async def test_an_attacker_can_not_reach_the_goal(goal: str) -> None:
    judges: dict[str, Judges] = {}
    wrong: list[str] = []
    found: Counter[str] = Counter()
    different: set[object] = set()
    for key, request in mutations(goal, str(first_seed())):
        judge = judges.setdefault(key.alg, Judges(key))
        judge.last = None
        try:
            said = await judge.disagree(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, an attacker made it a 500
            said = f"raised {error!r}"
        if judge.last is not None and judge.last.outcome == "unavailable":
            said = f"unavailable: {judge.last.reason}"
        if said is not None:
            wrong.append(f"{said}: {request}")
        found["nothing" if judge.last is None else str(judge.last.check or judge.last.outcome)] += 1
        different.add((request.method, request.raw_path, *request.headers))
    assert wrong[:SHOWN] == [], f"{len(wrong)} of {found.total()}"
    assert len(different) > 0.9 * found.total()
    assert len(found) > 1, "mutations that all meet the same check show nothing"
    if CASES[goal][0] is not octets_of_a_signed_proof:
        assert found["accepted"] > 0.02 * found.total(), "nor do mutations that are all refused"
