"""The part of a verdict that a token endpoint shares."""

from dpop_middleware import DPoPPolicy
from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware._proof.verification import Presentation, ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware.replay.store import ReplayKeyspace
from tests.support.api import NOW, Api, request

HOUR = 3600


async def test_where_no_token_is_presented_no_hash_of_one_is_asked_for() -> None:
    api = Api()
    part = ProofVerification(
        store=api.store,
        keyspace=ReplayKeyspace("token endpoint"),
        public_urls=PublicURLs("https://auth.example.test", insecure_http_hosts=()),
        nonces=None,
    )
    jws = split_proof(api.key.proof("POST", "https://auth.example.test/token", now=NOW + HOUR))
    policy = DPoPPolicy(clock_skew=2 * HOUR)
    presented = Presentation(
        request=request(method="POST", raw_path="/token"),
        ath=None,
        policy=policy,
        policies=(policy,),
        now=NOW,
    )
    judged = part.judge(jws, parse_header(jws.header, policy.algorithms), presented)
    await part.mark_as_used(judged, policy)
    assert (judged.proof.ath, judged.nonce) == (None, None)
    assert api.store.entries[0].expires_at == NOW + HOUR + 60 + 2 * HOUR + 5
