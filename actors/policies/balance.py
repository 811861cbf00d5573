"""Which replica will answer first.

`Load` is what one client knows of one replica, `Router` chooses among the replicas of a host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from statistics import median_low

REMEMBERED = 64
ONE_IN = 16


@dataclass
class Load:
    """Batches asked for and not yet answered, by this client and by others, and the seconds that each has taken: the
    latest, what is usual and the slowest but for one in sixteen, which may have been stopped by something else. A first
    answer says little of what is usual: much is made ready in it. Where batches usually wait for more than this client
    knows of, for others ask as well, slow is what is usual for that wait."""

    own: int = 0
    others: int = 0
    service_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    pace_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    usual_s: float | None = field(default=None, init=False)
    slow_s: float | None = field(default=None, init=False)

    @property
    def outstanding(self) -> int:
        return self.own + self.others

    def answered(self, batches: int, service_s: float, present: int, pace_s: float) -> None:
        """`service_s`: of each of the `batches`; `present`: batches that are still at the replica, whoever asked;
        `pace_s`: what the replica says passed until they were answered, divided by the batches that were thought to be
        ahead, these included."""
        self.own -= batches
        self.others = max(0, present - self.own)
        self.service_s.append(service_s)
        ordered = sorted(self.service_s)
        self.pace_s.append(pace_s)
        self.slow_s = max(ordered[-1 - len(ordered) // ONE_IN], median_low(self.pace_s))
        self.usual_s = median_low(ordered) if len(ordered) > 1 else None


class Router:
    """Asks the replica with the earliest expected answer: outstanding batches times what a batch takes there.

    Ties go round from `turn`, a different one for each client, so that clients don't march in step.
    """

    def __init__(self, turn: int = 0) -> None:
        self.loads: dict[int, Load] = {}
        self._turn = turn

    def keep(self, replicas: Iterable[int]) -> None:
        """Forgets all others."""
        self.loads = {number: self.loads.get(number) or Load() for number in replicas}

    def choose(self, batches: int) -> int | None:
        """The replica to ask about so many batches; None where there is none."""
        numbers = list(self.loads)
        if not numbers:
            return None
        known = [load.usual_s for load in self.loads.values() if load.usual_s is not None]
        supposed_s = min(known, default=1.0)
        start = self._turn % len(numbers)
        self._turn += 1
        return min(
            (*numbers[start:], *numbers[:start]),
            key=lambda number: self._answers_in(number, batches, supposed_s),
        )

    def idle(self, shunned: Collection[int] = ()) -> list[int]:
        """Those who owe this client nothing, the fastest first."""
        idle = [number for number, load in self.loads.items() if not load.own and number not in shunned]
        return sorted(idle, key=lambda number: self.loads[number].usual_s or 0.0)

    def _answers_in(self, number: int, batches: int, supposed_s: float) -> float:
        load = self.loads[number]
        return (load.outstanding + batches) * (supposed_s if load.usual_s is None else load.usual_s)

    def sent(self, number: int, batches: int) -> int:
        """Notes a request; returns how many batches the replica now has to answer. What others had asked of those who
        are passed over is thought to dwindle meanwhile: only their own answers would say so."""
        for passed_over, load in self.loads.items():
            if passed_over != number:
                load.others = max(0, load.others - batches)
        load = self.loads[number]
        load.own += batches
        return load.outstanding

    def answered(self, number: int, batches: int, service_s: float, present: int, pace_s: float = 0.0) -> None:
        if load := self.loads.get(number):
            load.answered(batches, service_s, present, pace_s)

    def answered_nothing(self, number: int, batches: int) -> None:
        """It is done with them, but not as it should be."""
        if load := self.loads.get(number):
            load.own -= batches

    def slow_s(self, number: int) -> tuple[float | None, float | None]:
        """What a slow batch takes at that replica, and at the slowest of all; None where nothing was answered yet."""
        known = [load.slow_s for load in self.loads.values() if load.slow_s is not None]
        load = self.loads.get(number)
        return None if load is None else load.slow_s, max(known, default=None)
