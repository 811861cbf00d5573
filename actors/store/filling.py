"""Fills a store ahead of training: asks for all rows in all views, as a student would. One of several Ray tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import ray
import torch

from actors.data import NO_LABEL, Rows, SharedDataset, slice_ids, training_rows
from actors.knowledge import Batch, KnowledgeRequest, Position
from actors.memory import keep_freed_memory
from actors.progress import Progress
from actors.sources import prefetched
from actors.store.stored import StoredTeachers
from actors.training import TrainJob, report_to, source_of
from actors.worker import Worker

REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class FillJob:
    """One of `world_size` shares of a rung's rows. `requests`: what is asked in each view."""

    job: TrainJob
    requests: Mapping[int, KnowledgeRequest]
    rank: int
    world_size: int


def fill_task(fill: FillJob) -> None:
    """Asks for what the store lacks of this share, view by view."""
    keep_freed_memory()
    torch.set_num_threads(fill.job.spec.resources.threads)
    shared: SharedDataset = ray.get(fill.job.dataset)
    dataset = shared.open()
    rows = training_rows(dataset, fill.job.spec.data)
    ids = rows_of(fill, len(dataset))
    with source_of(fill.job, Worker(fill.rank, fill.world_size)) as source:
        assert isinstance(source, StoredTeachers)
        for number, (view, request) in enumerate(fill.requests.items()):
            _fill_view(fill, source, rows, source.unknown(ids, view, request), number, view)


def rows_of(fill: FillJob, length: int) -> np.ndarray:
    """The ids of this share, of the labelled and the unlabelled slice."""
    spec = fill.job.spec
    slices = slice_ids(spec.data.slices, length, spec.data.seed)
    every = np.concatenate([slices[name] for name in (spec.labelled, spec.unlabelled) if name])
    return every[fill.rank :: fill.world_size]


def _fill_view(fill: FillJob, source: StoredTeachers, rows: Rows, ids: np.ndarray, number: int, view: int) -> None:
    report, request = report_to(fill.job.board), fill.requests[view]
    window = fill.job.spec.window
    share = max(1, fill.job.spec.recipe.batch_size // fill.world_size)
    steps, began_s, told_s = -(-len(ids) // share), time.monotonic(), 0.0
    stream = prefetched(source, _batches(rows, ids, view, share), lambda batch: request, window)
    for step, _ in enumerate(stream, 1):
        if step == steps or time.monotonic() - told_s > REPORT_EVERY_S:
            told_s = time.monotonic()
            report(_progress(fill, number, step, steps, share * step / (told_s - began_s), share))


def _batches(rows: Rows, ids: np.ndarray, view: int, size: int) -> Iterator[Batch]:
    for step, start in enumerate(range(0, len(ids), size)):
        some = ids[start : start + size]
        views = np.full(len(some), view, dtype=np.int32)
        inputs, labels = rows.build(some, views)
        yield Batch(some, views, inputs, torch.full_like(labels, NO_LABEL), Position(view, step))


def _progress(fill: FillJob, number: int, step: int, steps: int, rows_per_s: float, share: int) -> Progress:
    views = len(fill.requests)
    left = (steps - step + (views - number - 1) * steps) * share
    name = f"store for {fill.job.spec.name}" + (f" {fill.rank + 1}/{fill.world_size}" if fill.world_size > 1 else "")
    return Progress(name, number, views, step, steps, images_per_s=rows_per_s, left_s=left / rows_per_s)
