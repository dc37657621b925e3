import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay import RedisReplayStore
from dpop_middleware.replay.redis.endpoints import (
    ClusterNodes,
    SentinelMaster,
    Standalone,
    endpoint_of_client,
    endpoint_of_url,
)
from dpop_middleware.replay.redis.resp import ServerUnfit
from dpop_middleware.replay.redis.url import parse_store_url
from tests.support.replay import ENDLESS, entry
from tests.support.scripted import ScriptedServer, Words, bulk
from tests.support.valkey import HOST, Server, sentinel_client


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_plain_url_is_read(scheme: str) -> None:
    endpoint = endpoint_of_url(f"{scheme}://user:p%40ss@db.example:6380/3?protocol=2")
    assert isinstance(endpoint, Standalone)
    assert endpoint.connection_class is Connection
    options = {"host": "db.example", "port": 6380, "db": 3, "username": "user", "password": "p@ss"}
    assert {name: value for name, value in endpoint.options.items() if name != "protocol"} == options
    connection: Any = endpoint.connection(1.0)
    assert int(connection.protocol) == 2


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_a_tls_url_is_read(scheme: str, ca_file: Path) -> None:
    endpoint = endpoint_of_url(f"{scheme}://db.example?ssl_ca_certs={ca_file}")
    assert endpoint.connection_class is SSLConnection
    assert endpoint.options["ssl_ca_certs"] == str(ca_file)
    assert endpoint.options["ssl_check_hostname"] is True
    assert endpoint_of_url(f"{scheme}://h?ssl_check_hostname=no").options["ssl_check_hostname"] is False


def test_a_unix_socket_url_is_read() -> None:
    endpoint = endpoint_of_url("unix:///run/redis.sock?db=2")
    assert endpoint.connection_class is UnixDomainSocketConnection
    assert dict(endpoint.options) == {"path": "/run/redis.sock", "db": 2}


def test_a_sentinel_url_is_read(ca_file: Path) -> None:
    endpoint = endpoint_of_url(
        "rediss+sentinel://u:p@s1:26380,s2,[::1]:26381/proofs/2"
        f"?ssl_ca_certs={ca_file}&sentinel_username=su&sentinel_password=sp"
    )
    assert isinstance(endpoint, SentinelMaster)
    assert endpoint.addresses == (("s1", 26380), ("s2", 26379), ("::1", 26381))
    assert endpoint.service == "proofs"
    assert endpoint.connection_class is endpoint.sentinel_class is SSLConnection
    assert endpoint.options["username"] == "u"
    assert endpoint.options["db"] == 2
    assert dict(endpoint.sentinel_options) == {
        "ssl_ca_certs": str(ca_file),
        "ssl_check_hostname": True,
        "username": "su",
        "password": "sp",
    }
    sentinel: Any = endpoint.sentinel_connection(1.0, ("s2", 26379))
    assert sentinel.host == "s2"


def test_a_cluster_url_is_read() -> None:
    endpoint = endpoint_of_url("redis+cluster://u:p@n1:7000,n2:7001")
    assert isinstance(endpoint, ClusterNodes)
    assert endpoint.addresses == (("n1", 7000), ("n2", 7001))
    assert endpoint.options["password"] == "p"
    node: Any = endpoint.connection(1.0, ("n2", 7001))
    assert node.port == 7001


