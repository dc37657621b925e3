import asyncio
import re
import time
from socket import gaierror

import pytest
from redis.asyncio import Redis
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore
from dpop_middleware.replay.redis.health import NodeHealth, cause, examine
from dpop_middleware.replay.redis.resp import ServerError, ServerUnfit
from dpop_middleware.replay.redis.vitals import ServerInfo
from tests.support.load import eventually
from tests.support.replay import ENDLESS, answer, entry
from tests.support.scripted import ScriptedServer
from tests.support.valkey import HOST, Server


async def health(url: str, **options: object) -> NodeHealth:
    """The health that the store reports of its one server."""
    options = {"timeout": ENDLESS, **options}
    store = RedisReplayStore.from_url(url, **options)  # type: ignore[arg-type] # any of them
    found = await store.health()
    (node,) = found.nodes
    assert found.ok is (node.error is None)
    return node


def user(server: Server, *rules: str) -> str:
    """The URL of a user with these permissions."""
    server.run("ACL", "SETUSER", "api", "reset", "on", ">secret", *rules)
    return server.url.replace("//", "//api:secret@")


async def test_a_health_check_leaves_nothing_behind(server: Server) -> None:
    assert (await health(server.url)).error is None
    (name,) = server.run("KEYS", "*")
    assert name.startswith("dpop::health:")
    assert 0 < server.run("PTTL", name) <= 1000


async def test_a_full_server_is_unhealthy(server: Server) -> None:
    server.run("CONFIG", "SET", "maxmemory", "1")
    node = await health(server.url)
    assert node.error == "OOM"
    assert node.maxmemory_policy == "noeviction"


@pytest.mark.parametrize(
    "rules", [("~dpop:*", "+get", "+info"), ("~other:*", "+set", "+get", "+info")], ids=str
)
async def test_a_user_who_may_not_write_is_unhealthy(server: Server, rules: tuple[str, ...]) -> None:
    assert (await health(user(server, *rules))).error == "NOPERM"


async def test_a_user_who_may_not_read_is_not_fenced(server: Server) -> None:
    node = await health(user(server, "~dpop:*", "+set", "+info"))
    assert (node.error, node.fenced) == (None, False)
    assert "the user may not GET" in node.warnings[-1]


async def test_a_server_that_refuses_reads_is_unhealthy() -> None:
    async with ScriptedServer(lambda words: b"-LOADING wait\r\n" if words[0] == b"GET" else None) as scripted:
        assert (await health(scripted.url)).error == "LOADING"


async def test_the_user_of_the_readme_is_healthy(server: Server) -> None:
    node = await health(user(server, "~dpop:*", "+set", "+get", "+info", "+time"))
    assert (node.error, node.fenced, node.warnings) == (None, True, ())


async def test_a_user_who_may_not_time_is_warned_of_what_is_noticed_late(server: Server) -> None:
    node = await health(user(server, "~dpop:*", "+set", "+get", "+info"))
    assert (node.error, node.fenced) == (None, True)
    (warning,) = node.warnings
    assert "grant +time" in warning


async def test_replicas_that_must_confirm_must_be_connected(server: Server) -> None:
    # They have half of the time.
    told = await health(server.url, wait_replicas=1, timeout=4.0)
    assert told.error == "too few replicas confirm what is written"
    assert (await health(user(server, "~dpop:*", "+set", "+get", "+info"), wait_replicas=1)).error == "NOPERM"


async def test_replicas_that_confirm_are_healthy() -> None:
    async with ScriptedServer(lambda words: b":2\r\n" if words[0] == b"WAIT" else None) as scripted:
        assert (await health(scripted.url, wait_replicas=2)).error is None
        assert (await health(scripted.url, wait_replicas=3)).error is not None


async def test_an_unknown_eviction_policy_is_unfit_when_strict(server: Server) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    url = user(server, "~dpop:*", "+set", "+get")
    node = await health(url, strict=True)
    assert node.error == "the server's maxmemory-policy is not known to be noeviction"
    store = RedisReplayStore.from_url(url, timeout=ENDLESS, strict=True)
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()


@pytest.mark.parametrize("credentials", ["", "api:wrong@"])
async def test_the_warning_at_the_start_names_the_likely_cause_at_a_password(
    server: Server, caplog: pytest.LogCaptureFixture, credentials: str
) -> None:
    server.run("CONFIG", "SET", "requirepass", "right")
    store = RedisReplayStore.from_url(server.url.replace("//", f"//{credentials}"), timeout=ENDLESS)
    await store.open()
    await eventually(lambda: "the replay store can't be used" in caplog.text)
    await store.aclose()
    # An older redis-py connects without a password, and the server refuses the first command.
    assert re.search(
        r"\((AuthenticationError|NOAUTH)\): its user or password is missing or wrong", caplog.text
    )


