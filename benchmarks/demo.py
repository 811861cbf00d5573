"""The demo's data, its three teachers and a student that has learned a little from them, for the benchmarks of the
store. What was trained once is found again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import numpy as np
import torch

from actors.data import BatchSampler, evaluation_rows, slice_ids, training_rows
from actors.knowledge import Batch, Position
from actors.specs import DataSpec, ImportSpec, StudentSpec, TeacherSpec
from actors.weights import weights_as_bytes
from benchmarks.accuracy import with_weights
from benchmarks.fashion import BATCH, Fashion
from benchmarks.sidebyside import OUT
from benchmarks.students import SEED, student_spec
from orchestrator.experiment import Experiment

RECIPE = "orchestrator/recipes/fashion_three_teachers.yaml"
ROWS = 60_000
WIDTH = 16
LITTLE = ("student.alone=false", "student.num_workers=1", "student.epochs=4", "tracking.send=false")
QUICK = (
    f"storage={OUT / 'quick'}",
    "data.slices={teachers: 2560, student: 512, validation: 256}",
    *(f"teachers.{name}.train.epochs=1" for name in ("residual", "plain", "transformer")),
)


@dataclass(frozen=True)
class Demo:
    """`student`: a file with the weights of one who has learned a little."""

    data: DataSpec
    dataset: Fashion
    teachers: tuple[TeacherSpec, ...]
    student: str

    @classmethod
    def trained(cls, quick: bool) -> Demo:
        experiment = Experiment.from_yaml(RECIPE, [*LITTLE, *(QUICK if quick else ())])
        result = experiment.run()
        [student] = [model for model in result.models if model.role == "student"]
        files = ImportSpec("benchmarks.fashion:Fashion", {"rows": ROWS})
        data = replace(experiment.config.data.spec(), train=files, test=files)
        teachers = tuple(with_weights(experiment, result).values())
        return cls(data, Fashion(rows=ROWS), teachers, str(Path(str(student.weights)).resolve()))

    @property
    def num_views(self) -> int:
        assert self.data.num_views is not None
        return self.data.num_views

    def judging(self, threads: int, chunk: int) -> tuple[TeacherSpec, ...]:
        """The teachers as they compute here."""
        return tuple(replace(teacher, threads=threads, chunk=chunk) for teacher in self.teachers)

    @property
    def ids(self) -> np.ndarray:
        """The student's slice."""
        return self.slices["student"]

    @property
    def slices(self) -> dict[str, np.ndarray]:
        return slice_ids(self.data.slices, len(self.dataset), self.data.seed)

    @property
    def sampler(self) -> BatchSampler:
        return BatchSampler(self.ids, np.zeros(0, dtype=np.int64), BATCH, SEED, self.data.num_views)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Of one of the student's epochs."""
        sampler = self.sampler
        return sampler.batches(training_rows(self.dataset, self.data), sampler.positions(Position(), epoch))

    def validation(self) -> Batch:
        """Samples that neither teachers nor student have learned from."""
        ids = self.slices["validation"]
        views = np.zeros(len(ids), dtype=np.int32)
        return Batch(ids, views, *evaluation_rows(self.dataset, self.data).build(ids, views))

    def spec(self, teachers: Sequence[TeacherSpec], epochs: int) -> StudentSpec:
        """The student; its optimiser and criterion are those of the other benchmarks."""
        spec = student_spec(WIDTH, teachers, maps=False, reduce="teacher")
        recipe = replace(spec.recipe, epochs=epochs)
        return replace(spec, data=self.data, recipe=recipe, validation="validation")


def wider(teacher: TeacherSpec, folder: Path, times: int) -> TeacherSpec:
    """The same architecture, wider; its weights as they were drawn: they change no speed."""
    narrow = teacher.model.model
    widths = {name: one.default for name, one in signature(narrow.resolve()).parameters.items()}
    wide = ImportSpec(narrow.target, {**narrow.kwargs, "width": times * narrow.kwargs.get("width", widths["width"])})
    torch.manual_seed(SEED)
    file = folder / f"{teacher.name}.safetensors"
    file.write_bytes(weights_as_bytes(wide.build()))
    return replace(teacher, model=replace(teacher.model, model=wide), weights=str(file))
