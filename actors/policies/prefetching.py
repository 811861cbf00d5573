"""How far ahead teachers are asked, and how many batches go into one call."""

from __future__ import annotations

from math import ceil, isnan, nan
from statistics import median

FIRST_DEPTH = 2
MOST_DEPTH = 64
WINDOW_BYTES = 256_000_000
WAITED_TOO_LONG = 0.02
ONE_CALL_EACH_S = 0.060
MOST_BATCHES_PER_CALL = 8
REMEMBERED_STEPS = 16


class Window:
    """How many batches are under way at the teachers: a fixed number, or, given None, one more whenever the student
    has waited for more than a fiftieth of a step, within a byte budget."""

    def __init__(self, depth: int | None, budget_bytes: int = WINDOW_BYTES) -> None:
        self.grows = depth is None
        self.depth = FIRST_DEPTH if depth is None else depth
        self._budget_bytes = budget_bytes

    def stepped(self, step_s: float, waited_s: float, batch_bytes: int, liked: int) -> None:
        """Of one step: all its seconds and those that the student waited; the bytes of a batch with its knowledge; how
        many batches the source likes to have under way."""
        if not self.grows:
            return
        wanted = self.depth + 1 if waited_s > WAITED_TOO_LONG * step_s or self.depth < liked else self.depth
        affordable = self._budget_bytes // max(1, batch_bytes)
        self.depth = max(FIRST_DEPTH, min(wanted, MOST_DEPTH, affordable))


def batches_per_call(calls: int, step_s: float | None) -> int:
    """So many that about one call is made in `ONE_CALL_EACH_S`: calls, not bytes, are what a small student pays for.

    `calls`: hosts that a batch asks; `step_s`: None before it is known.
    """
    wanted = ceil(calls * ONE_CALL_EACH_S / step_s - 0.5) if step_s else 1
    return max(1, min(wanted, MOST_BATCHES_PER_CALL))


class CallSize:
    """How many batches the next call should carry, from the pace at which they are used; `liked`: how many should be
    under way for calls of the size that the pace asks for, one at each replica."""

    def __init__(self) -> None:
        self.batches = 1
        self.liked = 1
        self._ahead = 0
        self._idle = False
        self._steps_s: list[float] = []
        self._used_s = nan

    def asked(self, calls: int, replicas: int) -> None:
        """A batch is asked for, of so many hosts; `replicas`: of the largest."""
        self._ahead += 1
        self._idle = False
        wanted, under_way = batches_per_call(calls, self._step_s), max(2, replicas)
        self.liked = min(wanted * under_way, MOST_DEPTH) if wanted > 1 else 1
        self.batches = max(1, min(wanted, (self._ahead + 1) // under_way))

    def used(self, now_s: float) -> bool:
        """A batch is used. True if none was asked for since the last: what waits for company then waits in vain."""
        idle, self._idle = self._idle, True
        self._ahead -= 1
        if not isnan(self._used_s):
            self._steps_s = [*self._steps_s[-REMEMBERED_STEPS:], now_s - self._used_s]
        self._used_s = now_s
        return idle

    @property
    def _step_s(self) -> float | None:
        """The usual step: an epoch's evaluation does not count."""
        return median(self._steps_s) if self._steps_s else None