async def test_the_warning_at_the_start_says_where_a_missing_permission_is_named(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisReplayStore.from_url(user(server, "~dpop:*", "+get", "+info", "+time"), timeout=ENDLESS)
    await store.open()
    await eventually(lambda: "the replay store can't be used" in caplog.text)
    await store.aclose()
    assert "(NOPERM): its user may not run a command that is needed: ACL LOG there names it" in caplog.text


async def test_a_credential_provider_that_fails_is_unhealthy(server: Server) -> None:
    class Vault:
        def get_credentials(self) -> tuple[str, str]:
            raise KeyError("secret path")

        async def get_credentials_async(self) -> tuple[str, str]:
            raise KeyError("secret path")

    client = Redis.from_url(server.url, credential_provider=Vault())
    store = RedisReplayStore(client, timeout=ENDLESS)
    found = await store.health()
    assert not found.ok
    assert [node.error for node in found.nodes] == ["KeyError"]
    await client.aclose()


async def test_a_credential_provider_that_is_cancelled_inside_is_an_error_like_any_other(
    server: Server,
) -> None:
    """It awaits a task that others share, for instance. Nobody cancelled the request or the check."""
    asked = 0

    class Vault:
        def get_credentials(self) -> tuple[str, str]:
            raise AssertionError

        async def get_credentials_async(self) -> tuple[str, str]:
            nonlocal asked
            asked += 1
            raise asyncio.CancelledError

    client = Redis.from_url(server.url, credential_provider=Vault())
    store = RedisReplayStore(client, timeout=ENDLESS)
    found = await store.health()
    assert [node.error for node in found.nodes] == ["AuthenticationError"]
    for _ in range(20):
        assert isinstance(await answer(store, entry()), Unavailable)
    # After two failures it isn't asked for each request.
    assert asked < 20
    await store.aclose()
    await client.aclose()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServerError("OOM command not allowed"), "OOM"),
        (ServerError("\x1b[31m red"), "ServerError"),
        (ServerError(""), "ServerError"),
        (ServerUnfit("the server is a replica"), "the server is a replica"),
        (ConnectionError("redis://user:secret@host"), "ConnectionError"),
    ],
    ids=repr,
)
def test_the_cause_is_reported_in_fixed_words(error: Exception, words: str) -> None:
    assert cause(error) == words


def raised_for(reason: Exception, *, hides: bool = False) -> Exception:
    """The client library's error, raised while `reason` is handled; the library quotes its last word."""
    error = RedisConnectionError(f"Error connecting to host. {reason.args[-1] if reason.args else ''}")
    error.__context__, error.__suppress_context__ = reason, hides
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            ConnectionRefusedError(111, "refused"),
            "ConnectionError: ConnectionRefusedError: [Errno 111] refused",
        ),
        (OSError("Multiple\nexceptions"), r"ConnectionError: OSError: Multiple\nexceptions"),
        (gaierror(-2, "unknown"), "ConnectionError: gaierror: [Errno -2] unknown"),
        (TimeoutError(), "ConnectionError"),
        (ValueError("secret"), "ConnectionError"),
    ],
    ids=repr,
)
def test_the_operating_system_s_own_reason_is_named(reason: Exception, words: str) -> None:
    assert cause(raised_for(reason)) == words
    assert cause(raised_for(reason, hides=True)) == "ConnectionError"


def test_what_the_application_handles_is_no_reason() -> None:
    error = RedisConnectionError("Error connecting to host.")
    error.__context__ = OSError("secret")
    assert cause(error) == "ConnectionError"


class Vault(CredentialProvider):
    """Fails as the answer of a vault does that quotes the secret."""

    def __init__(self, answer: Exception, *, hides: bool) -> None:
        self._answer, self._hides = answer, hides

    async def get_credentials_async(self) -> tuple[str, str]:
        try:
            raise self._answer
        except type(self._answer) as answer:
            raise PermissionError("no credentials") from (None if self._hides else answer)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(
    "answer", [OSError("the token s3cr3t"), ConnectionError("https://u:s3cr3t@vault"), ValueError("s3cr3t")]
)
async def test_the_words_of_a_credential_provider_are_not_reported(
    shared_server: Server, answer: Exception, hides: bool
) -> None:
    provider = Vault(answer, hides=hides)
    client = Redis(host=HOST, port=shared_server.port, credential_provider=provider)
    store = RedisReplayStore(client, timeout=ENDLESS)
    (node,) = (await store.health()).nodes
    assert node.error == "PermissionError"
    await store.aclose()
    await client.aclose()


def fail() -> None:
    """Fail as a database of the application may."""
    raise OSError("s3cr3t")


async def test_the_health_of_a_cluster_says_the_same_while_the_caller_handles_an_error() -> None:
    store = RedisReplayStore.from_url(f"redis+cluster://{HOST}:1", timeout=ENDLESS)
    (node,) = (await store.health()).nodes
    try:
        fail()
    except OSError:
        assert (await store.health()).nodes == (node,)
    assert "ConnectionRefusedError" in str(node.error)
    await store.aclose()


def test_without_a_clock_there_is_no_offset() -> None:
    info = ServerInfo(run_id="a" * 40, role="master", uptime=5, version="7.2.0", time=time.time() + 60)
    assert examine("here", info, None).clock_offset is None
    assert examine("here", info, None).warnings == ()
    assert "clock" in examine("here", info, time.time()).warnings[0]
