"""ML-DSA proofs and tokens between this library and jwcrypto (RFC 9964): off by default, on by name."""

import base64
import hashlib
import importlib
import json
import time
from typing import Any

import pytest

from dpop_middleware import (
    DPoPPolicy,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceRequest,
    ResourceServer,
    VerifiedRequest,
)
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidToken
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens.jwks import parse_key_set

# Its types know no key of the type AKP yet.
jwk: Any = importlib.import_module("jwcrypto.jwk")
jws: Any = importlib.import_module("jwcrypto.jws")

API = "https://api.example.test"
ISSUER = "https://auth.example.test"

every = pytest.mark.parametrize("name", POST_QUANTUM_ALGORITHMS)


def server(
    jwks: Any, *, proofs: tuple[str, ...] = POST_QUANTUM_ALGORITHMS, tokens: tuple[str, ...] | None = None
) -> ResourceServer:
    verifier = JWTAccessTokenVerifier(
        issuer=ISSUER, audience=API, jwks=jwks, algorithms=tokens or (*SUPPORTED_ALGORITHMS, *proofs)
    )
    return ResourceServer(
        verifier=verifier,
        resource=API,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(algorithms=proofs),
    )


async def ask(api: ResourceServer, token: str, proof: str) -> VerifiedRequest:
    request = ResourceRequest(
        method="GET",
        raw_path="/notes",
        hosts=("api.example.test",),
        authorization=(f"DPoP {token}",),
        dpop=(proof,),
    )
    return await api.authenticate(request)


