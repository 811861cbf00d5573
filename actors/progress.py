"""What a rung tells while it trains: `Progress` in, shares of time by `Stopwatch`, seconds per step by `Pace`.
`ProgressBoard` holds the newest for the driver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CALLS_OF_A_PACE = 64


@dataclass(frozen=True)
class Progress:
    """Where a rung is. `terms`: unweighted means of this epoch's losses; `waited`: shares of the time so far in which
    it stood still for each teacher; `left_s`: seconds; `record`: of an epoch that is done, what its history says of it.
    """

    rung: str
    epoch: int
    epochs: int
    step: int
    steps: int
    terms: dict[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    images_per_s: float = 0.0
    waited: dict[str, float] = field(default_factory=dict)
    left_s: float | None = None
    record: dict[str, Any] | None = None

    @property
    def epoch_done(self) -> bool:
        return self.step == self.steps


Report = Callable[[Progress], None]


class Stopwatch:
    """Seconds by name, over a rung's life."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def __call__(self, share: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[share] = self.seconds.get(share, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def shares(self) -> dict[str, float]:
        return {name: seconds / self.total for name, seconds in self.seconds.items()} if self.total else {}


class Pace:
    """Seconds per step over the latest calls: what starting up took is no pace."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, int]] = deque(maxlen=CALLS_OF_A_PACE)

    def __call__(self, seconds: float, steps: int) -> float | None:
        """None while there was no step since the first of those calls. `seconds` and `steps`: so far."""
        self._latest.append((seconds, steps))
        first_seconds, first_steps = self._latest[0]
        return (seconds - first_seconds) / (steps - first_steps) if steps > first_steps else None


class ProgressBoard:
    """The newest progress of each rung and every finished epoch once; a small Ray actor that the driver polls."""

    def __init__(self) -> None:
        self._news: list[Progress] = []

    def post(self, progress: Progress) -> None:
        self._news = [old for old in self._news if old.rung != progress.rung or old.epoch_done]
        self._news.append(progress)

    def take(self) -> list[Progress]:
        """What came since the last call, in order."""
        news, self._news = self._news, []
        return news
