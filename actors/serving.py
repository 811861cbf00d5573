"""How teachers served one student worker: each answer as `Served`, all of them in a `ServingLog`; the numbers of
several workers as one by `merged`. Imports no torch and no Ray.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Summary = dict[str, Any]
Span = tuple[float, float]

POOL_FILE = "pool.json"
MOST_SPANS = 4000
DIGITS = 5


def timeline_file(rank: int | str) -> str:
    return f"timeline-{rank}.json"


@dataclass(frozen=True, slots=True)
class Served:
    """One answer. `service_s`: seconds it was computed, from `began_s` on (wall-clock); `queue_s`: seconds it had
    waited at the replica before; `retries`: how often it was asked again elsewhere.
    """

    teacher: str
    replica: str
    rows: int
    num_bytes: int
    service_s: float
    queue_s: float
    began_s: float
    retries: int


@dataclass
class _Tally:
    """What one teacher did since the last summary."""

    rows: int = 0
    num_bytes: int = 0
    retries: int = 0
    waited_s: float = 0.0
    service_s: array[float] = field(default_factory=lambda: array("d"))
    queue_s: array[float] = field(default_factory=lambda: array("d"))
    replicas: set[str] = field(default_factory=set)

    def add(self, served: Served) -> None:
        self.rows += served.rows
        self.num_bytes += served.num_bytes
        self.retries += served.retries
        self.service_s.append(served.service_s)
        self.queue_s.append(served.queue_s)
        self.replicas.add(served.replica)

    def summary(self, seconds: float) -> Summary:
        return {
            "seconds": seconds,
            "rows": self.rows,
            "images_per_s": self.rows / seconds,
            "service_ms": _in_ms(self.service_s),
            "queue_ms": _in_ms(self.queue_s),
            "waited_s": self.waited_s,
            "waited_share": self.waited_s / seconds,
            "bytes_per_sample": self.num_bytes / max(1, self.rows),
            "retries": self.retries,
            "replicas": len(self.replicas),
        }


def _in_ms(seconds: array[float]) -> dict[str, float]:
    """0 where there was no answer."""
    median, p99 = np.percentile(seconds, (50, 99)).tolist() if seconds else (0.0, 0.0)
    return {"median": 1000 * median, "p99": 1000 * p99}


class _Spans:
    """Who was busy when, in one epoch; nothing more once there are `MOST_SPANS`, so that all lanes end together."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._found: list[tuple[tuple[str, ...], Span]] = []

    def add(self, lane: tuple[str, ...], began_s: float, seconds: float) -> None:
        if len(self._found) < MOST_SPANS:
            self._found.append((lane, (began_s, seconds)))

    def timeline(self) -> dict[str, Any]:
        own = [start for lane, (start, _) in self._found if len(lane) < 2]
        began = min(own or [start for _, (start, _) in self._found], default=0.0)
        steps: list[Span] = []
        waits: dict[str, list[Span]] = {}
        answers: dict[str, dict[str, list[Span]]] = {}
        for lane, (start, seconds) in self._found:
            if start + seconds <= began:  # an answer of a replica that worked ahead, in the epoch before
                continue
            ahead_s = max(0.0, began - start)
            span = (round(start + ahead_s - began, DIGITS), round(seconds - ahead_s, DIGITS))
            match lane:
                case (teacher, replica):
                    answers.setdefault(teacher, {}).setdefault(replica, []).append(span)
                case (teacher,):
                    waits.setdefault(teacher, []).append(span)
                case _:
                    steps.append(span)
        return {"epoch": self.epoch, "began": began, "steps": steps, "waits": waits, "answers": answers}


class ServingLog:
    """What one student worker collects, in the thread that trains: numbers always, spans between `record` and the next
    `summary`. All times of beginning are `time.time()`. `waited_s`: seconds in all, by
    teacher, `rows`: as well; `retries`: in all.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.waited_s: dict[str, float] = {}
        self.retries = 0
        self._tallies: dict[str, _Tally] = {}
        self._spans = _Spans(epoch=-1)
        self._records = False

    def record(self, epoch: int) -> None:
        """Spans of this epoch are kept, and those of an earlier one forgotten."""
        self._spans = _Spans(epoch)
        self._records = True

    def answer(self, served: Served) -> None:
        self.retries += served.retries
        self.rows[served.teacher] = self.rows.get(served.teacher, 0) + served.rows
        self._tally(served.teacher).add(served)
        if self._records:
            self._spans.add((served.teacher, served.replica), served.began_s, served.service_s)

    def waited(self, teacher: str, began_s: float, seconds: float) -> None:
        """The student stood still for this teacher."""
        self.waited_s[teacher] = self.waited_s.get(teacher, 0.0) + seconds
        self._tally(teacher).waited_s += seconds
        if self._records:
            self._spans.add((teacher,), began_s, seconds)

    def step(self, began_s: float, seconds: float) -> None:
        """The student made a step of training."""
        if self._records:
            self._spans.add((), began_s, seconds)

    def summary(self, seconds: float) -> dict[str, Summary]:
        """By teacher, of the `seconds` since the last call."""
        self._records = False
        tallies, self._tallies = self._tallies, {}
        return {teacher: tally.summary(seconds) for teacher, tally in tallies.items()}

    def timeline(self) -> dict[str, Any]:
        """Of the recorded epoch, as JSON takes it: `[seconds since it began, seconds]` of `steps`, of `waits` by
        teacher and of `answers` by teacher and replica; `began`: wall-clock of the first step or wait, by which workers
        are aligned.
        """
        return self._spans.timeline()

    def _tally(self, teacher: str) -> _Tally:
        return self._tallies.setdefault(teacher, _Tally())


def merged(workers: Sequence[Mapping[str, Summary]]) -> dict[str, Summary]:
    """Summaries of the same epoch by several workers as one by teacher: images/s add up, the share of the waits is the
    workers' mean.
    """
    teachers = dict.fromkeys(teacher for worker in workers for teacher in worker)
    found = {teacher: [worker[teacher] for worker in workers if teacher in worker] for teacher in teachers}
    return {
        teacher: {
            **_as_one(several),
            "seconds": max(one["seconds"] for one in several),
            "images_per_s": sum(one["images_per_s"] for one in several),
            "waited_share": sum(one["waited_share"] for one in several) / len(workers),
        }
        for teacher, several in found.items()
    }


def over_epochs(epochs: Sequence[Summary]) -> Summary:
    """One worker's summaries of one teacher as one."""
    whole, seconds = _as_one(epochs), sum(one["seconds"] for one in epochs)
    rates = {"images_per_s": whole["rows"] / seconds, "waited_share": whole["waited_s"] / seconds}
    return {**whole, "seconds": seconds, **rates}


def _as_one(several: Sequence[Summary]) -> Summary:
    """What does not ask whose summaries they are. Medians and percentiles are means by rows: near the true ones where
    the parts are alike.
    """
    rows = sum(one["rows"] for one in several)

    def by_rows(values: Iterable[float]) -> float:
        return sum(value * one["rows"] for value, one in zip(values, several, strict=True)) / max(1, rows)

    def in_ms(key: str) -> dict[str, float]:
        return {which: by_rows(one[key][which] for one in several) for which in ("median", "p99")}

    return {
        "rows": rows,
        "service_ms": in_ms("service_ms"),
        "queue_ms": in_ms("queue_ms"),
        "waited_s": sum(one["waited_s"] for one in several),
        "bytes_per_sample": by_rows(one["bytes_per_sample"] for one in several),
        "retries": sum(one["retries"] for one in several),
        "replicas": max(one["replicas"] for one in several),
    }
