"""One question for many requests, and a bound on the questions under way, in one event loop.

Tokens that were active before and unknown tokens have separate places and breakers. Anybody can make up
unknown tokens, fill the places for these and make the endpoint fail on them; known tokens aren't affected.

    a question -> the breaker of its kind -> unknown ones: a place and a share of the second -> the endpoint

A question continues when the request that began it ends, and its result is remembered.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from dpop_middleware._runtime import begin
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.introspection._answer import MalformedAnswer
from dpop_middleware.introspection._endpoint import Answer, Endpoint
from dpop_middleware.introspection._transport import EndpointError
from dpop_middleware.introspection._verdicts import Verdict, Verdicts
from dpop_middleware.replay.breaker import CircuitBreaker
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.admission import Admission

__all__ = ["MAX_QUESTIONS", "IntrospectionHealth", "NoAnswer", "Outlook", "Questions"]

_LOG = logging.getLogger(__name__)

MAX_QUESTIONS: Final = 1000
"""How many questions of one kind may be under way or wait."""

# For how many seconds a question about an unknown token waits for its turn.
_TURN: Final = 1.0
# With the longest `timeout`. A loop that was left, with a question under way, never ends it.
_LONGEST_QUESTION: Final = 60.0 + _TURN
# For how many seconds after a usable answer the endpoint counts as one that judges tokens.
_JUDGES: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why a token couldn't be judged; `of_made_up`: made-up tokens may be the cause."""

    reason: str
    retry_after: int = 1
    of_made_up: bool = False


_TOO_MANY: Final = NoAnswer(reason="too many unknown tokens came at once", of_made_up=True)


def _breaker() -> CircuitBreaker:
    return CircuitBreaker(threshold=3, shortest=0.25, longest=2.0, longest_probe=_LONGEST_QUESTION)


@dataclass(slots=True)
class Outlook:
    """What all event loops of a process know of the endpoint, separately for each kind of token."""

    known: CircuitBreaker = field(default_factory=_breaker)
    unknown: CircuitBreaker = field(default_factory=_breaker)
    answered: float = -math.inf
    error: str | None = None

    def succeeded(self) -> None:
        """The endpoint gave a usable answer."""
        self.answered, self.error = time.monotonic(), None

    def may_be_of_token(self, error: Exception) -> bool:
        """Whether a filter in front of the endpoint, which judges others, may have objected to the token."""
        blocked = isinstance(error, MalformedAnswer) or (isinstance(error, EndpointError) and error.blocked)
        return blocked and time.monotonic() - self.answered < _JUDGES


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionHealth:
    """The current state of an introspection endpoint: `ok` when it gives usable answers.

    - `endpoint`: its URL, None where the issuer's metadata weren't read yet.
    - `age`: seconds since its last usable answer, None where there was none. `error`: what is wrong.
    - `keys`: the issuer's keys, where answers must be signed.
    """

    ok: bool
    endpoint: str | None
    age: float | None = None
    error: str | None = None
    keys: IssuerKeysHealth | None = None


