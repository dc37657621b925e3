"""The names and the order of the checks."""

from dpop_middleware.checks import Check


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
