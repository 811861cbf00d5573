"""The replicas of one host, as their owner keeps them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from math import inf
from statistics import fmean
from typing import Any

import ray
from ray.exceptions import RayError

from actors.errors import first_line
from actors.policies.failure import ONE_ACCIDENT_S, pause_before_start_s
from actors.policies.scaling import TICKS_TO_SHRINK, Demand, change
from actors.pool.chronicle import Chronicle
from actors.pool.members import HostStatus, Replica
from actors.pool.replica import CONTROL, TeacherActor
from actors.specs import DataSpec, TeacherSpec

logger = logging.getLogger(__name__)

CALLS_AT_ONCE = 8
PULSE_S = 1.0
LEAVES_WITHIN_S = 60.0
QUIET_FOR_S = 1.0


class Kept:
    """One actor from its start to its end: `loaded` is ready once it can serve. Pulses say what it does."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.loaded = actor.pid.remote()
        self.present = 0
        self.busy = 0.0
        self.felt_s = self._asked_s = time.monotonic()
        self._pulse = [self.loaded]
        self._busy_s = 0.0

    @property
    def pid(self) -> int:
        return ray.get(self.loaded)

    def feel(self) -> None:
        """Takes what it has said of itself and asks anew; raises RayError where it is dead. `felt_s`: when it was asked
        what it said last."""
        now_s = time.monotonic()
        if now_s - self._asked_s < PULSE_S:
            return
        ready, _ = ray.wait(self._pulse, timeout=0)
        if not ready:
            return
        if ready != [self.loaded]:
            self.present, busy_s, _ = ray.get(ready[0])
            self.busy = (busy_s - self._busy_s) / (self._asked_s - self.felt_s)
            self._busy_s, self.felt_s = busy_s, self._asked_s
        self._pulse, self._asked_s = [self.actor.state.options(concurrency_group=CONTROL).remote()], now_s