def theirs(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A JWS by jwcrypto."""
    signed = jws.JWS(json.dumps(claims).encode())
    signed.allowed_algs = list(POST_QUANTUM_ALGORITHMS)
    signed.add_signature(key, None, json.dumps(header), None)
    return str(signed.serialize(compact=True))


def their_proof(key: Any, name: str, token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return theirs(
        key,
        {"typ": "dpop+jwt", "alg": name, "jwk": json.loads(key.export_public())},
        {
            "jti": "-BwC3ESc6acc2lTc",
            "htm": "GET",
            "htu": f"{API}/notes",
            "iat": int(time.time()),
            "ath": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        },
    )


@every
async def test_a_proof_by_jwcrypto_is_accepted_once(name: str) -> None:
    issuer, key = TestIssuer(ISSUER), jwk.JWK.generate(kty="AKP", alg=name)
    token = issuer.token(jkt=str(key.thumbprint()))
    api = server(issuer.jwks())
    proof = their_proof(key, name, token)
    verified = await ask(api, token, proof)
    assert verified.proof is not None
    assert (verified.proof.algorithm, verified.proof.jkt) == (name, key.thumbprint())
    with pytest.raises(InvalidDPoPProof) as caught:
        await ask(api, token, proof)
    assert caught.value.check is Check.JTI


@every
async def test_a_token_by_jwcrypto_is_accepted(name: str) -> None:
    key, client = jwk.JWK.generate(kty="AKP", alg=name, kid="pq"), DPoPKey.generate()
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": API,
        "sub": "ann",
        "client_id": "c",
        "iat": now,
        "exp": now + 300,
        "jti": "1",
        "cnf": {"jkt": client.jkt},
    }
    token = theirs(key, {"typ": "at+jwt", "alg": name, "kid": "pq"}, claims)
    jwks = {"keys": [json.loads(key.export_public())]}
    api = server(jwks, proofs=("ES256",), tokens=(name,))
    proof = client.proof("GET", f"{API}/notes", access_token=token)
    assert (await ask(api, token, proof)).access_token.subject == "ann"
    forged = token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "AAAAAE")
    with pytest.raises(InvalidToken):
        await ask(api, forged, client.proof("GET", f"{API}/notes", access_token=forged))


@every
def test_jwcrypto_accepts_our_proof_and_thumbprint(name: str) -> None:
    key = DPoPKey.generate(name)
    proof = key.proof("GET", f"{API}/notes", access_token="token")
    public = jwk.JWK(**key.public_jwk)
    judged = jws.JWS()
    judged.allowed_algs = [name]
    judged.deserialize(proof, public)
    assert judged.is_valid
    assert public.thumbprint() == key.jkt


@every
async def test_our_own_client_and_issuer_use_it(name: str) -> None:
    issuer, key = TestIssuer(ISSUER, algorithm=name), DPoPKey.generate(name)
    token = issuer.token(jkt=key.jkt)
    api = server(issuer.jwks())
    assert (await ask(api, token, key.proof("GET", f"{API}/notes", access_token=token))).proof is not None


@every
async def test_it_is_off_unless_named(name: str) -> None:
    issuer, key = TestIssuer(ISSUER), DPoPKey.generate(name)
    token = issuer.token(jkt=key.jkt)
    proof = key.proof("GET", f"{API}/notes", access_token=token)
    with pytest.raises(InvalidDPoPProof) as caught:
        await ask(server(issuer.jwks(), proofs=SUPPORTED_ALGORITHMS), token, proof)
    assert caught.value.check in (Check.ALG, Check.ONE_HEADER)
    others = tuple(other for other in POST_QUANTUM_ALGORITHMS if other != name)
    with pytest.raises(InvalidDPoPProof) as caught:
        await ask(server(issuer.jwks(), proofs=others), token, proof)
    assert caught.value.check is Check.ALG
    post_quantum = TestIssuer(ISSUER, algorithm=name)
    verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=API, jwks=post_quantum.jwks())
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(post_quantum.token())
    assert refused.value.check is Check.TOKEN_ALG


@every
async def test_another_clients_key_is_refused(name: str) -> None:
    issuer, key, thief = TestIssuer(ISSUER), DPoPKey.generate(name), DPoPKey.generate(name)
    token = issuer.token(jkt=key.jkt)
    with pytest.raises(DPoPError) as caught:
        await ask(server(issuer.jwks()), token, thief.proof("GET", f"{API}/notes", access_token=token))
    assert caught.value.check is Check.JKT
    # The victim's header before a signature of the thief's.
    header = key.proof("GET", f"{API}/notes", access_token=token).split(".")[0]
    _, payload, signature = thief.proof("GET", f"{API}/notes", access_token=token).split(".")
    with pytest.raises(DPoPError) as caught:
        await ask(server(issuer.jwks()), token, f"{header}.{payload}.{signature}")
    assert caught.value.check is Check.SIGNATURE


@pytest.mark.parametrize(
    ("proofs", "limit"),
    [
        (SUPPORTED_ALGORITHMS, 8 * 1024),
        (("ES256",), 8 * 1024),
        (("ES256", "ML-DSA-44"), 16 * 1024),
        (POST_QUANTUM_ALGORITHMS, 16 * 1024),
    ],
)
async def test_the_proofs_size_cap_rises_only_then(proofs: tuple[str, ...], limit: int) -> None:
    issuer = TestIssuer(ISSUER)
    api, endpoint = server(issuer.jwks(), proofs=proofs), token_endpoint(proofs)
    token = issuer.token(jkt=DPoPKey.generate().jkt)
    for size, check in ((limit, Check.FORMAT), (limit + 1, Check.ONE_HEADER)):
        proof = f"{'A' * (size - 4)}.A.A"
        with pytest.raises(DPoPError) as caught:
            await ask(api, token, proof)
        assert caught.value.check is check
        with pytest.raises(DPoPError) as caught:
            await endpoint.verify(
                ResourceRequest(method="POST", raw_path="/token", hosts=(), authorization=(), dpop=(proof,))
            )
        assert caught.value.check is check


def token_endpoint(proofs: tuple[str, ...]) -> TokenEndpoint:
    return TokenEndpoint(
        url=f"{ISSUER}/token", replay_store=MemoryReplayStore(), policy=DPoPPolicy(algorithms=proofs)
    )


def test_a_key_of_a_set_is_found_by_its_name() -> None:
    keys = parse_key_set(TestIssuer(algorithm="ML-DSA-65").jwks())
    (key,) = keys.keys
    assert key.algorithms == {"ML-DSA-65"}
