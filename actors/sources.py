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

import torch

from actors.knowledge import (
    Batch,
    Knowledge,
    KnowledgeRequest,
    TeacherRequest,
    at_rows,
    refuse_other_pixels,
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
        """Each is loaded when it is first asked."""
        return cls(_WhenAsked(specs, device))

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


class _WhenAsked(Mapping[str, Teacher]):
    def __init__(self, specs: Sequence[TeacherSpec], device: torch.device | None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._device = device
        self._loaded: dict[str, Teacher] = {}

    def __getitem__(self, name: str) -> Teacher:
        if name not in self._loaded:
            self._loaded[name] = Teacher(self._specs[name], self._device)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


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
                refuse_other_pixels(batch, one)
        waited_s, step_s, began_s = time.perf_counter() - start_s, start_s - began_s, time.perf_counter()
        opened.stepped(step_s + waited_s, waited_s, _bytes_of(batch, knowledge), source.likes_ahead)
        yield batch, knowledge


def _bytes_of(batch: Batch, knowledge: Sequence[Knowledge]) -> int:
    return sum(tensor.nbytes for tensor in batch.inputs.values()) + sum(one.num_bytes for one in knowledge)
