"""Where knowledge comes from. `TeacherSource` is the seam: a student cannot tell its implementations apart.

`LocalTeachers` answers in the student's process, `actors.pool` from Ray actors. `prefetched` is the only
place that knows about order. Imports no Ray.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from actors.errors import KnowledgeError
from actors.knowledge import (
    Batch,
    Knowledge,
    KnowledgeRequest,
    TeacherRequest,
    at_rows,
    named_ids,
    refuse_unbounded,
)
from actors.policies.prefetching import Window
from actors.serving import Served, ServingLog
from actors.specs import TeacherSpec
from actors.teacher import Teacher

LOCAL = "local"
"""What the student's own process is called among replicas."""


class Answer(Protocol):
    """Knowledge that is under way, in the order of the request."""

    def result(self) -> list[Knowledge]: ...


class TeacherSource(Protocol):
    """Asks teachers about a batch; returns at once. `log`: how they served; `likes_ahead`: how many batches it likes
    to have been asked about when it answers the first."""

    @property
    def log(self) -> ServingLog: ...

    @property
    def likes_ahead(self) -> int: ...

    def ask(self, batch: Batch, request: KnowledgeRequest) -> Answer: ...


class Measure(Protocol):
    """Adds the time of a block to a named share."""

    def __call__(self, share: str, /) -> AbstractContextManager[object]: ...


class Given:
    """An answer that is there already."""

    def __init__(self, knowledge: list[Knowledge]) -> None:
        self._knowledge = knowledge

    def result(self) -> list[Knowledge]:
        return self._knowledge


class LocalTeachers:
    """Teachers in the student's own process, one after the other."""

    likes_ahead = 1

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self.log = ServingLog()
        self._teachers = teachers

    @classmethod
    def load(cls, specs: Sequence[TeacherSpec], device: torch.device | None = None) -> LocalTeachers:
        return cls({spec.name: Teacher(spec, device) for spec in specs})

    @torch.no_grad()
    def ask(self, batch: Batch, request: KnowledgeRequest) -> Given:
        return Given([self._answer(batch, one) for one in request])

    def _answer(self, batch: Batch, request: TeacherRequest) -> Knowledge:
        began, start = time.time(), time.perf_counter()
        inputs = {name: at_rows(tensor, request.rows) for name, tensor in batch.inputs.items()}
        knowledge = self._teachers[request.teacher].answer(inputs, request)
        ids = at_rows(batch.ids, request.rows)
        refuse_unbounded(knowledge, ids)
        seconds = time.perf_counter() - start
        self.log.answer(Served(request.teacher, LOCAL, len(ids), knowledge.num_bytes, seconds, 0.0, began, 0))
        self.log.waited(request.teacher, began, seconds)
        return knowledge


def prefetched(
    source: TeacherSource,
    batches: Iterable[Batch],
    request: Callable[[Batch], KnowledgeRequest],
    window: int | None,
    measure: Measure = lambda share: nullcontext(),
) -> Iterator[tuple[Batch, list[Knowledge]]]:
    """Each batch with its knowledge, in order, while the next `window` batches are under way (0: one at a time; None:
    as many as it takes that the student does not wait).

    Raises:
        KnowledgeError: a teacher judged other pixels than the student's, or sent NaN or infinite values.
    """
    under_way: deque[tuple[Batch, KnowledgeRequest, Answer]] = deque()
    upcoming = iter(batches)
    opened = Window(window)
    began_s = time.perf_counter()
    while True:
        while len(under_way) <= opened.depth:
            with measure("data"):
                batch = next(upcoming, None)
            if batch is None:
                break
            with measure("ask"):
                asked = request(batch)
                under_way.append((batch, asked, source.ask(batch, asked)))
        if not under_way:
            return
        batch, asked, answer = under_way.popleft()
        start_s = time.perf_counter()
        with measure("wait"):
            answers = zip(asked, answer.result(), strict=True)
            knowledge = [replace(one, rows=of.rows) for of, one in answers]
            for one in knowledge:
                _refuse_other_pixels(batch, one)
        waited_s, step_s, began_s = time.perf_counter() - start_s, start_s - began_s, time.perf_counter()
        opened.stepped(step_s + waited_s, waited_s, _bytes_of(batch, knowledge), source.likes_ahead)
        yield batch, knowledge


def _refuse_other_pixels(batch: Batch, knowledge: Knowledge) -> None:
    if knowledge.digests is None:
        return
    ids = at_rows(batch.ids, knowledge.rows)
    digests = at_rows(batch.digests, knowledge.rows)
    if not np.array_equal(knowledge.digests, digests):
        raise KnowledgeError(
            f"teacher {knowledge.teacher!r} judged other pixels than the student sees, sample ids "
            f"{named_ids(ids[knowledge.digests != digests])} in "
            f"view {int(batch.views[0])}; data.views must depend on nothing but its dataset, id and generator"
        )


def _bytes_of(batch: Batch, knowledge: Sequence[Knowledge]) -> int:
    return sum(tensor.nbytes for tensor in batch.inputs.values()) + sum(one.num_bytes for one in knowledge)