def test_options_of_a_pool_in_a_url_have_no_effect() -> None:
    query = "max_connections=3&health_check_interval=5&retry_on_timeout=yes"
    assert endpoint_of_url(f"redis://h?{query}") == endpoint_of_url("redis://h")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://h?colour=red", "an option that can't be used: colour$"),
        ("redis://h?protocol=4", "an option that can't be used: protocol$"),
        ("redis://h?retry=often", "an option that can't be used: retry$"),
        ("redis://h?ssl_check_hostname=no", "an option that can't be used: ssl_check_hostname$"),
        ("rediss://h?ssl_cert_reqs=bogus", "an option that can't be used: ssl_cert_reqs$"),
        ("redis://h?password=ab&cd=ef", "an option that can't be used: one that is not named here"),
        ("redis+sentinel://h/s?sentinel_password=a&sentinel_usename=b", "sentinel_usename$"),
        ("redis+sentinel://h/s?sentinel_usename=b", "an option that can't be used: sentinel_usename$"),
        ("redis://h?sentinel_password=a", r"belong in a redis\+sentinel:// URL"),
    ],
)
def test_an_option_that_can_not_be_used_is_named(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        RedisReplayStore.from_url(url)
    assert "cd" not in str(refused.value)


@pytest.mark.parametrize("options", [("ssl_ca_certs",), ("ssl_certfile", "ssl_keyfile")])
def test_a_file_that_holds_no_certificate_is_refused(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("not a certificate")
    query = "&".join(f"{option}={tmp_path / 'x.pem'}" for option in options)
    with pytest.raises(ConfigurationError, match="a file that holds no certificate or key in PEM form"):
        RedisReplayStore.from_url(f"rediss://h?{query}")


def test_certificate_and_key_may_be_separate_files(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("api.example")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "chain.pem"))
    both = f"ssl_certfile={tmp_path / 'chain.pem'}&ssl_keyfile={tmp_path / 'key.pem'}"
    assert endpoint_of_url(f"rediss://h?{both}").options["ssl_keyfile"]


async def test_the_settings_of_a_client_are_used() -> None:
    client = Redis(
        host="h",
        port=1,
        db=4,
        username="u",
        password="p",
        decode_responses=True,
        socket_timeout=9,
        protocol=2,
        health_check_interval=7,
        ssl=True,
        ssl_ca_certs="/ca.pem",
    )
    endpoint = endpoint_of_client(client)
    connection: Any = endpoint.connection(0.5)
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.db, connection.username) == ("h", 1, 4, "u")
    assert connection.protocol == 2
    assert connection.socket_timeout is None
    assert connection.socket_connect_timeout == 0.5
    assert connection.health_check_interval == 0
    tried: list[Exception] = []

    async def fails() -> None:
        raise RedisConnectionError

    async def failed(error: Exception) -> None:
        tried.append(error)

    with pytest.raises(RedisConnectionError):
        await connection.retry.call_with_retry(fails, failed)
    assert len(tried) == 1


async def test_the_settings_of_a_sentinel_master_are_used() -> None:
    sentinel = sentinel_client(
        [("s1", 1), ("s2", 2)], sentinel_kwargs={"password": "sp"}, password="p", username="u", db=3
    )
    endpoint = endpoint_of_client(sentinel.master_for("proofs"))
    assert isinstance(endpoint, SentinelMaster)
    assert endpoint.addresses == (("s1", 1), ("s2", 2))
    assert endpoint.service == "proofs"
    assert type(endpoint.connection(1.0, ("m", 3))) is Connection
    assert endpoint.options["password"] == "p"
    assert endpoint.sentinel_options["password"] == "sp"
    secure = endpoint_of_client(sentinel.master_for("proofs", ssl=True))
    assert type(secure.connection(1.0, ("m", 3))) is SSLConnection


async def test_a_sentinel_master_with_a_connection_class_of_its_own_keeps_it() -> None:
    class Own(Connection):
        pass

    endpoint = endpoint_of_client(sentinel_client([("s1", 1)]).master_for("proofs", connection_class=Own))
    assert endpoint.connection_class is Own


async def test_the_settings_of_a_cluster_client_are_used() -> None:
    def remap(address: tuple[str, int]) -> tuple[str, int]:
        return "127.0.0.1", address[1]

    client = RedisCluster(host="n1", port=7000, password="p", ssl=True, address_remap=remap)
    endpoint = endpoint_of_client(client)
    assert isinstance(endpoint, ClusterNodes)
    assert endpoint.addresses == (("n1", 7000),)
    assert endpoint.remap is remap
    assert isinstance(endpoint.connection(1.0, ("n2", 7001)), SSLConnection)


@pytest.mark.parametrize(
    ("named", "reached"),
    [(("n2", 7001), ("n2", 7001)), (["n2", "7001"], ("n2", 7001)), (None, None), ("host", None), (5, None)],
)
def test_address_remap_must_name_an_address(named: Any, reached: tuple[str, int] | None) -> None:
    client = RedisCluster(host="n1", port=7000, address_remap=lambda _: named)
    endpoint = endpoint_of_client(client)
    assert isinstance(endpoint, ClusterNodes)
    if reached is not None:
        assert endpoint.announced(("n1", 1)) == reached
        return
    with pytest.raises(ServerUnfit, match="address_remap names no address"):
        endpoint.announced(("n1", 1))


