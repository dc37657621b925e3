"""Finding the master that the Sentinels agree on."""

import functools

from dpop_middleware.replay.channel import Channel
from dpop_middleware.replay.connecting import Connect, ask, opened
from dpop_middleware.replay.racing import first_answer
from dpop_middleware.replay.target import Address, Target

__all__ = ["sentinel_connector"]


def sentinel_connector(target: Target) -> Connect:
    """What connects to the current master: the Sentinels are asked at each new connection."""

    async def connect(timeout: float) -> Channel:
        # All of them together: the first of a list may be the one that hangs.
        address = await first_answer(_master(target, sentinel, timeout) for sentinel in target.addresses)
        return await opened(target.connection(timeout, address))

    return connect


async def _master(target: Target, sentinel: Address, timeout: float) -> Address | None:
    connect = functools.partial(_connect, target, sentinel)
    reply = await ask(connect, timeout, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", target.service.encode())
    match reply:
        case [bytes(host), bytes(port)] if port.isdigit():
            return host.decode(), int(port)
        case _:
            return None


async def _connect(target: Target, sentinel: Address, timeout: float) -> Channel:
    return await opened(target.sentinel_connection(timeout, sentinel))
