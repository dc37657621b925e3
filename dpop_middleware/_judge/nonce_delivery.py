"""Whether the nonces of a server reach its clients, and whether any policy asks for them."""

from collections.abc import Iterable

from dpop_middleware._log import warn_of_idle_nonces
from dpop_middleware.nonces import NonceProvider, undelivered_nonces
from dpop_middleware.policy import DPoPPolicy

__all__ = ["NonceDelivery"]


class NonceDelivery:
    """What is known of the adapters of one server and its siblings.

    `needs_middleware`: whether one of them can't put a nonce on each response; `has_middleware`: whether one
    can.
    """

    def __init__(self) -> None:
        self.needs_middleware = self.has_middleware = False
        self._has_warned = False

    def check(self, nonces: NonceProvider | None, policies: Iterable[DPoPPolicy]) -> None:
        """Raise ConfigurationError where nothing would put a nonce on the responses.

        Nonces that none of `policies` asks for are logged, once.
        """
        if self.needs_middleware and not self.has_middleware:
            raise undelivered_nonces()
        are_idle = nonces is not None and all(policy.nonce == "off" for policy in policies)
        if are_idle and not self._has_warned:
            self._has_warned = True
            warn_of_idle_nonces("ResourceServer")
