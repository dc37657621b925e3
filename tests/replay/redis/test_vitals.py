import dataclasses
import math
from typing import Any

import pytest

from dpop_middleware.replay.redis.resp import TIME, ServerError
from dpop_middleware.replay.redis.vitals import (
    ServerChanged,
    ServerInfo,
    VitalSigns,
    identity_of,
    parse_info,
    watched,
)
from tests.support.valkey import Server

NOW = 1_800_000_000.0

VALKEY = b"""# Server\r
redis_version:7.2.4\r
server_name:valkey\r
valkey_version:9.1.2\r
run_id:e2040fdf216b972abcf286a956062ab5e95f35ab\r
server_time_usec:1795372729571769\r
uptime_in_seconds:17\r
\r
# Memory\r
maxmemory_policy:allkeys-lru\r
loading:0\r
evicted_keys:3\r
role:master\r
master_replid:c067f6f0204d0259d110634c4a901cfe07bc4275\r
master_replid2:0000000000000000000000000000000000000000\r
# Commandstats\r
cmdstat_set:calls=1,usec=2\r
cmdstat_flushall:calls=1,usec=2\r
cmdstat_config|resetstat:calls=1,usec=28\r
cmdstat_config|get:calls=1,usec=28\r
"""


def test_the_report_of_a_server_is_read() -> None:
    info = parse_info(VALKEY)
    assert info == ServerInfo(
        software="valkey",
        version="9.1.2",
        run_id="e2040fdf216b972abcf286a956062ab5e95f35ab",
        replication_id="c067f6f0204d0259d110634c4a901cfe07bc4275",
        role="master",
        loading=False,
        uptime=17,
        time=1795372729.571769,
        maxmemory_policy="allkeys-lru",
        evicted_keys=3,
        former_replication_id="0" * 40,
        rewriting_commands=frozenset({"flushall", "config|resetstat"}),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\r\n:::\r\n",
        b"uptime_in_seconds:long\r\nevicted_keys:many\r\n",
        b"uptime_in_seconds:" + b"9" * 400 + b"\r\nserver_time_usec:" + b"9" * 5000,
        b"redis_version:" + b"9" * 5000 + b".0\r\n",
        b"role:\x1b[2Jmaster\r\nmaxmemory_policy:\xc3\xa9\r\n",
    ],
)
def test_values_that_a_server_does_not_report_stay_empty(text: bytes) -> None:
    assert parse_info(text) == ServerInfo(software="redis")


def test_the_version_of_another_software_without_its_own_is_that_of_the_redis_it_is_like() -> None:
    info = parse_info(b"server_name:other\r\nredis_version:7.2.4\r\n")
    assert (info.software, info.version) == ("other", "7.2.4")


@pytest.mark.parametrize(
    "name",
    ["cluster|reset", "config|resetstat", "debug", "flushall", "flushdb", "replicaof", "slaveof", "swapdb"],
)
def test_a_command_after_which_entries_may_be_lost_is_reported(name: str) -> None:
    counted = f"cmdstat_{name}:calls=1,usec=2\r\n".encode()
    info = parse_info(counted + b"cmdstat_set:calls=1,usec=2\r\n")
    assert (info.rewriting_commands, info.was_flushed) == (frozenset({name}), name in {"flushall", "flushdb"})


def test_a_promoted_replica_differs_from_an_original_master() -> None:
    assert parse_info(b"master_replid2:" + b"a" * 40).was_replica


@pytest.mark.parametrize(
    ("software", "version", "answers"),
    [
        ("redis", "7.0.15", True),
        ("redis", "8.2", True),
        ("redis", "10.0", True),
        ("redis", "6.2.14", False),
        ("redis", "5.0", False),
        ("redis", "", True),
        ("redis", "edge", True),
        ("valkey", "9.1.2", True),
    ],
)
def test_set_with_get_is_known_since_7(software: str, version: str, answers: bool) -> None:
    assert ServerInfo(software=software, version=version).answers_set_with_get is answers


def test_a_real_server_reports_all_values(server: Server) -> None:
    info = parse_info(_raw_info(server))
    assert info.software == server.implementation
    assert info.role == "master"
    assert len(info.run_id) == len(info.replication_id) == 40
    assert info.uptime is not None
    assert info.time is not None
    assert info.maxmemory_policy == "noeviction"
    assert not info.was_replica
    assert not info.rewriting_commands
    for name, words in (
        ("flushdb", ("FLUSHDB",)),
        ("flushall", ("FLUSHALL",)),
        ("swapdb", ("SWAPDB", 0, 1)),
        ("config|resetstat", ("CONFIG", "RESETSTAT")),
    ):
        server.raw("CONFIG", "RESETSTAT")
        server.raw(*words)
        assert name in parse_info(_raw_info(server)).rewriting_commands


