"""Nonces count only when they are well-formed, and a refused proof is told apart from other refusals."""

import pytest

from dpop_middleware.client.proofs import is_refused_for, one_nonce


@pytest.mark.parametrize(
    ("fields", "nonce"),
    [
        (["eyJ7S_zG.eyJH0-Z.HX4w-7v"], "eyJ7S_zG.eyJH0-Z.HX4w-7v"),
        ([" a\t"], "a"),
        (["a", "a"], "a"),
        (["!#[]~"], "!#[]~"),
        (["x" * 2048], "x" * 2048),
        ([], None),
        ([""], None),
        (["a", "b"], None),
        (["a b"], None),
        (['a"b'], None),
        (["a\\b"], None),
        (["a\x7f"], None),
        (["ä"], None),
        (["x" * 2049], None),
    ],
)
def test_exactly_one_well_formed_nonce_is_accepted(fields: list[str], nonce: str | None) -> None:
    assert one_nonce(fields) == nonce


@pytest.mark.parametrize(
    ("challenges", "body", "demanded"),
    [
        (['DPoP error="use_dpop_nonce", error_description="Resource server requires nonce"'], None, True),
        (["dpop realm=x, error=use_dpop_nonce"], None, True),
        (["Bearer", 'DPoP algs="ES256", error = "use_dpop_nonce"'], None, True),
        (['Bearer realm="x", DPoP error="use_dpop_nonce"'], None, True),
        ([], {"error": "use_dpop_nonce"}, True),
        ([], None, False),
        (["DPoP"], None, False),
        (['DPoP error="invalid_token"'], {"error": "invalid_token"}, False),
        (['Bearer error="use_dpop_nonce"'], None, False),
        (['DPoP error="use_dpop_nonces"'], None, False),
        (['DPoP realm="a, b", error="use_dpop_nonce"'], None, True),
        (['Bearer error="use_dpop_nonce", DPoP'], None, False),
        # A search that backtracks for each of these takes minutes.
        (["DPoP " * 200_000], None, False),
        (["DPoP " + "error=" * 200_000], None, False),
        ([], ["use_dpop_nonce"], False),
        ([], {"error": ["use_dpop_nonce"]}, False),
    ],
)
def test_the_nonce_demand_of_both_kinds_of_server_is_recognised(
    challenges: list[str], body: object, demanded: bool
) -> None:
    assert is_refused_for("use_dpop_nonce", challenges, body) is demanded


@pytest.mark.parametrize(
    ("challenges", "body", "refused"),
    [
        (['DPoP error="invalid_dpop_proof"'], None, True),
        ([], {"error": "invalid_dpop_proof"}, True),
        (['DPoP error="use_dpop_nonce"'], {"error": "use_dpop_nonce"}, False),
    ],
)
def test_a_refused_proof_differs_from_a_nonce_demand(
    challenges: list[str], body: object, refused: bool
) -> None:
    assert is_refused_for("invalid_dpop_proof", challenges, body) is refused