class Host:
    """`wanted`: how many replicas there should be; the methods make it so, each a step that never waits."""

    def __init__(
        self, specs: Sequence[TeacherSpec], data: DataSpec, dataset: ray.ObjectRef | None, chronicle: Chronicle
    ) -> None:
        first = specs[0]
        self.name = first.host
        self.specs = tuple(specs)
        self.serving: dict[int, Kept] = {}
        self.starting: dict[int, Kept] = {}
        self.lost: dict[Replica, str] = {}
        self.failures: list[str] = []
        self._leaving: dict[int, tuple[Kept, float]] = {}
        self._wanted = self._fewest = first.replicas
        self._most = first.most_replicas or first.replicas
        self._arguments = (self.specs, data, dataset)
        self._chronicle = chronicle
        self._started = 0
        self._failed_s = -inf
        self._demands: list[Demand] = []

    def replicas(self) -> list[tuple[int, Kept]]:
        """Those who serve, by number."""
        return sorted(self.serving.items())

    @property
    def failed(self) -> str | None:
        """Why there will be no replica any more."""
        hopeless = not self.starting and self._pause_s == inf
        return f"no new one can be started: {self.failures[-1]}" if hopeless else None

    @property
    def status(self) -> HostStatus:
        waited = fmean([tick.waited for tick in self._demands]) if self._demands else 0.0
        teachers = tuple(spec.name for spec in self.specs)
        trouble = self.failures[-1].splitlines()[-1] if self.failures else ""
        return HostStatus(teachers, self._wanted, len(self.serving), waited, trouble)

    def wish(self, more: int) -> None:
        """By hand: so many more, or fewer; at least one is left. The bounds go along: `scale` does not undo it."""
        self._wanted = max(1, self._wanted + more)
        self._fewest, self._most = max(1, self._fewest + more), max(1, self._most + more)
        self._demands = []
        self.failures.clear()
        self._say(f"{self._wanted} wanted by hand")

    def scale(self, waited: float) -> None:
        """`waited`: the share of the time since the last call that students waited for it."""
        busy = [kept.busy for kept in self.serving.values()]
        self._demands = [*self._demands[-TICKS_TO_SHRINK:], Demand(waited, sum(busy) / max(1, len(busy)))]
        by = change(self._demands, self._wanted, self._fewest, self._most)
        if by < 0 or (by > 0 and not self.starting and not self.failures):
            self._wanted += by
            self._demands = []
            self._say(f"{'grows' if by > 0 else 'shrinks'} to {self._wanted}")

    def fill(self) -> None:
        """Starts whom it lacks, lets go whom it has too many, from the newest on."""
        may_start = time.monotonic() - self._failed_s >= self._pause_s
        while may_start and len(self.serving) + len(self.starting) < self._wanted:
            self.starting[self._started] = Kept(self._new_actor())
            self._started += 1
        for number in sorted([*self.serving, *self.starting])[self._wanted :]:
            if kept := self.starting.pop(number, None):
                ray.kill(kept.actor)
            else:
                self._leaving[number] = self.serving.pop(number), time.monotonic()
                self._say(f"replica {number} leaves")

    def welcome(self, timeout_s: float = 0.0) -> None:
        """Those who have loaded their teachers serve."""
        numbers = {kept.loaded: number for number, kept in self.starting.items()}
        loaded, _ = ray.wait(list(numbers), num_returns=len(numbers), timeout=timeout_s) if numbers else ([], [])
        for reference in loaded:
            kept = self.starting.pop(numbers[reference])
            try:
                ray.get(reference)
            except RayError as error:
                if time.monotonic() - self._failed_s > ONE_ACCIDENT_S:
                    self.failures.append(str(error))
                    self._failed_s = time.monotonic()
                self._say(f"replica {numbers[reference]} could not load: {first_line(error)}")
                continue
            self.failures.clear()
            self.serving[numbers[reference]] = kept
            self._say(f"replica {numbers[reference]} serves")

    def look(self) -> None:
        """Notices who has died; ends those who leave and have nothing left to answer."""
        for number, kept in list(self.serving.items()):
            try:
                kept.feel()
            except RayError as error:
                self.lose(number, first_line(error))
        for number, (kept, left_s) in list(self._leaving.items()):
            if time.monotonic() - left_s > LEAVES_WITHIN_S or _quiet(kept, left_s + QUIET_FOR_S):
                ray.kill(kept.actor)
                del self._leaving[number]

    def lose(self, number: int, cause: str) -> None:
        """Somebody says that it is dead or hangs: now it is dead."""
        if kept := self.serving.pop(number, None):
            ray.kill(kept.actor)
            self.lost[Replica(self.name, number)] = cause
            if not self.serving:  # what had no room beside the others may have room now
                self.failures.clear()
            self._chronicle.restart(self.name)
            self._say(f"replica {number} was lost: {cause}")
            logger.warning("teacher %s: replica %d was lost: %s", self.name, number, cause)

    def stop(self) -> None:
        for kept in (*self.serving.values(), *self.starting.values(), *(kept for kept, _ in self._leaving.values())):
            ray.kill(kept.actor)

    @property
    def _pause_s(self) -> float:
        return pause_before_start_s(len(self.failures), len(self.serving))

    def _new_actor(self) -> Any:
        resources = self.specs[0].resources
        remote: Any = ray.remote
        actor = remote(concurrency_groups={CONTROL: 1})(TeacherActor)
        return actor.options(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            resources=dict(resources.custom),
            max_concurrency=CALLS_AT_ONCE,
        ).remote(*self._arguments)

    def _say(self, text: str) -> None:
        self._chronicle.event(self.name, text)
        self._chronicle.count(self.name, len(self.serving))


def _quiet(kept: Kept, since_s: float) -> bool:
    """Whether it has said, when asked after a time, that it has nothing left to answer; or is dead."""
    try:
        kept.feel()
    except RayError:
        return True
    return kept.present == 0 and kept.felt_s > since_s
