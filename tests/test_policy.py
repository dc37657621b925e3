"""The policy of a resource server: checked once, then frozen."""

import dataclasses
import math
from typing import Any

import pytest

from dpop_middleware import DPoPPolicy
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, InvalidDPoPProof
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS, NonceMode
from tests.support.api import NOW, Api


def test_the_defaults_are_as_documented() -> None:
    policy = DPoPPolicy()
    assert policy.algorithms == (
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
        *("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"),
    )
    assert (policy.proof_lifetime, policy.clock_skew) == (60, 30)
    assert policy.accept_bearer is False
    assert policy.nonce == "off"
    assert policy.iat_limit_with_nonce is None


def test_a_policy_is_frozen_and_equal_by_value() -> None:
    policy = DPoPPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.accept_bearer = True  # type: ignore[misc]
    assert policy == DPoPPolicy()
    assert policy != DPoPPolicy(nonce="required")


def test_every_supported_algorithm_is_in_the_closed_table() -> None:
    assert tuple(ALGORITHMS) == (*SUPPORTED_ALGORITHMS, *POST_QUANTUM_ALGORITHMS)


def test_post_quantum_algorithms_must_be_named() -> None:
    assert not set(POST_QUANTUM_ALGORITHMS) & set(DPoPPolicy().algorithms)
    named = DPoPPolicy(algorithms=("ML-DSA-87", "ES256", "ML-DSA-44"))
    assert named.algorithms == ("ES256", "ML-DSA-44", "ML-DSA-87")


def test_an_algorithm_that_cryptography_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpop_middleware.policy.ALGORITHMS", {"ES256": None})
    with pytest.raises(
        ConfigurationError, match="algorithms takes what this build of cryptography has .*, not 'ML-DSA-65'"
    ):
        DPoPPolicy(algorithms=("ES256", "ML-DSA-65"))


def test_a_proof_may_be_fresh_for_a_day_whatever_the_clocks_say() -> None:
    policy = DPoPPolicy(proof_lifetime=86_400, clock_skew=86_400)
    assert (policy.proof_lifetime, policy.clock_skew) == (86_400, 86_400)


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_algorithms_come_in_our_order_each_once(kind: type) -> None:
    assert DPoPPolicy(algorithms=kind(["PS256", "ES256"])).algorithms == ("ES256", "PS256")
    assert DPoPPolicy(algorithms=("ES256", "ES256")).algorithms == ("ES256",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algorithms": "ES256"}, "algorithms takes a sequence"),
        ({"algorithms": None}, "algorithms takes a sequence"),
        ({"algorithms": ()}, "algorithms takes at least one name"),
        ({"algorithms": ("none",)}, "ML-DSA-87, not 'none'"),
        ({"algorithms": ("HS256",)}, "ML-DSA-87, not 'HS256'"),
        ({"algorithms": ("es256",)}, "ML-DSA-87, not 'es256'"),
        ({"algorithms": ([],)}, "ML-DSA-87, not \\[]"),
        ({"proof_lifetime": 0}, "proof_lifetime takes a finite number of seconds, from 1 to 86400, not 0"),
        ({"proof_lifetime": 86_401}, "proof_lifetime takes .*, from 1 to 86400, not 86401"),
        ({"proof_lifetime": 10**9}, "proof_lifetime takes .*, from 1 to 86400, not 1000000000"),
        ({"proof_lifetime": "60"}, "proof_lifetime takes a finite number"),
        ({"proof_lifetime": math.inf}, "proof_lifetime takes a finite number"),
        ({"proof_lifetime": True}, "proof_lifetime takes a finite number"),
        ({"clock_skew": -1}, "clock_skew takes a finite number of seconds, from 0 to 86400, not -1"),
        ({"clock_skew": 86_401}, "clock_skew takes .*, from 0 to 86400, not 86401"),
        ({"clock_skew": math.nan}, "clock_skew takes a finite number"),
        ({"clock_skew": None}, "clock_skew takes a finite number"),
        ({"accept_bearer": 1}, "accept_bearer takes True or False"),
        ({"accept_bearer": "no"}, "accept_bearer takes True or False"),
        ({"nonce": True}, "nonce takes one of 'off', 'required', 'fallback'"),
        ({"nonce": "Required"}, "nonce takes one of"),
        ({"nonce": []}, "nonce takes one of"),
        ({"iat_limit_with_nonce": 0}, "iat_limit_with_nonce takes a finite number of seconds, at least 1"),
        ({"iat_limit_with_nonce": -300}, "iat_limit_with_nonce takes a finite number of seconds, at least 1"),
        ({"iat_limit_with_nonce": math.inf}, "iat_limit_with_nonce takes a finite number"),
        ({"iat_limit_with_nonce": math.nan}, "iat_limit_with_nonce takes a finite number"),
        ({"iat_limit_with_nonce": True}, "iat_limit_with_nonce takes a finite number"),
        ({"iat_limit_with_nonce": "300"}, "iat_limit_with_nonce takes a finite number"),
    ],
)
def test_one_sentence_says_what_to_do(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        DPoPPolicy(**changes)


class TestFAPI2:
    def test_the_preset_has_what_the_sections_ask_for(self) -> None:
        assert DPoPPolicy.fapi2() == DPoPPolicy(
            algorithms=("ES256", "EdDSA", "Ed25519", "PS256"), iat_limit_with_nonce=60
        )
        assert not DPoPPolicy.fapi2().accept_bearer

    def test_the_preset_can_be_made_stricter(self) -> None:
        policy = DPoPPolicy.fapi2(algorithms=("ES256",), clock_skew=10, nonce="required", proof_lifetime=5)
        assert (policy.algorithms, policy.clock_skew) == (("ES256",), 10)
        assert (policy.nonce, policy.proof_lifetime, policy.iat_limit_with_nonce) == ("required", 5, 60)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"algorithms": ("ES256", "RS256")},
                "algorithms takes some of ES256, EdDSA, Ed25519, PS256,",
            ),
            ({"algorithms": ("none",)}, "not 'none'"),
            ({"clock_skew": 9}, "clock_skew takes .* from 10 to 60"),
            ({"clock_skew": 61}, "clock_skew takes .* from 10 to 60"),
            ({"nonce": "maybe"}, "nonce takes"),
            ({"proof_lifetime": 0}, "proof_lifetime takes"),
        ],
    )
    def test_options_outside_the_profile_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            DPoPPolicy.fapi2(**changes)

    @pytest.mark.parametrize("nonce", ["off", "required", "fallback"])
    @pytest.mark.parametrize(
        ("algorithm", "ahead", "passes"),
        [
            ("ES256", 0, True),
            ("EdDSA", 10, True),
            ("Ed25519", -30, True),
            ("PS256", 10, True),
            ("RS256", 0, False),
            ("ES384", 0, False),
            ("ES256", 61, False),
            ("ES256", 600, False),
        ],
    )
    async def test_proofs_are_judged_by_it(
        self, nonce: NonceMode, algorithm: str, ahead: int, passes: bool
    ) -> None:
        policy = DPoPPolicy.fapi2(nonce=nonce)
        options = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
        api = Api(key=DPoPKey.generate(algorithm), **options)
        given = None if nonce == "off" else api.server_nonces.issue(NOW)
        proof = api.proof(at=ahead, nonce=given)
        if passes:
            assert (await api.server.authenticate(api.request(proof))).proof is not None
            return
        with pytest.raises(InvalidDPoPProof) as caught:
            await api.server.authenticate(api.request(proof))
        assert caught.value.check is (Check.IAT if algorithm == "ES256" else Check.ALG)