def test_a_real_server_reports_a_flush_also_when_it_is_asked_again(server: Server) -> None:
    signs, at = VitalSigns(heeds_evictions=True), 0.0
    signs.connected(parse_info(_raw_info(server)), lived=0, asked=(at, at))
    assert signs.info is not None
    signs.rely_on(signs.info)
    server.raw("FLUSHALL")
    _, *words = signs.look(at + 0.1).split(b"\r\n")[2::2]
    signs.told(server.raw("INFO", *words), at + 0.2)
    assert signs.info.was_flushed
    assert signs.has_lost


def _raw_info(server: Server) -> bytes:
    reply = server.raw("INFO", "all")
    assert isinstance(reply, bytes)
    return reply


MASTER = ServerInfo(run_id="a", replication_id="a", role="master", uptime=100, time=NOW, evicted_keys=3)


def test_workers_of_all_versions_know_data_by_the_same_identity() -> None:
    assert identity_of(ServerInfo(run_id="a", replication_id="b")) == b"a4da319cf1b8.7a8365cf6b28"


def test_a_server_that_refuses_its_time_is_asked_again_on_another_connection() -> None:
    signs = VitalSigns(heeds_evictions=True)
    assert signs.time() == b""
    signs.connected(MASTER, lived=0, asked=(NOW, NOW))
    with pytest.raises(ServerError, match="NOPERM"):
        signs.timed(ServerError("NOPERM this user has no permissions to run it"), sent=NOW, at=NOW)
    assert signs.time() == b""
    signs.connected(MASTER, lived=0, asked=(NOW, NOW))
    assert signs.time() == TIME


def looked(then: ServerInfo, *, after: float, heeds_evictions: bool = True) -> VitalSigns:
    """The vital signs of a server that reported at `NOW`, and `after` seconds later."""
    signs = VitalSigns(heeds_evictions=heeds_evictions)
    signs.connected(MASTER, lived=0, asked=(NOW, NOW))
    assert signs.look(NOW + after)
    signs.looked(then, NOW + after)
    return signs


@pytest.mark.parametrize(
    ("changes", "loses"),
    [
        ({"time": NOW + 10}, False),
        ({"time": NOW + 11.9}, False),
        ({"time": NOW + 12}, True),
        ({"time": NOW - 100}, False),
        ({"time": None}, False),
        ({"time": NOW + 10, "evicted_keys": 4}, True),
        ({"time": NOW + 10, "evicted_keys": 0}, False),
    ],
)
def test_a_clock_that_steps_forward_and_an_eviction_lose_entries(
    changes: dict[str, Any], loses: bool
) -> None:
    signs = looked(dataclasses.replace(MASTER, **changes), after=10)
    assert signs.has_lost is loses
    assert signs.lost_at == (NOW + 10 if loses else -math.inf)
    assert signs.is_evicting is (changes.get("evicted_keys") == 4)


@pytest.mark.parametrize(
    ("replaced_by", "evicts"),
    [
        ({"run_id": "b", "replication_id": "b", "former_replication_id": "a"}, False),
        ({"run_id": "b", "replication_id": "b"}, True),
        ({"evicted_keys": 4, "former_replication_id": "c"}, True),
    ],
    ids=["promoted", "restarted", "the same"],
)
def test_what_a_promoted_replica_has_evicted_is_lost_but_no_reason_to_warn(
    replaced_by: dict[str, Any], evicts: bool
) -> None:
    signs = looked(MASTER, after=10)
    signs.connected(dataclasses.replace(MASTER, **replaced_by), lived=0, asked=(NOW + 20, NOW + 20))
    assert (signs.has_lost, signs.is_evicting) == (True, evicts)


@pytest.mark.parametrize(
    ("before", "after", "relies", "loses"),
    [
        ((), ("flushall",), True, True),
        (("flushall",), ("flushall", "flushdb"), True, True),
        (("flushall",), ("flushall",), True, False),
        # Where nothing relies on that, only the anchors count: another database of the server may be flushed.
        ((), ("flushdb",), False, False),
    ],
)
def test_a_flush_loses_entries_where_an_earlier_report_was_relied_on(
    before: tuple[str, ...], after: tuple[str, ...], relies: bool, loses: bool
) -> None:
    first, second = (
        dataclasses.replace(MASTER, rewriting_commands=frozenset(names)) for names in (before, after)
    )
    signs = VitalSigns(heeds_evictions=True)
    signs.connected(first, lived=0, asked=(NOW, NOW))
    if relies:
        signs.rely_on(first)
        assert signs.look(NOW), "it is asked at once"
    signs.looked(dataclasses.replace(second, time=NOW + 1), NOW + 1)
    assert signs.has_lost is loses
    signs.has_lost = False
    signs.looked(dataclasses.replace(second, time=NOW + 2), NOW + 2)
    assert not signs.has_lost, "once"