class Questions:
    """Asks one endpoint on behalf of requests; `judge` turns an answer into a token or raises.

    `places` is how many questions about unknown tokens may be under way at once, `timeout` the seconds within
    which one must end, `patience` the seconds for which a request waits for it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        judge: Callable[[Answer], Awaitable[AccessToken]],
        *,
        verdicts: Verdicts,
        admission: Admission,
        outlook: Outlook,
        places: int,
        timeout: float,
        patience: float,
    ) -> None:
        self._endpoint = endpoint
        self._judge = judge
        self._verdicts = verdicts
        self._admission = admission
        self._outlook = outlook
        self._timeout = timeout
        self._patience = patience
        self._places = asyncio.Semaphore(places)
        self._tasks: dict[bytes, asyncio.Task[Verdict | NoAnswer]] = {}
        self._waiting: set[bytes] = set()
        # Of the last token that would not be asked about, for the next `ask`: by then there may be room.
        self._refusals: dict[bytes, NoAnswer] = {}
        self._opening: asyncio.Task[None] | None = None

    @property
    def url(self) -> str | None:
        """Where the endpoint is, None where that isn't known yet."""
        return self._endpoint.url

    def open(self) -> None:
        """Find the endpoint's URL, in the background; errors are logged."""
        if self._opening is None:
            self._opening = begin(self._located(), name="dpop introspection endpoint")

    def would_ask(self, digest: bytes) -> bool:
        """Whether a token without a verdict is asked about; where not, the next `ask` answers at once."""
        self._refusals.clear()
        refusal = None if digest in self._tasks else self._refusal(known=self._verdicts.is_known(digest))
        if refusal is not None:
            self._refusals[digest] = refusal
        return refusal is None

    async def ask(self, token: str, digest: bytes) -> Verdict | NoAnswer:
        """Return the verdict on `token`, whose SHA-256 is `digest`."""
        task = self._tasks.get(digest)
        if task is None:
            known = self._verdicts.is_known(digest)
            refusal = self._refusals.pop(digest, None) or self._refusal(known=known)
            if refusal is not None:
                return refusal
            self._breaker(known).let_through(time.monotonic())
            task = begin(self._question(token, digest, known), name="dpop introspection")
            self._tasks[digest] = task
            if not known:
                self._waiting.add(digest)
            task.add_done_callback(lambda _: self._ended(digest, known=known))
        await asyncio.wait({task}, timeout=self._patience)
        if not task.done():
            late = self._at_endpoint(f"no answer within {self._patience:g} s")
            return NoAnswer(reason=late, of_made_up=digest in self._waiting)
        return NoAnswer(reason="the verifier was closed") if task.cancelled() else task.result()

    async def probe(self, token: str) -> str | None:
        """Ask about a token that nobody issued; return what is wrong, None where the endpoint works."""
        try:
            async with asyncio.timeout(self._patience):
                await self._judge(await self._endpoint.ask(token))
        except InvalidToken:
            self._outlook.succeeded()
            return None
        except (TimeoutError, EndpointError, MalformedAnswer, Unavailable) as error:
            # A server that calls a made-up token malformed may work all the same.
            if isinstance(error, EndpointError) and error.declined:
                return None
            return self._reason(error, self._patience)
        return "the endpoint calls a made-up token active"

    async def aclose(self) -> None:
        """Cancel the questions under way and close the connections."""
        tasks = {*self._tasks.values(), *(() if self._opening is None else (self._opening,))}
        self._opening = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._endpoint.aclose()

    async def _located(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._endpoint.locate()
        except (TimeoutError, EndpointError) as error:
            _LOG.warning("the introspection endpoint can't be found: %s", self._reason(error, self._timeout))

    def _refusal(self, *, known: bool) -> NoAnswer | None:
        breaker, now = self._breaker(known), time.monotonic()
        if not known and self._is_flooded():
            return _TOO_MANY
        if len(self._tasks) >= MAX_QUESTIONS and (not known or len(self._tasks) >= 2 * MAX_QUESTIONS):
            return NoAnswer(reason="too many tokens wait to be asked about", of_made_up=not known)
        if breaker.would_refuse(now):
            seconds = math.ceil(max(breaker.pause_left(now), 1.0))
            return NoAnswer(reason=self._outlook.error or "the endpoint failed", retry_after=seconds)
        return None

    def _ended(self, digest: bytes, *, known: bool) -> None:
        self._tasks.pop(digest, None)
        self._waiting.discard(digest)
        # A probe without a result makes room for the next one, also where it was cancelled before it began;
        # after a result this changes nothing.
        self._breaker(known).abandoned()

    def _is_flooded(self) -> bool:
        return self._admission.is_flooded(len(self._waiting), time.monotonic())

    def _breaker(self, known: bool) -> CircuitBreaker:
        return self._outlook.known if known else self._outlook.unknown

    async def _question(self, token: str, digest: bytes, known: bool) -> Verdict | NoAnswer:
        async with AsyncExitStack() as stack:
            admitted = known or await self._admitted(stack, digest)
            return await self._answered(token, digest, known) if admitted else _TOO_MANY

    async def _admitted(self, stack: AsyncExitStack, digest: bytes) -> bool:
        """Wait for a place and a share of the second; the place is kept until `stack` ends."""
        try:
            async with asyncio.timeout(_TURN):
                await stack.enter_async_context(self._places)
                while (pause := self._admission.pause(time.monotonic())) > 0:  # noqa: ASYNC110 - time passes
                    await asyncio.sleep(pause)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(digest)
        return True

    async def _answered(self, token: str, digest: bytes, known: bool) -> Verdict | NoAnswer:
        asked = self._verdicts.now()
        outcome: AccessToken | InvalidToken
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._judge(await self._endpoint.ask(token))
        except InvalidToken as error:
            outcome = error.restated()
        except (TimeoutError, EndpointError, MalformedAnswer, Unavailable) as error:
            return self._failed(error, known=known)
        self._outlook.succeeded()
        self._breaker(known).succeeded()
        if not known:
            self._admission.answered(time.monotonic(), active=isinstance(outcome, AccessToken))
        verdict = Verdict(outcome, asked)
        self._verdicts.put(digest, verdict)
        return verdict

    def _failed(
        self, error: TimeoutError | EndpointError | MalformedAnswer | Unavailable, *, known: bool
    ) -> NoAnswer:
        reason = self._reason(error, self._timeout)
        if isinstance(error, EndpointError) and error.of_token:
            self._breaker(known).succeeded()
            if not known:
                self._admission.answered(time.monotonic(), active=False)
            return NoAnswer(reason=reason, of_made_up=not known)
        self._outlook.error = reason
        if not self._outlook.may_be_of_token(error):
            self._breaker(known).failed(time.monotonic())
        elif not known:
            self._admission.blocked(time.monotonic())
        asked_for = error.retry_after if isinstance(error, EndpointError) else None
        return NoAnswer(reason=reason, retry_after=asked_for or 1)

    def _reason(self, error: Exception, seconds: float) -> str:
        if isinstance(error, TimeoutError):
            return self._at_endpoint(f"no complete answer within {seconds:g} s")
        if isinstance(error, MalformedAnswer):
            return self._at_endpoint(str(error))
        if isinstance(error, Unavailable):
            return f"{error.description}: {error.actual}"
        return str(error)

    def _at_endpoint(self, reason: str) -> str:
        return reason if self.url is None else f"{self.url}: {reason}"
