"""The one module that is trained: a student and its criterion. And the average of a student's weights. Imports no Ray.

`Distillation` is what DDP wraps, `build_distillation` draws its first weights, `averaged` follows a student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from actors.criterion import Criterion
from actors.features import TappedModel
from actors.probe import probe_shapes
from actors.specs import StudentSpec
from actors.term import Outputs, Targets


class Distillation(nn.Module):
    """A student and what it learns by, as one module."""

    def __init__(self, student: TappedModel, criterion: Criterion) -> None:
        super().__init__()
        self.student = student
        self.criterion = criterion

    def forward(self, prepared: Tensor, targets: Targets) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        outputs = self.outputs(prepared, self.criterion.student_taps(self.criterion.active(targets.position.epoch)))
        with torch.autocast(prepared.device.type, enabled=False):
            return self.criterion(outputs, targets)

    def outputs(self, prepared: Tensor, taps: Sequence[str]) -> Outputs:
        """What the student says, in float32."""
        logits, features = self.student(prepared, taps)
        return Outputs(logits.float(), {tap: feature.float() for tap, feature in features.items()})


def build_distillation(spec: StudentSpec, one_input: Tensor) -> Distillation:
    """The student and its criterion, their first weights drawn from the recipe's seed: the student's first, so that
    they do not depend on the losses."""
    torch.manual_seed(spec.recipe.seed)
    model = spec.model.model.build()
    shapes = probe_shapes(model, spec.model.taps, one_input, spec.name)
    torch.manual_seed(spec.recipe.seed + 1)
    criterion = Criterion(spec.losses, shapes, spec.teachers, spec.recipe.seed, spec.dropped)
    return Distillation(TappedModel(model, spec.model.taps, f"{spec.name}.taps"), criterion)


def in_parallel(distillation: Distillation, world_size: int, device: torch.device) -> Callable[..., Any]:
    """`find_unused_parameters` keeps DDP from rebuilding its buckets after the first step, so that a resumed run sums
    gradients in the same order as an undisturbed one."""
    if world_size == 1:
        return distillation
    device_ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(distillation, device_ids=device_ids, find_unused_parameters=True)


def averaged(student: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a student's weights and buffers (Tarvainen and Valpola, 2017,
    arXiv 1703.01780): after step n it keeps min(decay, 1 - 1/(n + 1)) of itself, so that at first it is the plain mean.
    """

    def follow(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        kept = min(decay, 1 - 1 / (int(steps) + 1))
        return average * kept + current * (1 - kept)

    return AveragedModel(student, avg_fn=follow, use_buffers=True)
