"""How fast a store is filled: by a pool whose answers a store keeps, and by Ray Data's streaming executor, whose actors
hold the same teachers and write the same files. The latter is no part of Collegium.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch

from actors.data import SharedDataset, training_rows
from actors.digests import row_digests
from actors.knowledge import LOGITS, TeacherRequest
from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.sources import prefetched
from actors.specs import DataSpec, StoreSpec, TeacherSpec
from actors.storage import Folder
from actors.store.keys import pieces, row_keys
from actors.store.shard import Rows
from actors.store.shelf import Shelf
from actors.store.stored import StoredTeachers
from actors.teacher import Teacher
from benchmarks.demo import Demo
from benchmarks.pools import SPARE_CPUS, in_its_own_process, pool_of
from benchmarks.sidebyside import Goal, Ratio, alternate, show
from benchmarks.stores import store_of
from orchestrator.cluster import connected

POOL, RAY_DATA = "a pool, whose answers a store keeps", "Ray Data, whose actors write shards"


class Built(NamedTuple):
    """`whole_s`: with the start of processes; `running_s`: from the first row that was asked about."""

    rows: int
    whole_s: float
    running_s: float


def by_pool(demo: Demo, teachers: Sequence[TeacherSpec], store: StoreSpec) -> Built:
    start = time.perf_counter()
    with pool_of(teachers, demo.dataset) as pool:
        running_s = in_its_own_process(fill_from, [ray.put(demo)], teachers, store, pool)
    return Built(len(demo.ids) * demo.num_views, time.perf_counter() - start, running_s)


def fill_from(
    demo_there: Sequence[ray.ObjectRef], teachers: Sequence[TeacherSpec], store: StoreSpec, pool: PoolHandle
) -> float:
    """Asks about every view of every sample, as a student does."""
    demo: Demo = ray.get(demo_there[0])
    request = requests(teachers)
    batches = (batch for view in range(demo.num_views) for batch in demo.batches(view))
    start = time.perf_counter()
    with StoredTeachers(store, teachers, PoolClient(pool), [teacher.name for teacher in teachers]) as source:
        for _ in prefetched(source, batches, lambda batch: request, None):
            pass
    return time.perf_counter() - start


def requests(teachers: Sequence[TeacherSpec]) -> tuple[TeacherRequest, ...]:
    return tuple(TeacherRequest(teacher.name) for teacher in teachers)


class Judge:
    """An actor of Ray Data: all teachers, on one core."""

    def __init__(
        self, teachers: Sequence[TeacherSpec], store: StoreSpec, data: DataSpec, dataset: Sequence[ray.ObjectRef]
    ) -> None:
        torch.set_num_threads(1)
        shared: SharedDataset = ray.get(dataset[0])
        self._rows = training_rows(shared.open(), data)
        self._judging = {
            request: (Teacher(teacher), Shelf(Folder(store.folder), pieces(request, teacher, store)[0]))
            for request, teacher in zip(requests(teachers), teachers, strict=True)
        }

    @torch.no_grad()
    def __call__(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Writes a shard of each teacher; when it began and ended."""
        began_s = time.time()
        inputs, _ = self._rows.build(rows["id"], rows["view"])
        keys, digests = row_keys(rows["id"], rows["view"]), row_digests(inputs)
        for request, (teacher, shelf) in self._judging.items():
            logits = teacher.answer(inputs, request).tensors[LOGITS]
            shelf.add(Rows(keys, digests, shelf.piece.encoding.encode(logits)))
            shelf.write()
        return {"began_s": np.array([began_s]), "ended_s": np.array([time.time()])}


def by_ray_data(demo: Demo, teachers: Sequence[TeacherSpec], store: StoreSpec, actors: int, at_once: int) -> Built:
    start = time.perf_counter()
    shared = [ray.put(SharedDataset.of(demo.dataset))]
    done: Any = ray.data.from_arrow(tables(demo, at_once)).map_batches(
        Judge,
        batch_size=at_once,
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(teachers, store, demo.data, shared),
        num_cpus=1,
    )
    told = done.take_all()
    running_s = max(row["ended_s"] for row in told) - min(row["began_s"] for row in told)
    return Built(len(demo.ids) * demo.num_views, time.perf_counter() - start, running_s)


def tables(demo: Demo, at_once: int) -> list[pa.Table]:
    """Every view of every sample, in blocks."""
    views = np.repeat(np.arange(demo.num_views, dtype=np.int32), len(demo.ids))
    table = pa.table({"id": np.tile(demo.ids, demo.num_views), "view": views})
    return [table.slice(start, at_once) for start in range(0, len(table), at_once)]


def refuse_unfilled(demo: Demo, teachers: Sequence[TeacherSpec], store: StoreSpec) -> None:
    """Both have written all rows."""
    for request, teacher in zip(requests(teachers), teachers, strict=True):
        shelf = Shelf(Folder(store.folder), pieces(request, teacher, store)[0])
        for view in range(demo.num_views):
            if not shelf.holds(row_keys(demo.ids, np.full(len(demo.ids), view))).all():
                raise RuntimeError(f"the store lacks rows of {teacher.name}")


def measure(demo: Demo, arguments: argparse.Namespace) -> tuple[dict[str, list[Built]], list[Goal]]:
    teachers = [replace(one, replicas=arguments.replicas, threads=1) for one in demo.judging(1, arguments.chunk)]
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cpus = SPARE_CPUS + len(teachers) * arguments.replicas + arguments.actors
    with TemporaryDirectory(dir=arguments.folder) as name, connected(None, {"CPU": cpus}):
        stores = (replace(store_of(name, demo, teachers), folder=f"{name}/{number}") for number in count())

        def pooled() -> Built:
            store = next(stores)
            built = by_pool(demo, teachers, store)
            refuse_unfilled(demo, teachers, store)
            return built

        def streamed() -> Built:
            store = next(stores)
            built = by_ray_data(demo, teachers, store, arguments.actors, arguments.block)
            refuse_unfilled(demo, teachers, store)
            return built

        found = alternate({POOL: pooled, RAY_DATA: streamed}, arguments.build_rounds)
    show_building(found, demo, arguments)
    return found, []


def show_building(found: Mapping[str, Sequence[Built]], demo: Demo, arguments: argparse.Namespace) -> None:
    rows = []
    running = {way: [one.rows / one.running_s for one in several] for way, several in found.items()}
    whole = {way: [one.rows / one.whole_s for one in several] for way, several in found.items()}
    for way in found:
        ratios = [str(Ratio.of(per_s[way], per_s[RAY_DATA])) for per_s in (running, whole)]
        rows.append((way, f"{median(running[way]):.0f}", ratios[0], f"{median(whole[way]):.0f}", ratios[1]))
    title = (
        f"(build) {len(demo.ids)} samples in {demo.num_views} views, {len(demo.teachers)} teachers; "
        f"{arguments.replicas} replicas of each, {arguments.actors} actors of Ray Data"
    )
    headings = ("by", "rows/s, running", "of Ray Data", "rows/s, with its start", "of Ray Data")
    show(title, headings, rows)
