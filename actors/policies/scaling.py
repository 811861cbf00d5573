"""How many replicas a host should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GROW_ABOVE = 0.10
WAITS_NO_MORE = 0.01
BUSY_ENOUGH = 0.70
TICKS_TO_GROW = 4
TICKS_TO_SHRINK = 40


@dataclass(frozen=True)
class Demand:
    """One tick of a host: the share of it that students waited for the host (their mean), and the share that its
    replicas computed (their mean)."""

    waited: float
    busy: float


def change(recent: Sequence[Demand], serving: int, fewest: int, most: int) -> int:
    """+1 to grow, -1 to shrink, else 0. `recent`: ticks since the last change, oldest first.

    Grows when students have waited through `TICKS_TO_GROW` ticks. Shrinks only when nobody has waited for
    `TICKS_TO_SHRINK`, ten times as long, and those who stay would not be busy all the time: what was just added is not
    taken away again.
    """
    latest = recent[-TICKS_TO_GROW:]
    if len(latest) == TICKS_TO_GROW and _mean([tick.waited for tick in latest]) > GROW_ABOVE:
        return 1 if serving < most else 0
    quiet = recent[-TICKS_TO_SHRINK:]
    if len(quiet) < TICKS_TO_SHRINK or serving <= fewest:
        return 0
    waited, busy = _mean([tick.waited for tick in quiet]), _mean([tick.busy for tick in quiet])
    return -1 if waited < WAITS_NO_MORE and busy * serving < BUSY_ENOUGH * (serving - 1) else 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
