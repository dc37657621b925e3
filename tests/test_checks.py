"""The names and the order of the checks."""

from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check


def test_each_check_has_a_name_of_its_own_in_snake_case() -> None:
    assert len({str(check) for check in Check}) == len(Check)
    for check in Check:
        assert check == check.name.lower()


def test_the_list_is_in_the_order_of_the_checks() -> None:
    order = list(Check)
    steps = [
        Check.AUTHORIZATION, Check.TARGET, Check.ONE_HEADER, Check.TOKEN_FORMAT, Check.TOKEN_TIME,
        Check.BINDING, Check.FORMAT, Check.TYP, Check.CRIT, Check.ALG, Check.JWK, Check.JKT, Check.HTM,
        Check.HTU, Check.ATH, Check.SIGNATURE, Check.IAT, Check.NONCE, Check.JTI, Check.SCOPE,
        Check.AUTHENTICATION,
    ]  # fmt: skip
    assert sorted(steps, key=order.index) == steps


def test_each_kind_of_token_has_its_checks() -> None:
    assert set(Check) - set(CHECKS_OF_A_JWT) == {Check.TOKEN_ACTIVE}
    assert set(Check) - set(CHECKS_OF_AN_OPAQUE_TOKEN) == {
        Check.TOKEN_TYP, Check.TOKEN_ALG, Check.TOKEN_KEY, Check.TOKEN_SIGNATURE
    }  # fmt: skip
    assert len(set(CHECKS_OF_AN_OPAQUE_TOKEN)) == len(CHECKS_OF_AN_OPAQUE_TOKEN)
    order = CHECKS_OF_AN_OPAQUE_TOKEN.index
    steps = [
        Check.TARGET,
        Check.FORMAT,
        Check.NONCE,
        Check.SIGNATURE,
        Check.TOKEN_ACTIVE,
        Check.JKT,
        Check.JTI,
    ]
    assert sorted(steps, key=order) == steps
