"""What one connection has proved so far, so that it is authenticated once (a second time is a replay)."""

import asyncio
from dataclasses import dataclass

from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError
from dpop_middleware.policy import DPoPPolicy, PolicyFamily
from dpop_middleware.request import ResourceRequest
from dpop_middleware.verdicts import Authentication

__all__ = ["RequestMemory"]


@dataclass(frozen=True, slots=True)
class _Remembered:
    request: ResourceRequest
    policy: DPoPPolicy
    outcome: Authentication | DPoPError


class RequestMemory:
    """The outcomes of one connection, by the family of resource servers that reached them.

    A family is a resource server with all that came from its `with_policy`. `lock` is held while a family
    judges, so that two faces of one connection that run at the same time don't both present the proof.
    """

    __slots__ = ("_outcomes", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._outcomes: dict[PolicyFamily, _Remembered] = {}

    def recall(
        self, family: PolicyFamily, request: ResourceRequest, policy: DPoPPolicy
    ) -> Authentication | None:
        """Return what `family` found out about an equal request, None when it must be judged afresh.

        Raises the error of a request that was refused. What one policy refused is judged afresh under
        another, unless the replay store was asked: until then nothing was written, after that a second
        question would be a replay.
        """
        remembered = self._outcomes.get(family)
        if remembered is None or remembered.request != request:
            return None
        if isinstance(remembered.outcome, Authentication):
            return remembered.outcome
        if remembered.outcome.check is Check.JTI or remembered.policy == policy:
            raise remembered.outcome
        return None

    def remember(
        self,
        family: PolicyFamily,
        request: ResourceRequest,
        policy: DPoPPolicy,
        outcome: Authentication | DPoPError,
    ) -> None:
        """Keep the outcome of `request` for this connection."""
        self._outcomes[family] = _Remembered(request, policy, outcome)
