"""A teacher that waits instead of computing: as long as a model on hardware of its own, at no cost to this machine's
cores but what serving costs. It runs in the real pool. Imports no Ray.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from actors.knowledge import LOGITS
from actors.specs import ImportSpec, ModelSpec, Resources, Shape, TeacherSpec
from actors.weights import weights_as_bytes

TARGET = "benchmarks.waiting:Waiting"


class Preset(nn.Module):
    """Says the same of any rows, always of as many. No part of the weights, as it may be megabytes."""

    def __init__(self, rows: int, shape: Shape, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("answer", torch.randn(rows, *shape, generator=generator), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.get_buffer("answer")


class Waiting(nn.Module):
    """Answers `rows` rows, a teacher's chunk, after `answer_s`; there is a tap `features.NAME` for each of `features`,
    name -> shape."""

    def __init__(
        self, *, answer_s: float, rows: int, num_classes: int, features: Mapping[str, Shape], seed: int
    ) -> None:
        super().__init__()
        self._answer_s = answer_s
        self.features = nn.ModuleDict({name: Preset(rows, tuple(shape), seed) for name, shape in features.items()})
        self.head = Preset(rows, (num_classes,), seed)

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self._answer_s)
        for feature in self.features.values():
            feature(inputs)
        return self.head(inputs)


def waiting_teacher(
    name: str,
    folder: Path,
    *,
    answer_s: float,
    rows: int,
    num_classes: int = 10,
    features: Mapping[str, Shape] | None = None,
    seed: int = 0,
    replicas: int = 1,
    actor: str | None = None,
) -> TeacherSpec:
    """One forward for a batch of `rows`. Its file of weights, in `folder`, holds none."""
    shapes = dict(features or {})
    kwargs = {"answer_s": answer_s, "rows": rows, "num_classes": num_classes, "features": shapes, "seed": seed}
    weights = folder / f"{name}.safetensors"
    weights.write_bytes(weights_as_bytes(nn.Identity()))
    return TeacherSpec(
        name,
        ModelSpec(ImportSpec(TARGET, kwargs), taps={tap: f"features.{tap}" for tap in shapes}),
        str(weights),
        {LOGITS: (num_classes,), **shapes},
        chunk=rows,
        replicas=replicas,
        resources=Resources(num_cpus=1),
        actor=actor,
    )
