"""Three teachers in the student's process, without Collegium: a plain PyTorch loop, and torchdistill.

Both are endless: each item is the loss of a step, and takes that step. Only models, data and numbers are shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.fashion import BATCH, INPUT
from benchmarks.students import HARD_WEIGHT, LEARNING_RATE, MAP_WEIGHT, MOMENTUM, SOFT_WEIGHT, TAPS, TEMPERATURE


def plain(
    student: nn.Module, teachers: Sequence[nn.Module], dataset: Any, order: Sequence[int], *, maps: bool
) -> Iterator[float]:
    """As one would write it with PyTorch alone."""
    loader = DataLoader(dataset, BATCH, sampler=order)
    optimizer = torch.optim.SGD(student.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    of_student, *of_teachers = [_features_of(model) if maps else {} for model in (student, *teachers)]
    student.train()
    for images, labels in chain.from_iterable(repeat(loader)):
        inputs = normalised(images)
        with torch.no_grad():
            target = torch.stack([teacher(inputs) for teacher in teachers]).mean(dim=0)
        logits = student(inputs)
        loss = HARD_WEIGHT * F.cross_entropy(logits, labels) + SOFT_WEIGHT * _soft_loss(logits, target)
        for tap, feature in of_student.items():
            gaps = [(_attention(feature) - _attention(features[tap])).square().mean() for features in of_teachers]
            loss = loss + MAP_WEIGHT * torch.stack(gaps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - INPUT.mean[0]) / INPUT.std[0]


def _features_of(model: nn.Module) -> dict[str, Tensor]:
    """A dict that holds the features of the latest forward, by tap."""
    features: dict[str, Tensor] = {}

    def keep(tap: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        features[tap] = output

    for tap in TAPS:
        model.get_submodule(tap).register_forward_hook(partial(keep, tap))
    return features


def _soft_loss(logits: Tensor, target: Tensor) -> Tensor:
    student, teacher = F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(target / TEMPERATURE, dim=1)
    return TEMPERATURE**2 * F.kl_div(student, teacher, reduction="batchmean")


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(dim=1).flatten(1))


class Averaging(nn.Module):
    """Several teachers as the one that torchdistill holds: the mean of their logits."""

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([teacher(inputs) for teacher in self.teachers]).mean(dim=0)


def torchdistill(
    student: nn.Module, teachers: Sequence[nn.Module], dataset: Any, order: Sequence[int], *, maps: bool
) -> Iterator[float]:
    """As torchdistill's own examples do it: a config, a box, its losses and its hooks.

    Raises ImportError where it is not installed.
    """
    from torchdistill.core.distillation import get_distillation_box  # pyright: ignore[reportMissingImports]
    from torchdistill.core.interfaces import forward_proc  # pyright: ignore[reportMissingImports] # noqa: F401
    from torchdistill.losses import high_level, mid_level  # pyright: ignore[reportMissingImports] # noqa: F401

    box = get_distillation_box(
        teacher_model=Averaging(teachers).eval(),
        student_model=student,
        dataset_dict={"train": dataset},
        train_config=_config(order, len(teachers), maps),
        device=torch.device("cpu"),
        device_ids=None,
        distributed=False,
        lr_factor=1,
    )
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        loader: Any = box.train_data_loader
        for images, labels, more in loader:
            box.pre_forward_process()
            loss = box.forward_process(normalised(images), labels, more)
            box.post_forward_process(loss=loss)
            yield loss.item()
        box.post_epoch_process()


def _config(order: Sequence[int], num_teachers: int, maps: bool) -> dict[str, Any]:
    tapped = {"forward_proc": "forward_batch_only", "forward_hook": {"output": list(TAPS) if maps else []}}
    paths = [f"teachers.{number}.{tap}" for number in range(num_teachers) for tap in TAPS]
    logits = {"key": "KDLoss", "kwargs": _logits_kwargs()}
    attention = {"key": "ATLoss", "kwargs": {"at_pairs": _pairs(paths, 1 / num_teachers), "mode": "code"}}
    terms = {"logits": {"criterion": logits, "weight": 1.0}}
    if maps:
        terms["maps"] = {"criterion": attention, "weight": MAP_WEIGHT}
    return {
        "num_epochs": 10**6,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": lambda dataset: order},
            "kwargs": {"batch_size": BATCH},
        },
        "teacher": {**tapped, "forward_hook": {"output": paths if maps else []}, "requires_grad": False},
        "student": tapped,
        "optimizer": {"key": "SGD", "kwargs": {"lr": LEARNING_RATE, "momentum": MOMENTUM}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }


def _logits_kwargs() -> dict[str, Any]:
    paths = {f"{role}_module_path": "." for role in ("student", "teacher")}
    sides = {f"{role}_module_io": "output" for role in ("student", "teacher")}
    numbers = {"temperature": TEMPERATURE, "alpha": HARD_WEIGHT, "beta": SOFT_WEIGHT, "reduction": "batchmean"}
    return {**paths, **sides, **numbers}


def _pairs(paths: Sequence[str], weight: float) -> dict[str, Any]:
    return {
        path: {
            "teacher": {"io": "output", "path": path},
            "student": {"io": "output", "path": path.rpartition(".")[2]},
            "weight": weight,
        }
        for path in paths
    }
