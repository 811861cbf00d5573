"""What one host is asked in one call, until somebody has answered it. Calls nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actors.knowledge import Batch, TeacherRequest
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
    `attempts`: those under way; `tries`: how often a replica was asked in vain; `hedged`: whether a second was asked
    because the first was late; `reply`: once it is there."""

    host: str
    opened: int
    asked: list[Asked] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    tries: int = 0
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

    def add(self, batch: Batch, requests: tuple[TeacherRequest, ...], parcel: Parcel | None, place: int) -> int:
        """The place of the batch among those of the errand. `place`: of its pixels in the parcel."""
        if parcel is not None and parcel not in self.parcels[-1:]:
            self.parcels.append(parcel)
        self.asked.append(Asked(batch.ids, batch.views, requests, (len(self.parcels) - 1, place)))
        return len(self.asked) - 1
