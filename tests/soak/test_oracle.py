import itertools

import pytest

from tests.soak.oracle import Kind, Oracle, Proof, Verdict

ACCEPTED = Verdict(200)
USED = Verdict(401, "invalid_dpop_proof", "the DPoP proof was used before")
STALE = Verdict(401, "invalid_dpop_proof", "the iat of the DPoP proof is not recent")
SILENT = Verdict(503, "", "the replay store did not answer")
LOST = Verdict(503, "", "the replay store lost entries: a newer proof is needed")
NEWER = Verdict(401, "use_dpop_nonce", "the replay store lost entries: a newer nonce is needed")
NEEDED = Verdict(401, "use_dpop_nonce", "the DPoP proof needs a nonce")


def proof(jti: str = "a") -> Proof:
    return Proof("jkt", jti, "plain", "token", "proof", 0.0, by_nonce=False)


def judged(*verdicts: Verdict) -> Oracle:
    """The oracle's findings for one proof with these answers, one after the other."""
    oracle, one = Oracle(), proof()
    for verdict, now in zip(verdicts, itertools.count()):
        presentation = oracle.presents(one, 0, now)
        oracle.answered(one, presentation, verdict, now + 0.5)
    return oracle


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (ACCEPTED, Kind.ACCEPTED),
        (USED, Kind.USED),
        (STALE, Kind.REFUSED),
        (SILENT, Kind.UNAVAILABLE),
        (LOST, Kind.LOST),
        (NEWER, Kind.LOST_NONCE),
        (NEEDED, Kind.NONCE),
        (Verdict(503, "", "the replay store evicts entries"), Kind.EVICTS),
        (Verdict(503, "", "other servers no longer remember proofs of that age"), Kind.FORGOTTEN),
        (Verdict(500), Kind.OTHER),
    ],
)
def test_an_answer_is_told_by_its_status_and_its_description(verdict: Verdict, kind: Kind) -> None:
    assert verdict.kind is kind
    assert judged(verdict).kinds == {kind: 1}


def test_a_proof_that_is_accepted_again_is_found() -> None:
    assert judged(ACCEPTED, USED, SILENT).twice == []
    (finding,) = judged(ACCEPTED, USED, ACCEPTED).twice
    assert finding.what == "accepted twice"
    assert [one.sent for one in finding.proof.acceptances] == [0, 2]
    assert finding.presentation.sent == 2


@pytest.mark.parametrize("before", [(), (STALE,), (NEEDED, STALE)])
def test_a_proof_that_was_never_written_down_is_not_used(before: tuple[Verdict, ...]) -> None:
    assert len(judged(*before, USED).false_replays) == 1


@pytest.mark.parametrize("before", [ACCEPTED, SILENT, LOST, NEWER])
def test_a_proof_that_somebody_may_have_written_down_may_be_called_used(before: Verdict) -> None:
    oracle = judged(before, USED)
    assert oracle.false_replays == []
    assert oracle.used_unaccepted == (before is not ACCEPTED)


def test_of_two_at_once_either_may_be_used() -> None:
    oracle, one = Oracle(), proof()
    first, second = oracle.presents(one, 0, 0), oracle.presents(one, 1, 0)
    oracle.answered(one, second, USED, 1)
    oracle.answered(one, first, ACCEPTED, 2)
    assert (oracle.false_replays, oracle.twice) == ([], [])


def test_a_proof_that_got_no_answer_may_have_been_written_down() -> None:
    oracle, one = Oracle(), proof()
    oracle.presents(one, 0, 0)
    oracle.answered(one, oracle.presents(one, 1, 1), USED, 2)
    assert oracle.false_replays == []


def test_two_proofs_are_two() -> None:
    oracle = Oracle()
    for one in (proof("a"), proof("b")):
        oracle.answered(one, oracle.presents(one, 0, 0), ACCEPTED, 1)
    assert (oracle.twice, oracle.proofs, oracle.requests) == ([], 2, 2)
