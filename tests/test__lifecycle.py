"""What a resource server was given is opened and closed, under asyncio only."""

import asyncio

import pytest

from dpop_middleware._lifecycle import aclose_parts, check_event_loop, open_part
from dpop_middleware.errors import ConfigurationError


class Part:
    def __init__(self, calls: list[str], name: str) -> None:
        self.calls = calls
        self.name = name

    async def open(self) -> None:
        self.calls.append(f"open {self.name}")

    async def aclose(self) -> None:
        self.calls.append(f"close {self.name}")
        if self.name == "broken":
            raise OSError(self.name)


async def test_what_can_be_opened_is_opened() -> None:
    calls: list[str] = []
    await open_part(Part(calls, "a"))
    await open_part(object())
    assert calls == ["open a"]


async def test_all_are_closed_even_if_one_fails() -> None:
    calls: list[str] = []
    with pytest.raises(OSError, match="broken"):
        await aclose_parts(Part(calls, "a"), object(), Part(calls, "broken"), Part(calls, "b"))
    assert calls == ["close a", "close broken", "close b"]


def test_without_a_loop_of_asyncio_it_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="asyncio only.*not trio"):
        check_event_loop()
    asyncio.run(_checked())


async def _checked() -> None:
    check_event_loop()