def test_a_report_without_its_commands_hides_no_earlier_flush() -> None:
    flushed = dataclasses.replace(MASTER, rewriting_commands=frozenset({"flushall"}))
    signs = VitalSigns(heeds_evictions=True)
    signs.connected(flushed, lived=0, asked=(NOW, NOW))
    signs.looked(dataclasses.replace(MASTER, time=NOW + 2, uptime=102), NOW + 2)
    assert signs.info is not None
    assert (signs.info.was_flushed, signs.info.uptime) == (True, 102)


def test_evictions_that_were_accepted_lose_nothing() -> None:
    signs = looked(
        dataclasses.replace(MASTER, time=NOW + 10, evicted_keys=4), after=10, heeds_evictions=False
    )
    assert not signs.has_lost


@pytest.mark.parametrize("changes", [{"role": "slave"}, {"replication_id": "b"}, {"run_id": "b"}])
def test_other_data_or_another_role_mean_that_the_server_changed(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(ServerChanged):
        looked(dataclasses.replace(MASTER, **changes), after=10)


@pytest.mark.parametrize(
    ("text", "can_be_watched"),
    [
        (b"", False),
        (b"run_id:a", False),
        (b"uptime_in_seconds:1", False),
        (b"run_id:a\nuptime_in_seconds:0", True),
        # Its clock was set back to before its start.
        (b"run_id:a\nuptime_in_seconds:-16", True),
    ],
)
def test_a_server_is_watched_by_its_run_id_and_uptime(text: bytes, can_be_watched: bool) -> None:
    assert parse_info(text).can_be_watched is can_be_watched


@pytest.mark.parametrize(
    "info", [None, ServerInfo(role="master", run_id="a"), ServerInfo(role="master", uptime=3)]
)
def test_a_server_that_does_not_report_which_it_is_counts_as_a_master_that_tells_nothing(
    info: ServerInfo | None,
) -> None:
    found = watched(info)
    assert (found.role, found.can_be_watched, found.is_told) == ("master", True, False)
    assert watched(MASTER) is MASTER


def test_a_server_whose_clock_was_set_back_to_before_its_start_has_just_started() -> None:
    assert parse_info(b"run_id:a\nuptime_in_seconds:-16") == parse_info(b"run_id:a\nuptime_in_seconds:0")


@pytest.mark.parametrize(
    ("info", "never_tells"),
    [(None, True), (watched(None), True), (MASTER, False)],
    ids=["none", "odd", "one"],
)
def test_nobody_waits_for_the_report_of_a_server_that_never_reports(
    info: ServerInfo | None, never_tells: bool
) -> None:
    signs = VitalSigns(heeds_evictions=True)
    signs.connected(info, lived=0, asked=(NOW, NOW))
    assert signs.has_told_since(NOW + 1) is never_tells


def test_only_a_master_has_data_to_move() -> None:
    for role, has in (("master", True), ("slave", False)):
        signs = VitalSigns(heeds_evictions=True)
        info = dataclasses.replace(MASTER, role=role)
        signs.connected(info, lived=0, asked=(NOW, NOW))
        assert signs.still_has(identity_of(info), ahead=-math.inf) is has


@pytest.mark.parametrize(("ahead", "has"), [(0.0, True), (1.0, True), (1.1, False), (-math.inf, True)])
def test_data_that_a_server_moves_to_one_whose_clock_is_ahead_are_not_all_there(
    ahead: float, has: bool
) -> None:
    signs = VitalSigns(heeds_evictions=True)
    signs.connected(MASTER, lived=0, asked=(NOW, NOW))
    assert signs.still_has(identity_of(MASTER), ahead=ahead) is has


@pytest.mark.parametrize(
    ("software", "version", "tells"),
    [
        ("valkey", "9.1.0", True),
        ("valkey", "10.0", True),
        ("valkey", "9.0.4", False),
        ("valkey", "unstable", False),
        ("valkey", "", False),
        ("redis", "9.1.0", False),
    ],
)
def test_only_a_server_that_reports_every_loss_is_relied_on(software: str, version: str, tells: bool) -> None:
    assert ServerInfo(software=software, version=version).tells_of_changes is tells
