"""What a replay store tells of each exchange with its server, to whoever measures it."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ExchangeSink", "StoreExchange"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreExchange:
    """One exchange with a server of the replay store.

    - `entries`: how many travelled together. `seconds`: from sending them until the last reply was read; what
      they waited before isn't counted.
    - `answered`: False where the replies didn't come, or made no sense.
    """

    entries: int
    seconds: float
    answered: bool


ExchangeSink = Callable[[StoreExchange], object]
