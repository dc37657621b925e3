"""Server-chosen nonces, without state (RFC 9449 sections 8 and 9).

A nonce is the second in which it was issued, or in which its step began, and a MAC over it. The length of a
step isn't part of it: workers may differ in that while a change is rolled out. The key of the MAC comes from
the secret, the purpose and the server, so that an authorization server's nonce, or another server's, is never
accepted here, even if they share one secret.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dpop_middleware._options import part, provides, refused, seconds, secrets
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.policy import DPoPPolicy

__all__ = [
    "WORKER_CLOCK_MARGIN",
    "HMACNonceProvider",
    "Nonce",
    "NonceProvider",
    "check_nonces",
    "nonces_for",
    "undelivered_nonces",
]

WORKER_CLOCK_MARGIN = 5.0
"""Seconds by which the clocks of workers that share a store and a secret may differ."""

_SECOND_SIZE = 6
_MAC_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce:
    """A nonce that a server issued: when, until when it is valid, and whether it is the newest.

    `issued_at` and `expires_at` are seconds since the epoch.
    """

    issued_at: float
    expires_at: float
    current: bool


class NonceProvider(Protocol):
    """Issues nonces and recognises them; `now` is in seconds since the epoch.

    If a provider raises, the answer is 503. It may also have

    - `for_server(*, purpose: str, server: str) -> NonceProvider`, which a server calls once, with its
      `replay_namespace` as `server`, to get nonces that are valid nowhere else;
    - `issue_dated(now: float) -> str`, for nonces whose `issued_at` is exactly the second of their issue:
      with them clients are accepted sooner after a replay store lost its entries.
    """

    def issue(self, now: float) -> str:
        """Return the nonce of this moment: characters of NQCHAR only (RFC 9449 section 8.1)."""
        ...

    def check(self, nonce: str, now: float) -> Nonce | None:
        """Return what is known of `nonce`, None if another provider issued it or it is stale."""
        ...


def nonces_for(nonces: NonceProvider | None, *, purpose: str, namespace: str) -> NonceProvider | None:
    """Return `nonces` for one purpose in one namespace, as far as the provider can separate them.

    Raises ConfigurationError if it isn't a provider.
    """
    fits = nonces is None or provides(nonces, "issue", "check")
    part("nonces", nonces, "a NonceProvider, such as HMACNonceProvider(secret)", fits=fits)
    for_server = getattr(nonces, "for_server", None)
    return nonces if for_server is None else for_server(purpose=purpose, server=namespace)


def check_nonces(policy: DPoPPolicy, nonces: NonceProvider | None, *, server: str = "ResourceServer") -> None:
    """Raise ConfigurationError if the policy of a `server` (its class) needs nonces without a provider."""
    if policy.nonce != "off" and nonces is None:
        raise ConfigurationError(f"nonce={policy.nonce!r} needs nonces=HMACNonceProvider(secret) in {server}")


def undelivered_nonces() -> ConfigurationError:
    """Return the error for a dependency whose nonces no middleware puts on the responses."""
    return ConfigurationError(
        "a dependency can't put nonces on responses: add DPoPMiddleware with the same ResourceServer"
    )


class HMACNonceProvider:
    """Nonces derived per time step from a secret that all workers share.

    - `secret`: at least 32 random bytes, or several such, newest first: nonces are issued with the first
      and recognised with all, so that a secret can be replaced without refusing any client.
    - `lifetime`: seconds for which a nonce is valid, counted from the beginning of its step; at most a day.
    - `step`: seconds between nonces; at least 1, at most a third of `lifetime`.

    Raises ConfigurationError. A nonce isn't bound to a client: it is the same for all clients of a step, and
    the replay store still decides about a second use.

    It is valid at one server only, which gets its provider from `for_server`. Without that, `issue`,
    `issue_dated` and `check` raise ConfigurationError: `ResourceServer.nonce_headers()` returns a nonce for
    your own responses.
    """

    def __init__(self, secret: bytes | Sequence[bytes], *, lifetime: float = 300, step: float = 60) -> None:
        self._keys = secrets("HMACNonceProvider", secret)
        self._lifetime = seconds("lifetime", lifetime, minimum=3, maximum=86_400)
        self._step = seconds("step", step, minimum=1)
        if self._step > self._lifetime / 3:
            raise refused("step", f"at most a third of lifetime, which is {self._lifetime:g} s", step)

    def for_server(self, *, purpose: str, server: str) -> "HMACNonceProvider":
        """Return a provider whose nonces are valid only for this purpose at this server."""
        label = f"dpop nonce\0{purpose}\0{server}".encode()
        return _OfOneServer(
            tuple(hmac.digest(key, label, "sha256") for key in self._keys),
            lifetime=self._lifetime,
            step=self._step,
        )

    def issue(self, now: float) -> str:  # noqa: ARG002 - the subclass for a server uses it, here and below
        """Return the nonce of the step that contains `now`, in seconds since the epoch."""
        raise _of_no_server()

    def issue_dated(self, now: float) -> str:  # noqa: ARG002
        """Return a nonce that contains the second of its issue, `now` in seconds since the epoch."""
        raise _of_no_server()

    def check(self, nonce: str, now: float) -> Nonce | None:  # noqa: ARG002
        """Return when `nonce` was issued and until when it is valid, None if it is foreign or stale.

        A nonce of a worker whose clock is up to 5 s ahead is accepted.
        """
        raise _of_no_server()


def _of_no_server() -> ConfigurationError:
    return ConfigurationError(
        "a nonce of HMACNonceProvider is valid at one server only: take one from "
        "ResourceServer.nonce_headers(), or a provider from for_server(purpose=…, server=…)"
    )


class _OfOneServer(HMACNonceProvider):
    """The provider that `for_server` returns: its nonces are valid at one server."""

    def issue(self, now: float) -> str:
        return self._of(self._beginning(now))

    def issue_dated(self, now: float) -> str:
        return self._of(int(now))

    def check(self, nonce: str, now: float) -> Nonce | None:
        try:
            decoded = base64url.decode(nonce)
        except JOSEError:
            return None
        if len(decoded) != _SECOND_SIZE + _MAC_SIZE:
            return None
        second, mac = decoded[:_SECOND_SIZE], decoded[_SECOND_SIZE:]
        matches = [hmac.compare_digest(_mac(key, second), mac) for key in self._keys]
        if not any(matches):
            return None
        issued_at = float(int.from_bytes(second, "big"))
        expires_at = issued_at + self._lifetime
        if not issued_at - WORKER_CLOCK_MARGIN <= now < expires_at:
            return None
        return Nonce(
            issued_at=issued_at,
            expires_at=expires_at,
            current=matches[0] and issued_at >= self._beginning(now),
        )

    def _beginning(self, now: float) -> int:
        """Return the second in which the step that contains `now` began."""
        return int(now // self._step * self._step)

    def _of(self, second: int) -> str:
        octets = second.to_bytes(_SECOND_SIZE, "big")
        return base64url.encode(octets + _mac(self._keys[0], octets))


def _mac(key: bytes, second: bytes) -> bytes:
    return hmac.digest(key, second, "sha256")[:_MAC_SIZE]
