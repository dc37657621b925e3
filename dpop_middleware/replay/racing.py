"""Asking several servers at once and taking the first good answer."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from redis.exceptions import RedisError

__all__ = ["first_answer"]

T = TypeVar("T")


async def first_answer(questions: Iterable[Coroutine[Any, Any, T | None]]) -> T:
    """The first result that is not None; the other questions are given up.

    One server that hangs must not use up the time of the rest, so they are asked together. Raises the last
    error, or a `RedisError` when all answers were None.
    """
    tasks = {asyncio.ensure_future(question) for question in questions}
    pending = tasks
    failure: BaseException = RedisError("no server had an answer")
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    failure = error
                    continue
                result = task.result()
                if result is not None:
                    return result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise failure
