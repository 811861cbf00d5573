"""Whole runs without Collegium: the demo's student beside its teachers, by a plain loop or by torchdistill, on the same
pixels in the same order. As Collegium does, they evaluate and keep a checkpoint after each epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actors.specs import TeacherSpec
from actors.views import ViewDice
from actors.weights import fit_weights, read_weights
from benchmarks import in_process
from benchmarks.demo import WIDTH, Demo
from benchmarks.fashion import BATCH, INPUT
from benchmarks.students import SEED, student_model

HAS_TORCHDISTILL = find_spec("torchdistill") is not None
PLAIN, TORCHDISTILL = "plain PyTorch", "torchdistill"
LOOPS: dict[str, Callable[..., Iterator[float]]] = {PLAIN: in_process.plain} | (
    {TORCHDISTILL: in_process.torchdistill} if HAS_TORCHDISTILL else {}
)


class Views:
    """What a student sees: view `v` of sample `i` is row `i * num_views + v`."""

    def __init__(self, demo: Demo) -> None:
        self._dataset, self._num_views = demo.dataset, demo.num_views
        self._view, self._kwargs = demo.data.views.resolve(), demo.data.views.kwargs
        self._dice = ViewDice(demo.data.seed)

    def __len__(self) -> int:
        return len(self._dataset) * self._num_views

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        sample, view = divmod(index, self._num_views)
        return self._view(self._dataset, sample, self._dice.at(sample, view), **self._kwargs)


def order_of(demo: Demo, epochs: int) -> list[int]:
    """The rows of `Views` of all epochs."""
    seen = (batch for epoch in range(epochs) for batch in demo.batches(epoch))
    return [int(row) for batch in seen for row in batch.ids * demo.num_views + batch.views]


class Adapted(nn.Module):
    """A teacher that takes the student's normalised pixels."""

    def __init__(self, spec: TeacherSpec) -> None:
        super().__init__()
        assert (spec.model.input.mean, spec.model.input.std) == (INPUT.mean, INPUT.std)
        self.model = spec.model.model.build()
        fit_weights(self.model, read_weights(spec.weights, spec.name), spec.name)
        self.eval().requires_grad_(False)
        self._size, self._channels = spec.model.input.size, spec.model.input.channels

    def forward(self, inputs: Tensor) -> Tensor:
        images = inputs.expand(-1, self._channels or inputs.shape[1], -1, -1)
        if self._size is not None:
            images = F.interpolate(images, size=(self._size,) * 2, mode="bilinear", align_corners=False, antialias=True)
        return self.model(images)


class Same(nn.Module):
    """A teacher that costs nothing."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("answer", torch.randn(BATCH, num_classes, generator=torch.Generator().manual_seed(SEED)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.get_buffer("answer")


def whole_run(loop: str, teachers: Sequence[nn.Module], demo: Demo, order: Sequence[int], epochs: int) -> list[float]:
    """The losses of all steps."""
    torch.manual_seed(SEED)
    student = student_model(WIDTH).model.build()
    steps = LOOPS[loop](student, teachers, Views(demo), order, maps=False)
    validation, losses = demo.validation(), []
    with TemporaryDirectory() as folder:
        for epoch in range(epochs):
            student.train()
            losses += islice(steps, len(order) // BATCH // epochs)
            _evaluate(student, validation.inputs["image"], validation.labels)
            torch.save(student.state_dict(), Path(folder, f"{epoch}.pt"))
    return losses


@torch.no_grad()
def _evaluate(student: nn.Module, images: Tensor, labels: Tensor) -> float:
    student.eval()
    answers = torch.cat([student(in_process.normalised(part)) for part in images.split(BATCH)])
    return float((answers.argmax(dim=1) == labels).float().mean())


@torch.no_grad()
def pass_of(teachers: Sequence[nn.Module], images: Sequence[Tensor]) -> float:
    """The seconds that teachers take for these batches."""
    start = time.perf_counter()
    for one in images:
        inputs = in_process.normalised(one)
        for teacher in teachers:
            teacher(inputs)
    return time.perf_counter() - start
