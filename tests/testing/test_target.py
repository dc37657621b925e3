"""The application under test is started and stopped as by a server."""

from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.target import Target, lifespan

URL = "https://api.example.com/v1/notes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "/notes"}, "url takes an https URL, not '/notes': the URL must be absolute"),
        (
            {"url": URL, "root_path": "/v1/no"},
            "root_path takes what the path of the URL begins with, not '/v1/no'",
        ),
        (
            {"url": "https://ann:secret@api.example.test/"},
            "url takes a URL without user information, which would be sent in place of the token, not 'https://",
        ),
        ({"url": URL, "root_path": "v1"}, "root_path takes what the path of the URL begins with, not 'v1'"),
        # Each case whose name is a part of this one would be left out.
        ({"url": URL, "leave_out": "no_token"}, "leave_out takes a sequence of names of cases, such as"),
        ({"url": URL, "leave_out": {"no_token": True}}, "leave_out takes a sequence of names of cases"),
    ],
)
def test_an_option_that_a_target_does_not_take_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Target.of(TestIssuer(), **options)
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


def test_a_target_is_made_of_an_issuer_and_options_that_fit() -> None:
    made = Target.of(TestIssuer(), url=URL, root_path="/v1", leave_out={"no_token"})
    assert (made.root_path, made.leave_out) == ("/v1", {"no_token"})
    nobody: Any = "https://auth.example.com"
    with pytest.raises(ConfigurationError, match="^issuer takes a TestIssuer, such as .*, not a str$"):
        Target.of(nobody, url=URL)


async def test_startup_and_shutdown_run_and_share_the_state() -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            events.append(scope["state"])
            return
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["db"] = "open"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        events.append("closed")
        await send({"type": "lifespan.shutdown.complete"})

    async with lifespan(app) as served:
        await served({"type": "http"}, None, None)
    assert events == [{"db": "open"}, "closed"]


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError(scope["type"])


async def sends_a_response(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await receive()
    await receive()


@pytest.mark.parametrize("app", [returns, raises, sends_a_response])
async def test_an_app_without_lifespan_support_is_served_without_it(app: Any) -> None:
    async with lifespan(app) as served:
        assert served is app


async def test_a_failed_startup_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="startup failed: no database"):
        async with lifespan(app):
            raise AssertionError("served all the same")


async def test_a_failed_shutdown_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed"})

    with pytest.raises(RuntimeError, match="shutdown failed"):
        async with lifespan(app):
            pass


async def test_an_app_that_returns_early_is_not_waited_for() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async with lifespan(app) as served:
        assert served is not app
