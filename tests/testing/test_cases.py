"""The cases of the conformance suite: which there are, what each sends, and what must come back."""

from dpop_middleware.testing import BROKEN_PROOFS
from dpop_middleware.testing.cases import CASES

NAMED = {case.name: case for case in CASES}


def test_the_suite_has_a_case_for_every_defect() -> None:
    assert set(BROKEN_PROOFS) <= set(NAMED)
    assert len(NAMED) == len(CASES) >= 50
