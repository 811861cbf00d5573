"""What one host is asked in one call, until somebody has answered it. Calls nobody."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Any

from actors.errors import KnowledgeError, TeacherLostError
from actors.knowledge import Batch, TeacherRequest
from actors.policies.failure import ONE_ACCIDENT_S
from actors.pool.members import Replica
from actors.pool.parcel import Parcel
from actors.pool.replica import Asked, Reply
from actors.serving import Served


@dataclass(frozen=True)
class Attempt:
    """One replica that was asked, at a monotonic time; `ahead`: batches that it then had to answer, these included."""

    replica: Replica
    reference: Any
    asked_s: float
    ahead: int


@dataclass(eq=False)
class Errand:
    """`opened`: the number of the client's first batch in it; `parcels`: with the pixels, where these are sent;
    `attempts`: those under way; `tries`: how often a replica was asked in vain; `accidents`: by how many of these it
    was lost, counted from the first of each; `reply`
    or `failure`: once there is one; `served`: how, until it is told."""

    host: str
    opened: int
    asked: list[Asked] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    tries: int = 0
    accidents: int = 0
    struck_s: float = -inf
    reply: list[Reply] = field(default_factory=list)
    failure: list[KnowledgeError | TeacherLostError] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    @property
    def batches(self) -> int:
        return len(self.asked)

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
