"""How far ahead teachers are asked, and how many batches go into one call."""

from __future__ import annotations

from math import ceil

FIRST_DEPTH = 2
MOST_DEPTH = 64
WINDOW_BYTES = 256_000_000
WAITED_TOO_LONG = 0.02
ONE_CALL_EACH_S = 0.030
MOST_BATCHES_PER_CALL = 8
REMEMBERED_STEPS = 16


class Window:
    """How many batches are under way at the teachers: a fixed number, or, given None, one more whenever the student
    has waited for more than a fiftieth of a step, within a byte budget."""

    def __init__(self, depth: int | None, budget_bytes: int = WINDOW_BYTES) -> None:
        self.grows = depth is None
        self.depth = FIRST_DEPTH if depth is None else depth
        self._budget_bytes = budget_bytes

    def stepped(self, step_s: float, waited_s: float, batch_bytes: int, at_once: int) -> None:
        """Of one step: all its seconds and those that the student waited; the bytes of a batch with its knowledge; how
        many batches the source likes to be asked for at once."""
        if not self.grows:
            return
        if waited_s > WAITED_TOO_LONG * step_s or self.depth < 2 * at_once:
            affordable = self._budget_bytes // max(1, batch_bytes)
            self.depth = max(FIRST_DEPTH, min(self.depth + 1, MOST_DEPTH, affordable))


def batches_per_call(calls: int, step_s: float | None, ahead: int) -> int:
    """So many that about one call is made in `ONE_CALL_EACH_S`: calls, not bytes, are what a small student pays for.

    `calls`: hosts that a batch asks; `step_s`: None before it is known; `ahead`: batches asked for and not yet used, of
    which at most half wait for company.
    """
    if not step_s:
        return 1
    wanted = ceil(calls * ONE_CALL_EACH_S / step_s - 0.5)
    return max(1, min(wanted, MOST_BATCHES_PER_CALL, (ahead + 1) // 2))


class CallSize:
    """How many batches the next call should carry, from the pace at which they are used."""

    def __init__(self) -> None:
        self.batches = 1
        self._calls = 1
        self._ahead = 0
        self._idle = False
        self._used_s: list[float] = []

    def asked(self, calls: int) -> None:
        """A batch is asked for, of so many hosts."""
        self._calls = calls
        self._ahead += 1
        self._idle = False
        self.batches = batches_per_call(self._calls, self._step_s, self._ahead)

    def used(self, now_s: float) -> bool:
        """A batch is used. True if none was asked for since the last: what waits for company then waits in vain."""
        idle, self._idle = self._idle, True
        self._ahead -= 1
        self._used_s = [*self._used_s[-REMEMBERED_STEPS:], now_s]
        return idle

    @property
    def _step_s(self) -> float | None:
        steps = len(self._used_s) - 1
        return (self._used_s[-1] - self._used_s[0]) / steps if steps > 0 else None
