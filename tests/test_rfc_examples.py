"""The RFCs' own examples, and one that is wrong: judged by the real server."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware import AccessToken, MemoryReplayStore, ResourceRequest, ResourceServer
from dpop_middleware._proof.proof import (
    check_htm,
    check_htu,
    check_signature,
    parse_claims,
    parse_header,
    split_proof,
)
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidDPoPProof
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.jose.jwk import thumbprint
from dpop_middleware.policy import SUPPORTED_ALGORITHMS

EXAMPLES = json.loads((Path(__file__).parent / "vectors" / "rfc9449_examples.json").read_text())
RESOURCE: dict[str, Any] = EXAMPLES["resource_request"]


class OneToken:
    """Knows the example's opaque token, and what its introspection would say (RFC 9449 section 6.2)."""

    issuers = ("https://server.example.com",)

    def __init__(self, token: str, jkt: str) -> None:
        self.token, self.jkt = token, jkt

    async def verify(self, token: str) -> AccessToken:
        assert token == self.token
        return AccessToken(
            claims={"sub": "someone@example.com", "cnf": {"jkt": self.jkt}},
            issuer=self.issuers[0],
            subject="someone@example.com",
            client_id="example",
            scopes=frozenset(),
            expires_at=RESOURCE["now"] + 3600,
            jkt=self.jkt,
        )


def server(
    resource: str, token: str, jkt: str, *, now: float, events: list[AuthenticationEvent]
) -> ResourceServer:
    return ResourceServer(
        verifier=OneToken(token, jkt),
        resource=resource,
        replay_store=MemoryReplayStore(),
        clock=lambda: now,
        on_event=events.append,
    )


def asked(method: str, path: str, token: str, proof: str) -> ResourceRequest:
    return ResourceRequest.from_scope(
        {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": [(b"authorization", b"DPoP " + token.encode()), (b"dpop", proof.encode())],
        }
    )


async def judge(now: float, events: list[AuthenticationEvent], **changes: Any) -> Any:
    example = RESOURCE | changes
    api = server(
        "https://resource.example.org", example["access_token"], example["jkt"], now=now, events=events
    )
    request = asked(example["htm"], "/protectedresource", example["access_token"], example["proof"])
    first = await api.authenticate(request)
    with pytest.raises(InvalidDPoPProof) as caught:
        await api.authenticate(request)
    assert caught.value.check is Check.JTI
    return first


async def test_the_resource_request_of_rfc_9449_section_7_1_is_accepted_once() -> None:
    events: list[AuthenticationEvent] = []
    verified = await judge(RESOURCE["now"], events)
    assert verified.proof.jkt == RESOURCE["jkt"]
    assert verified.proof.ath == RESOURCE["ath"]
    assert verified.proof.jti == "e1j3V_bKic8-LAEB"
    assert (verified.proof.htu, verified.proof.iat) == (RESOURCE["htu"], RESOURCE["now"])
    assert [event.outcome for event in events] == ["accepted", "refused"]


@pytest.mark.parametrize(("later", "accepted"), [(-31, False), (-30, True), (90, True), (91, False)])
async def test_it_is_fresh_for_a_while(later: float, accepted: bool) -> None:
    if accepted:
        await judge(RESOURCE["now"] + later, [])
        return
    with pytest.raises(InvalidDPoPProof) as caught:
        await judge(RESOURCE["now"] + later, [])
    assert caught.value.check is Check.IAT


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"jkt": "0" * 43}, Check.JKT),
        ({"htm": "POST"}, Check.HTM),
        ({"access_token": "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxV"}, Check.ATH),
        ({"proof": RESOURCE["proof"][:-4] + "AAAA"}, Check.SIGNATURE),
    ],
)
async def test_it_is_valid_for_nothing_else(changes: dict[str, Any], check: Check) -> None:
    with pytest.raises(DPoPError) as caught:
        await judge(RESOURCE["now"], [], **changes)
    assert caught.value.check is check


