"""With which seed a test that draws its cases begins.

Always with the same one: whether a change passes must not depend on chance. `DPOP_SEED=7` begins with 7, and
`DPOP_SEED=random` with one that nobody tried before; a test that fails shows it.
"""

import os
import random

__all__ = ["first_seed"]


def first_seed() -> int:
    """The first seed, which is printed."""
    told = os.environ.get("DPOP_SEED", "1")
    seed = random.SystemRandom().randrange(10**9) if told == "random" else int(told)
    print(f"DPOP_SEED={seed}")  # noqa: T201 - pytest shows it where the test fails
    return seed
