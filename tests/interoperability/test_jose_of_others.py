"""Tokens and proofs of other JOSE libraries, judged by this one; its own, judged by others."""

import hashlib
import time
import uuid
from typing import Any

import pytest
import requests_oauth2client

from dpop_middleware import JWTAccessTokenVerifier, MemoryReplayStore, ResourceRequest, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidDPoPProof, InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.testing import TestIssuer
from tests.support.clients import key_for
from tests.support.jose_libraries import LIBRARIES, LibraryKey, library_key
from tests.support.node import NodePeer

ISSUER = "https://auth.example.com"
RESOURCE = "https://api.example.com"
URL = f"{RESOURCE}/notes/a%2Fb"

# joserfc warns of every EdDSA, whose name RFC 9864 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

each_signer = pytest.mark.parametrize(
    ("library", "algorithm"),
    [
        (library, algorithm)
        for library in LIBRARIES
        for algorithm in SUPPORTED_ALGORITHMS
        if library == "joserfc" or algorithm != "Ed25519"
    ],
)
each_algorithm = pytest.mark.parametrize("algorithm", SUPPORTED_ALGORITHMS)


def token_claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": RESOURCE, "sub": "ann", "client_id": "app", "scope": "notes:read"}
    return usual | {"iat": now, "exp": now + 300, "jti": str(uuid.uuid4())} | more


def token_of(key: LibraryKey, **more: Any) -> str:
    return key.sign({"typ": "at+jwt", "kid": "its key"}, token_claims(**more))


def key_set(key: LibraryKey) -> dict[str, Any]:
    return {"keys": [key.public_jwk | {"kid": "its key"}]}


def proof_of(key: LibraryKey, token: str, **more: Any) -> str:
    ath = base64url.encode(hashlib.sha256(token.encode()).digest())
    claims = {"jti": str(uuid.uuid4()), "htm": "GET", "htu": URL, "iat": int(time.time()), "ath": ath}
    return key.sign({"typ": "dpop+jwt", "jwk": key.public_jwk}, claims | more)


def forged(jws: str) -> str:
    """Return `jws` with other claims, and the signature of the first ones."""
    header, payload, signature = jws.split(".")
    changed = base64url.decode(payload).replace(b'"jti"', b'"JTI"') + b" "
    return ".".join((header, base64url.encode(changed), signature))


@each_signer
class TestTheirs:
    async def test_their_access_token_is_accepted_and_a_forged_one_refused(
        self, library: str, algorithm: str
    ) -> None:
        key = library_key(library, algorithm)
        verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=key_set(key))
        token = token_of(key, cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
        verified = await verifier.verify(token)
        assert (verified.subject, verified.client_id) == ("ann", "app")
        assert verified.scopes == {"notes:read"}
        assert verified.jkt == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        with pytest.raises(InvalidToken, match="signature is wrong"):
            await verifier.verify(forged(token))

    async def test_their_proof_is_accepted_and_one_for_another_method_refused(
        self, library: str, algorithm: str
    ) -> None:
        issuer, key = library_key(library, algorithm), library_key(library, algorithm, number=2)
        api = ResourceServer(
            issuer=ISSUER, jwks=key_set(issuer), resource=RESOURCE, replay_store=MemoryReplayStore()
        )
        # Its own thumbprint of its own key: ours must be the same.
        token = token_of(issuer, cnf={"jkt": key.jkt})

        def request(proof: str) -> ResourceRequest:
            return ResourceRequest(
                method="GET",
                raw_path="/notes/a%2Fb",
                hosts=("api.example.com",),
                authorization=(f"DPoP {token}",),
                dpop=(proof,),
            )

        verified = await api.authenticate(request(proof_of(key, token)))
        assert verified.proof is not None
        assert (verified.proof.jkt, verified.proof.algorithm) == (key.jkt, algorithm)
        with pytest.raises(InvalidDPoPProof, match="method"):
            await api.authenticate(request(proof_of(key, token, htm="POST")))


@each_algorithm
class TestOurs:
    def test_requests_oauth2client_accepts_our_proof(self, algorithm: str) -> None:
        if algorithm == "Ed25519":
            pytest.skip("it knows the algorithm by its older name, EdDSA, only")
        proof = key_for(algorithm).proof("GET", URL, access_token="token", nonce="nonce")
        ath = base64url.encode(hashlib.sha256(b"token").digest())
        judged = requests_oauth2client.validate_dpop_proof(
            proof, htm="GET", htu=URL, ath=ath, nonce="nonce", algs=[algorithm]
        )
        assert (judged.alg, judged.claims["ath"]) == (algorithm, ath)

    @pytest.mark.slow
    def test_oauth4webapi_accepts_our_token_and_proof(self, algorithm: str, node: NodePeer) -> None:
        issuer, key = TestIssuer(audience=RESOURCE, algorithm=algorithm), key_for(algorithm)
        token = issuer.token(sub="ann", jkt=key.jkt)

        def judge(proof: str) -> dict[str, Any]:
            asked = {"audience": RESOURCE, "url": f"{URL}?q=1", "token": token, "algorithm": algorithm}
            claims: dict[str, Any] = node.ask(
                "judge", issuer=issuer.issuer, jwks=issuer.jwks(), method="GET", proof=proof, **asked
            )
            return claims

        assert judge(key.proof("GET", f"{URL}?q=1", access_token=token))["sub"] == "ann"
        with pytest.raises(AssertionError, match="htm mismatch"):
            judge(key.proof("POST", f"{URL}?q=1", access_token=token))
        with pytest.raises(AssertionError, match="confirmation mismatch"):
            judge(DPoPKey.generate(algorithm).proof("GET", URL, access_token=token))


@pytest.mark.slow
@each_algorithm
async def test_an_access_token_of_npm_jose_is_accepted(algorithm: str, node: NodePeer) -> None:
    signed = node.ask("sign", algorithm=algorithm, claims=token_claims())
    verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=signed["jwks"])
    assert (await verifier.verify(signed["token"])).subject == "ann"
    with pytest.raises(InvalidToken, match="signature is wrong"):
        await verifier.verify(forged(signed["token"]))