def test_ath_is_the_hash_of_the_examples_token() -> None:
    digest = hashlib.sha256(RESOURCE["access_token"].encode("ascii")).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == RESOURCE["ath"]


def test_the_key_of_the_token_request_in_section_5_is_the_one_of_section_6() -> None:
    example = EXAMPLES["token_request"]
    jwk = {"kty": "EC", "crv": "P-256", "x": example["jwk_x"], "y": example["jwk_y"]}
    assert thumbprint(jwk) == RESOURCE["jkt"]


def test_the_examples_proof_passes_each_check() -> None:
    jws = split_proof(RESOURCE["proof"])
    header = parse_header(jws.header, SUPPORTED_ALGORITHMS)
    proof = parse_claims(jws.payload, header)
    check_htm(proof, "GET")
    check_htu(proof, RESOURCE["htu"])
    check_signature(jws, header)
    assert header.jkt == RESOURCE["jkt"]


def test_the_thumbprint_is_that_of_rfc_7638_section_3_1() -> None:
    example = EXAMPLES["rfc7638"]
    assert thumbprint(example["jwk"]) == example["thumbprint"]


# A sample flow whose key is not a point of its curve, and whose jkt is not that of its key.
SAMPLE_JWK = {
    "kty": "EC",
    "x": "l8BFdamQrm6UmuEPY6r1qyJDlb3Ut3jXWiuKn4-GR3A",
    "y": "_eKPsI_use_2fkzDjhhqq8qVe_2oVvIo5jLQ3Mh41uM",
    "crv": "P-256",
}
SAMPLE_CLAIMS = {
    "jti": "-BwC0eAMZea5GpZD",
    "htm": "POST",
    "htu": "https://auth.example.com/token",
    "iat": 1562262616,
}
SAMPLE_JKT = "0Zhm7PMUXy83vmvouFfHFa2tYqMwYUh7iCpVXjRo6Sc"


def segment(members: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(members, separators=(",", ":")).encode()).rstrip(b"=").decode()


def test_the_sample_is_spelled_as_it_was_published() -> None:
    header = segment({"typ": "dpop+jwt", "alg": "ES256", "jwk": SAMPLE_JWK})
    assert header.startswith(
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4QkZk"
    )
    assert segment(SAMPLE_CLAIMS).startswith("eyJqdGkiOiItQndDMGVBTVplYTVHcFpEIiwiaHRtIjoiUE9TVCIsImh0dSI6")


def test_the_sample_key_is_not_on_the_curve() -> None:
    x, y = (int.from_bytes(base64.urlsafe_b64decode(SAMPLE_JWK[name] + "="), "big") for name in ("x", "y"))
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    assert (y * y - (x**3 - 3 * x + b)) % p != 0
    assert thumbprint(SAMPLE_JWK) != SAMPLE_JKT


@pytest.mark.parametrize("jkt", [SAMPLE_JKT, thumbprint(SAMPLE_JWK)])
async def test_the_sample_is_refused_for_its_key_and_the_log_says_why(jkt: str) -> None:
    events: list[AuthenticationEvent] = []
    api = server("https://auth.example.com", "token", jkt, now=1562262616, events=events)
    ath = base64.urlsafe_b64encode(hashlib.sha256(b"token").digest()).rstrip(b"=").decode()
    header = segment({"typ": "dpop+jwt", "alg": "ES256", "jwk": SAMPLE_JWK})
    proof = f"{header}.{segment(SAMPLE_CLAIMS | {'ath': ath})}.{'A' * 86}"
    with pytest.raises(InvalidDPoPProof) as caught:
        await api.authenticate(asked("POST", "/token", "token", proof))
    assert caught.value.check is Check.JWK
    assert caught.value.description == "the jwk of the DPoP proof is not an acceptable public key"
    assert events[0].actual == "the JWK is not a point on its curve"
    assert api.error_response(caught.value).status == 401
