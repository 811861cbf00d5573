"""Whether a teacher can serve as it is told to; each refusal begins with the config key. Imports torch, not Ray."""

from __future__ import annotations

import torch
from torch import nn

from actors.specs import TeacherSpec
from orchestrator.problems import did_you_mean

IMAGE_NDIM = 4


def check_teaching(spec: TeacherSpec, model: nn.Module, where: str) -> None:
    """Raises ValueError where an option would be ignored or is not known. `where`: the key of the teacher."""
    if spec.channels_last:
        _check_channels_last(spec, model, f"{where}.channels_last")
    if spec.compile is not None:
        _check_backend(spec.compile, f"{where}.compile")


def _check_channels_last(spec: TeacherSpec, model: nn.Module, where: str) -> None:
    shape = spec.input_shape
    if len(shape) != IMAGE_NDIM - 1:
        raise ValueError(f"{where}: it is for images, the model is given rows of shape {shape}; leave it out")
    if not any(weight.ndim == IMAGE_NDIM for weight in model.parameters()):
        raise ValueError(f"{where}: no weight of the model has channels, so nothing would be faster; leave it out")


def _check_backend(backend: str, where: str) -> None:
    every = torch.compiler.list_backends(exclude_tags=())
    if backend not in every:
        usual = ", ".join(torch.compiler.list_backends())
        raise ValueError(
            f"{where}: torch.compile has no backend {backend!r}{did_you_mean(backend, every)}; there is {usual}"
        )
