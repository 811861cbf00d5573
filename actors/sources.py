"""Where knowledge comes from. `TeacherSource` is the seam: a student cannot tell its implementations apart.

`LocalTeachers` answers in the student's process, `actors.pool.TeacherPool` from Ray actors. `prefetched` is the only
place that knows about order. Imports no Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from actors.errors import KnowledgeError
from actors.knowledge import Batch, Knowledge, KnowledgeRequest, TeacherRequest, at_rows
from actors.specs import TeacherSpec
from actors.teacher import Teacher

MOST_IDS_NAMED = 8


class Answer(Protocol):
    """Knowledge that is under way, in the order of the request."""

    def result(self) -> list[Knowledge]: ...


class TeacherSource(Protocol):
    """Asks teachers about a batch; returns at once."""

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

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self._teachers = teachers

    @classmethod
    def load(cls, specs: Sequence[TeacherSpec], device: torch.device | None = None) -> LocalTeachers:
        return cls({spec.name: Teacher(spec, device) for spec in specs})

    @torch.no_grad()
    def ask(self, batch: Batch, request: KnowledgeRequest) -> Given:
        return Given([self._answer(batch, one) for one in request])

    def _answer(self, batch: Batch, request: TeacherRequest) -> Knowledge:
        inputs = {name: at_rows(tensor, request.rows) for name, tensor in batch.inputs.items()}
        return self._teachers[request.teacher].answer(inputs, request, at_rows(batch.digests, request.rows))


def prefetched(
    source: TeacherSource,
    batches: Iterable[Batch],
    request: Callable[[Batch], KnowledgeRequest],
    window: int,
    measure: Measure = lambda share: nullcontext(),
) -> Iterator[tuple[Batch, list[Knowledge]]]:
    """Each batch with its knowledge, in order, while the next `window` batches are under way (0: one at a time).

    Raises:
        KnowledgeError: a teacher judged other pixels than the student's, or sent NaN or infinite values.
    """
    under_way: deque[tuple[Batch, KnowledgeRequest, Answer]] = deque()
    upcoming = iter(batches)
    while True:
        while len(under_way) <= window:
            with measure("data"):
                batch = next(upcoming, None)
            if batch is None:
                break
            with measure("wait"):
                asked = request(batch)
                under_way.append((batch, asked, source.ask(batch, asked)))
        if not under_way:
            return
        batch, asked, answer = under_way.popleft()
        with measure("wait"):
            answers = zip(asked, answer.result(), strict=True)
            knowledge = [replace(one, rows=of.rows) for of, one in answers]
            for one in knowledge:
                _check(batch, one)
        yield batch, knowledge


def _check(batch: Batch, knowledge: Knowledge) -> None:
    ids = at_rows(batch.ids, knowledge.rows)
    digests = at_rows(batch.digests, knowledge.rows)
    if knowledge.digests is not None and not np.array_equal(knowledge.digests, digests):
        differing = ids[knowledge.digests != digests]
        raise KnowledgeError(
            f"teacher {knowledge.teacher!r} judged other pixels than the student sees, sample ids "
            f"{_named(differing)} in "
            f"view {int(batch.views[0])}; data.views must depend on nothing but its dataset, id and generator"
        )
    for tap, tensor in knowledge.tensors.items():
        finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1).cpu().numpy()
        if not finite.all():
            raise KnowledgeError(
                f"teacher {knowledge.teacher!r} sent NaN or infinite values, tap {tap!r}, "
                f"sample ids {_named(ids[~finite])}; check its weights and its input section"
            )


def _named(ids: np.ndarray) -> str:
    more = f" and {len(ids) - MOST_IDS_NAMED} more" if len(ids) > MOST_IDS_NAMED else ""
    return ", ".join(str(int(i)) for i in ids[:MOST_IDS_NAMED]) + more
