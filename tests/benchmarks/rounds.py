"""Times relative to a bare ES256 verification that is measured in the same breath.

Other work on the machine slows everything down for a while. So each batch of a case is put between two
batches of bare verifications, and only their quotient counts; of many such the median is the result.
"""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm

Batch = Callable[[], Awaitable[None]]

# The signing input of a usual proof has about this many bytes.
_USUAL = 430


class Yardstick:
    """One bare verification with a key that is loaded and a signature that is in DER already.

    It is by ES256 unless another curve and digest are named, and of a message of so many octets.
    """

    def __init__(
        self,
        curve: ec.EllipticCurve | None = None,
        digest: HashAlgorithm | None = None,
        *,
        octets: int = _USUAL,
    ) -> None:
        private_key = ec.generate_private_key(curve or ec.SECP256R1())
        self._digest = digest or SHA256()
        self._message = b"." * octets
        self._key = private_key.public_key()
        self._signature = private_key.sign(self._message, ec.ECDSA(self._digest))

    def seconds(self, repetitions: int) -> float:
        """Return the seconds that one verification took on average."""
        public_key, der_signature, message = self._key, self._signature, self._message
        digest = self._digest
        started = time.perf_counter()
        for _ in range(repetitions):
            public_key.verify(der_signature, message, ec.ECDSA(digest))
        return (time.perf_counter() - started) / repetitions


@dataclass
class Samples:
    """What was measured of one case: seconds for one request, and the quotients."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the quotients."""
        return statistics.median(self.ratios)

    @property
    def microseconds(self) -> float:
        """The fastest batch's time for one request."""
        return min(self.seconds) * 1e6


async def measure(samples: Samples, yardstick: Yardstick, batch: Batch, *, size: int) -> None:
    """Run one batch of `size` requests between two batches of bare verifications."""
    gc.collect()
    before = yardstick.seconds(size)
    started = time.perf_counter()
    await batch()
    seconds = (time.perf_counter() - started) / size
    after = yardstick.seconds(size)
    samples.seconds.append(seconds)
    samples.ratios.append(2 * seconds / (before + after))
