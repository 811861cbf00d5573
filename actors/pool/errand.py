"""What one host is asked in one call, until somebody has answered it. Calls nobody."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Any

from actors.knowledge import Batch, TeacherRequest
from actors.policies.failure import ONE_ACCIDENT_S
from actors.pool.members import Replica
from actors.pool.parcel import Parcel
from actors.pool.replica import Asked, Reply


@dataclass(frozen=True)
class Attempt:
    """One replica that was asked. `late_s`, `lost_s`: monotonic times from which it is late, and given up."""

    replica: Replica
    reference: Any
    asked_s: float
    late_s: float
    lost_s: float


@dataclass(eq=False)
class Errand:
    """`opened`: the number of the client's first batch in it; `parcels`: with the pixels, where these are sent;
    `attempts`: those under way; `tries`: how often a replica was asked in vain; `accidents`: by how many of these it
    was lost, counted from the first of each; `hedged`: whether a second was asked
    because the first was late; `reply`: once it is there."""

    host: str
    opened: int
    asked: list[Asked] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    tries: int = 0
    accidents: int = 0
    struck_s: float = -inf
    hedged: bool = False
    reply: list[Reply] = field(default_factory=list)

    @property
    def batches(self) -> int:
        return len(self.asked)

    @property
    def decision_s(self) -> float:
        """When the next decision falls due, monotonic."""
        late = [] if self.hedged else [self.attempts[0].late_s]
        return min([*late, *(attempt.lost_s for attempt in self.attempts)])

    def lost_by(self, now_s: float) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.lost_s <= now_s]

    def give_up(self, lost: Collection[Replica], now_s: float) -> None:
        """Nothing is awaited of these any more."""
        asked, self.attempts = self.attempts, [one for one in self.attempts if one.replica not in lost]
        self.tries += len(asked) - len(self.attempts)
        if len(self.attempts) < len(asked) and now_s - self.struck_s > ONE_ACCIDENT_S:
            self.accidents += 1
            self.struck_s = now_s

    def add(self, batch: Batch, requests: tuple[TeacherRequest, ...], parcel: Parcel | None, place: int) -> int:
        """The place of the batch among those of the errand. `place`: of its pixels in the parcel."""
        if parcel is not None and parcel not in self.parcels[-1:]:
            self.parcels.append(parcel)
        self.asked.append(Asked(batch.ids, batch.views, requests, (len(self.parcels) - 1, place)))
        return len(self.asked) - 1
