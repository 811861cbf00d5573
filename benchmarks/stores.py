"""A store that knows all that its students ask: an epoch from it, beside an epoch on constant targets.

`store_of` and `filled` make stores, `trained` is a whole training run by the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from statistics import median
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

from actors.checkpoints import Checkpoints
from actors.sources import LocalTeachers, TeacherSource
from actors.specs import StoreSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.store.keys import data_identity, judge_identity
from actors.store.stored import StoredTeachers
from actors.student import StudentTrainer
from actors.teacher import weights_version
from benchmarks.demo import Demo
from benchmarks.fashion import BATCH
from benchmarks.sidebyside import Goal, Ratio, alternate, show
from benchmarks.students import Constant

CONSTANT, STORE = "constant targets, no store", "a full store"
AT_LEAST = 0.97


class Epochs(NamedTuple):
    """A training run. `seconds`: of all of it; `training_s`: without evaluation; `digests_s`: in which
    the store computed the digests of pixels; `first_terms`: the mean losses of the first epoch."""

    rows: int
    seconds: float
    training_s: float
    digests_s: float = 0.0
    first_terms: Mapping[str, float] = MappingProxyType({})

    @property
    def images_per_s(self) -> float:
        return self.rows / self.training_s


def store_of(folder: str, demo: Demo, teachers: Sequence[TeacherSpec]) -> StoreSpec:
    judges = {teacher.name: judge_identity(teacher, weights_version(teacher)) for teacher in teachers}
    return StoreSpec(folder, "float16", {}, data_identity(demo.dataset, demo.data), judges)


def locally(store: StoreSpec, teachers: Sequence[TeacherSpec]) -> StoredTeachers:
    """A store that asks teachers in this process for what it lacks."""
    return StoredTeachers(store, teachers, LocalTeachers.load(teachers), [teacher.name for teacher in teachers])


class NotKept(Checkpoints):
    """Nowhere: what a disk takes is no part of an epoch."""

    def save(self, steps_done: int, state: dict[str, Any]) -> None:
        pass


def trained(spec: StudentSpec, demo: Demo, source: TeacherSource, checkpoints: type[Checkpoints] = NotKept) -> Epochs:
    """Trains a student from its first step to its last."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        trainer = StudentTrainer(spec, demo.dataset, source, checkpoints(Folder(folder)))
        began = time.perf_counter()
        state = trainer.run()
        end = time.perf_counter()
    training_s = end - began - state.seconds["evaluation"]
    return Epochs(state.rows_trained, end - start, training_s, 0.0, state.history[0]["terms"])


def from_store(spec: StudentSpec, demo: Demo, store: StoreSpec, checkpoints: type[Checkpoints] = NotKept) -> Epochs:
    """From a store that lacks nothing."""
    with StoredTeachers(store, spec.teachers) as source:
        epochs = trained(spec, demo, source, checkpoints)
    return epochs._replace(digests_s=source.digests_s)


def measure(demo: Demo, arguments: argparse.Namespace) -> tuple[dict[str, list[Epochs]], list[Goal]]:
    teachers = demo.judging(arguments.threads, arguments.chunk)
    constant = Constant(teachers, next(demo.batches(0)))
    spec = demo.spec(teachers, arguments.warm_epochs)
    with TemporaryDirectory(dir=arguments.folder) as name:
        store = store_of(name, demo, teachers)
        with locally(store, teachers) as source:
            trained(demo.spec(teachers, demo.num_views), demo, source)
        ways = {
            CONSTANT: lambda: trained(spec, demo, constant),
            STORE: lambda: from_store(spec, demo, store),
        }
        for way in ways.values():
            way()
        found = alternate(ways, arguments.rounds)
    return found, show_warm(found)


def show_warm(found: dict[str, list[Epochs]]) -> list[Goal]:
    per_s = {way: [epochs.images_per_s for epochs in several] for way, several in found.items()}
    ratio = Ratio.of(per_s[STORE], per_s[CONSTANT])
    rows = []
    for way, several in found.items():
        digests = [1000 * BATCH * one.digests_s / one.rows for one in several]
        share = median(one.digests_s / one.training_s for one in several)
        told = (f"{median(digests):.2f}", f"{share:.1%}") if way == STORE else ("", "")
        rows.append((way, f"{median(per_s[way]):.0f}", *told, str(Ratio.of(per_s[way], per_s[CONSTANT]))))
    headings = ("a student learns from", "images/s", "digests, ms a batch", "of its time", "of constant targets")
    show("(a) Epochs of the demo's student, without evaluation and checkpoints", headings, rows)
    return [Goal(f"(a) {STORE} against {CONSTANT}", ratio, AT_LEAST)]
