"""One replica of a host: a thin shell around its teachers. Imports no Ray."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.data import Rows, SharedDataset, training_rows
from actors.knowledge import (
    Packed,
    RowNumbers,
    TeacherRequest,
    at_rows,
    pack,
    packed_size,
    refuse_unbounded,
    row_digests,
)
from actors.memory import keep_freed_memory
from actors.serving import Served
from actors.specs import DataSpec, Resources, TeacherSpec
from actors.teacher import Teacher

CONTROL = "control"
"""The concurrency group in which a replica says how it is, whatever it computes."""

Pixels = Mapping[str, np.ndarray]
Built = dict[RowNumbers, tuple[Mapping[str, Tensor], np.ndarray | None]]
"""Of one batch, by the rows that are asked about: named tensors, and the digest of each row where it was built here."""

Judged = tuple[list[list[Packed]], list[list[tuple[float, float]]]]
"""Knowledge and spans, as in a `Reply`."""


@dataclass(frozen=True)
class Asked:
    """What a host is asked about one batch. `pixels`: in which parcel they lie and where, if they are sent."""

    ids: np.ndarray
    views: np.ndarray
    requests: tuple[TeacherRequest, ...]
    pixels: tuple[int, int] = (0, 0)

    @property
    def row_numbers(self) -> set[RowNumbers]:
        return {request.rows for request in self.requests}


@dataclass(frozen=True)
class Reply:
    """What a replica answers to one call: knowledge by batch and request, each with when its computing began
    (`time.time()`) and the seconds that took. `queue_s`: from when the call was taken up until then; `present`: batches
    that were taken up and are still to be answered. Beyond `CALLS_AT_ONCE` calls Ray keeps back what waits."""

    answers: list[list[Packed]]
    spans: list[list[tuple[float, float]]]
    queue_s: float
    present: int

    @property
    def service_s(self) -> float:
        """Of one batch."""
        return sum(seconds for batch in self.spans for _, seconds in batch) / len(self.spans)

    @property
    def slowest(self) -> str:
        """The teacher that took longest with one batch."""
        return max(self._each, key=lambda each: each[0][1])[1]["teacher"]

    def served(self, replica: int, retries: int) -> Iterator[Served]:
        """Each answer for the log; the queue and the retries are the first one's."""
        queue_s = self.queue_s
        for (began_s, service_s), packed in self._each:
            rows, num_bytes = packed_size(packed)
            yield Served(packed["teacher"], str(replica), rows, num_bytes, service_s, queue_s, began_s, retries)
            queue_s, retries = 0.0, 0

    @property
    def _each(self) -> Iterator[tuple[tuple[float, float], Packed]]:
        for spans, answers in zip(self.spans, self.answers, strict=True):
            yield from zip(spans, answers, strict=True)


class TeacherActor:
    """Of several calls at once one thread builds pixels while another judges, in the order in which the calls came:
    who came first is awaited first, and neither the user's dataset nor the user's modules need be safe for threads.
    `dataset` None: pixels are sent with every call.
    """

    def __init__(self, specs: Sequence[TeacherSpec], data: DataSpec, dataset: SharedDataset | None) -> None:
        keep_freed_memory()
        device = device_for(specs[0].resources)
        self._teachers = {spec.name: Teacher(spec, device) for spec in specs}
        self._rows = None if dataset is None else training_rows(dataset.open(), data)
        self._building, self._judging = ThreadPoolExecutor(1, "building"), ThreadPoolExecutor(1, "judging")
        self._present: list[int] = []
        self._busy_s = 0.0
        self._judging_since: list[float] = []
        self._judged = 0

    def pid(self) -> int:
        return os.getpid()

    def state(self) -> tuple[int, float, int]:
        """Batches that are still to be answered; seconds of computing so far, the one under way included; batches that
        were judged."""
        under_way_s = [time.perf_counter() - start for start in self._judging_since]
        return sum(self._present), self._busy_s + sum(under_way_s), self._judged

    def answer(self, packed: bytes, *parcels: Any) -> tuple[Any, ...]:
        """The fields of a `Reply`. `packed`: a list of `Asked`; `parcels`: with their pixels, where these are sent.

        Plain pickles and tuples: Ray takes several times as long for objects of our classes.
        """
        arrived = time.time()
        asked: list[Asked] = pickle.loads(packed)
        self._present.append(len(asked))
        try:
            judging = self._building.submit(self._build_and_pass_on, asked, parcels).result()
            answers, spans = judging.result()
        finally:
            self._present.remove(len(asked))
        return answers, spans, spans[0][0][0] - arrived, sum(self._present)

    def _build_and_pass_on(self, asked: Sequence[Asked], parcels: Sequence[Any]) -> Future[Judged]:
        return self._judging.submit(self._judge, asked, self._build(asked, parcels))

    def _build(self, asked: Sequence[Asked], parcels: Sequence[Any]) -> list[Built]:
        if self._rows is not None:
            return [_built(self._rows, one) for one in asked]
        pixels: list[list[Pixels]] = [pickle.loads(one) if isinstance(one, bytes) else one for one in parcels]
        return [_taken(one, pixels[one.pixels[0]][one.pixels[1]]) for one in asked]

    @torch.no_grad()
    def _judge(self, asked: Sequence[Asked], built: Sequence[Built]) -> Judged:
        answers: list[list[Packed]] = []
        spans: list[list[tuple[float, float]]] = []
        for one, pixels in zip(asked, built, strict=True):
            answers.append([])
            spans.append([])
            for request in one.requests:
                began, start = time.time(), time.perf_counter()
                self._judging_since = [start]
                try:
                    answers[-1].append(self._answer(one, request, pixels))
                finally:
                    self._judging_since = []
                spans[-1].append((began, time.perf_counter() - start))
                self._busy_s += spans[-1][-1][1]
            self._judged += 1
        return answers, spans

    def _answer(self, asked: Asked, request: TeacherRequest, built: Built) -> Packed:
        inputs, digests = built[request.rows]
        knowledge = self._teachers[request.teacher].answer(inputs, request, digests).to(torch.device("cpu"))
        refuse_unbounded(knowledge, at_rows(asked.ids, request.rows))
        return pack(knowledge)


def device_for(resources: Resources) -> torch.device:
    return torch.device("cuda" if resources.num_gpus and torch.cuda.is_available() else "cpu")


def _taken(asked: Asked, pixels: Pixels) -> Built:
    # Zero-copy, perhaps over shared memory: never written into.
    inputs = {name: torch.from_dlpack(array) for name, array in pixels.items()}
    return {
        rows: ({name: at_rows(tensor, rows) for name, tensor in inputs.items()}, None) for rows in asked.row_numbers
    }


def _built(rows: Rows, asked: Asked) -> Built:
    built: Built = {}
    for numbers in asked.row_numbers:
        inputs, _ = rows.build(at_rows(asked.ids, numbers), at_rows(asked.views, numbers))
        built[numbers] = inputs, row_digests(inputs)
    return built
