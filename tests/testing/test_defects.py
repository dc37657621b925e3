"""Each broken proof has one defect, and the library catches it at the check that it names."""

import json

import jwt
import pytest

from dpop_middleware import DPoPPolicy, MemoryReplayStore, ResourceRequest, ResourceServer, errors
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.testing import BROKEN_PROOFS, TestIssuer, broken_proof

NOW = 1_800_000_000.5
ISSUER = TestIssuer(clock=lambda: NOW)
KEYS = {"ES256": DPoPKey.generate(), "ES384": DPoPKey.generate("ES384"), "EdDSA": DPoPKey.generate("EdDSA"),
        "PS256": DPoPKey.generate("PS256")}  # fmt: skip


def server(policy: DPoPPolicy = DPoPPolicy()) -> ResourceServer:
    return ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.test",
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        policy=policy,
        clock=ISSUER.clock,
    )


def request(token: str, lines: list[tuple[str, str]]) -> ResourceRequest:
    return ResourceRequest(
        method="GET",
        raw_path="/notes",
        hosts=("api.example.test",),
        authorization=(f"DPoP {token}",),
        dpop=tuple(value for _, value in lines),
    )


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("name", BROKEN_PROOFS)
async def test_each_defect_is_caught_by_the_check_that_it_names(name: str, algorithm: str) -> None:
    defect, key, api = BROKEN_PROOFS[name], KEYS[algorithm], server()
    token = ISSUER.token(jkt=key.jkt)
    lines = broken_proof(
        name, key=key, method="GET", url="https://api.example.test/notes?a=b", access_token=token, now=NOW
    )
    for _ in range(defect.presentations - 1):
        await api.authenticate(request(token, lines))
    with pytest.raises(errors.DPoPError) as caught:
        await api.authenticate(request(token, lines))
    assert caught.value.check is defect.check
    assert (caught.value.status, caught.value.code) == (defect.status, defect.error)


@pytest.mark.parametrize("name", [name for name, one in BROKEN_PROOFS.items() if not one.needs_token])
async def test_each_defect_is_caught_at_a_token_endpoint_too(name: str) -> None:
    defect, url = BROKEN_PROOFS[name], "https://auth.example.test/token"
    endpoint = TokenEndpoint(url=url, replay_store=MemoryReplayStore(), clock=ISSUER.clock)
    lines = broken_proof(name, key=KEYS["ES256"], method="POST", url=url, now=NOW)
    asked = ResourceRequest(
        method="POST", raw_path="/token", hosts=(), authorization=(), dpop=tuple(value for _, value in lines)
    )
    for _ in range(defect.presentations - 1):
        await endpoint.verify(asked)
    with pytest.raises(errors.DPoPError) as caught:
        await endpoint.verify(asked)
    answer = endpoint.error_response(caught.value)
    assert caught.value.check is defect.check
    assert (answer.status, json.loads(answer.body)["error"]) == (400, defect.error)


@pytest.mark.parametrize("name", BROKEN_PROOFS)
def test_a_proof_for_a_token_endpoint_has_no_ath(name: str) -> None:
    lines = broken_proof(name, key=KEYS["ES256"], method="POST", url="https://auth.example.test/token")
    assert len(lines) == {"no_proof": 0, "two_headers": 2}.get(name, 1)
    assert {header for header, _ in lines} <= {"DPoP"}
    if name == "expired":
        claims = jwt.decode(lines[0][1], options={"verify_signature": False})
        assert set(claims) == {"jti", "htm", "htu", "iat"}


def test_a_broken_proof_has_the_nonce() -> None:
    ((_, proof),) = broken_proof("typ_jwt", key=KEYS["ES256"], method="GET", url="https://h/", nonce="n")
    assert jwt.decode(proof, options={"verify_signature": False})["nonce"] == "n"


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        broken_proof("perfect", key=KEYS["ES256"], method="GET", url="https://h/")


def test_the_padded_proof_is_otherwise_valid_whatever_its_length() -> None:
    for nonce in ("a", "ab", "abc"):
        ((_, proof),) = broken_proof("padded", key=KEYS["ES256"], method="GET", url="https://h/", nonce=nonce)
        assert proof.split(".")[1].endswith("=")


def test_each_defect_is_listed_under_its_own_name() -> None:
    assert len(BROKEN_PROOFS) >= 30
    assert all(name == defect.name for name, defect in BROKEN_PROOFS.items())
    assert "HS256" not in SUPPORTED_ALGORITHMS
