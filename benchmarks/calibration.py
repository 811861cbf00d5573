"""How wide a model must be to take a given time on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

NEAR_ENOUGH = 0.05
WARM, TIMED = 2, 5


def width_for(target_s: float, seconds_at: Callable[[int], float], narrowest: int = 2, widest: int = 256) -> int:
    """The width at which a model comes nearest to `target_s`, found by halving; time must grow with the width."""
    measured: dict[int, float] = {}
    low, high = narrowest, widest
    while high - low > 1:
        middle = round((low * high) ** 0.5)
        measured[middle] = seconds_at(middle)
        if abs(measured[middle] / target_s - 1) < NEAR_ENOUGH:
            return middle
        low, high = (middle, high) if measured[middle] < target_s else (low, middle)
    return min(measured, key=lambda width: abs(measured[width] - target_s))


def usual_seconds(step: Callable[[], object]) -> float:
    """What a step takes: the median of a few, after some that don't count."""
    for _ in range(WARM):
        step()
    return median(_seconds(step) for _ in range(TIMED))


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