def wrong_clients() -> list[tuple[object, str]]:
    return [
        (redis.Redis(), "asynchronous"),
        (sentinel_client([("s", 1)]), "master_for"),
        (sentinel_client([("s", 1)]).slave_for("proofs"), "replica"),
        ("redis://localhost", "from_url"),
        (None, "takes a client of redis.asyncio: .*, not a NoneType"),
        (object(), "takes a client of redis.asyncio: .*, not a object"),
    ]


@pytest.mark.parametrize("number", range(6))
async def test_a_client_that_can_not_be_used_is_refused_with_a_sentence(number: int) -> None:
    client, sentence = wrong_clients()[number]
    with pytest.raises(ConfigurationError, match=sentence):
        RedisReplayStore(client)


async def test_one_sentinel_that_knows_the_master_is_enough() -> None:
    async with ScriptedServer() as master, ScriptedServer() as knows, ScriptedServer() as odd:
        port = str(master.port).encode()
        address = b"*2\r\n" + bulk(HOST.encode()) + bulk(port)
        knows.script = lambda words: address if words[0] == b"SENTINEL" else None
        store = RedisReplayStore.from_url(
            f"redis+sentinel://{HOST}:{odd.port},{HOST}:{knows.port}/proofs?protocol=2", timeout=10.0
        )
        assert await store.add(entry()) is True
        assert master.opened == 1
        assert (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"proofs") in knows.commands
        await store.aclose()


def of(port: int) -> bytes:
    return b"*2\r\n" + bulk(HOST.encode()) + bulk(b"%d" % port)


class Slow(ScriptedServer):
    """One whose answers come after those of others; `held` says when."""

    def __init__(self, answer: bytes, held: asyncio.Event) -> None:
        super().__init__(lambda words: answer if words[0] == b"SENTINEL" else None)
        self._until = held

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._until.wait()
        await super()._serve(reader, writer)


async def test_one_sentinel_that_missed_a_failover_does_not_decide_though_it_is_the_nearest() -> None:
    with Server() as master, Server() as replica:
        replica.run("REPLICAOF", HOST, master.port)
        told = asyncio.Event()

        def tell(words: Words) -> bytes | None:
            if words[0] != b"SENTINEL":
                return None
            asyncio.get_running_loop().call_soon(told.set)
            return of(replica.port)

        others = [Slow(of(master.port), told) for _ in "bc"]
        async with ScriptedServer(tell) as near, others[0], others[1]:
            hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in (near, *others))
            store = RedisReplayStore.from_url(f"redis+sentinel://{hosts}/proofs", timeout=ENDLESS)
            assert await store.add(entry()) is True
            await store.aclose()


@pytest.mark.parametrize("others", ["hang", "refuse", "don't know"])
async def test_one_sentinel_is_enough_where_no_other_answers(others: str) -> None:
    held = asyncio.Event()
    with Server() as master:
        knows = ScriptedServer(lambda words: of(master.port) if words[0] == b"SENTINEL" else None)
        two = [Slow(b"*-1\r\n", held) for _ in "bc"]
        async with knows, two[0], two[1]:
            if others == "don't know":
                held.set()
            ports = (1, 2) if others == "refuse" else tuple(sentinel.port for sentinel in two)
            hosts = ",".join(f"{HOST}:{port}" for port in (knows.port, *ports))
            store = RedisReplayStore.from_url(f"redis+sentinel://{hosts}/proofs", timeout=ENDLESS)
            assert await store.add(entry()) is True
            await store.aclose()
            held.set()


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:the-password@h/0",
        "redis+sentinel://user:the-password@h/proofs?sentinel_password=the-password",
        "redis+cluster://user:the-password@h",
    ],
)
def test_no_password_is_in_a_repr(url: str) -> None:
    # Tools that report errors show the values of local variables.
    for value in (endpoint_of_url(url), parse_store_url(url)):
        assert "the-password" in str(value.options)
        assert "the-password" not in repr(value)
