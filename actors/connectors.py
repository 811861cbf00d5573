"""Connectors: small trainable layers that map a student's feature onto the shape of a teacher's.

`connect` chooses one by the two shapes, or builds the user's own. `SpatialResize` is the part that torch has
no module for. Shapes are without the batch dimension: vectors (C,), tokens (N, C), maps (C, H, W); a map with
its channels last needs a connector of the user's. Imports no Ray.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actors.features import TapError
from actors.knowledge import LOGITS
from actors.probe import probe, row_shape
from actors.specs import ImportSpec, Shape

Aligns = Literal["all", "space", "channels", "nothing"]


class SpatialResize(nn.Module):
    """(B, C, H, W) -> (B, C, *size): adaptive mean pooling where no side grows, else bilinear."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        if self.size[0] <= height and self.size[1] <= width:
            return F.adaptive_avg_pool2d(features, self.size)
        return F.interpolate(features, self.size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def connect(
    student_shape: Shape,
    teacher_shape: Shape,
    aligns: Aligns,
    *,
    student_tap: str,
    teacher_tap: str,
    where: str,
    connector: ImportSpec | None = None,
) -> nn.Module:
    """A module that takes student features to where they agree with the teacher's in what the loss `aligns`.

    `all`: the shapes must be equal; `space`: all but the channels; `channels`: their number; `nothing`: any two shapes
    will do. A `connector` of the user's is called with both shapes and its kwargs, and held to the same rule. Weights
    are drawn from torch's generator. `where` is the config key of the loss. Raises ValueError where none is
    known.
    """
    taps = f"student tap {student_tap!r} {student_shape} and teacher tap {teacher_tap!r} {teacher_shape}"
    if connector is not None:
        module = build_connector(connector, student_shape, teacher_shape, f"{where}.connector")
        check_output(module, student_shape, teacher_shape, aligns, f"{where}.connector", taps)
        return module
    if agree(student_shape, teacher_shape, aligns):
        return nn.Identity()
    match student_shape, teacher_shape:
        case (in_channels,), (out_channels,):
            return nn.Linear(in_channels, out_channels)
        case (length, in_channels), (out_length, out_channels) if length == out_length:
            return nn.Linear(in_channels, out_channels)
        case (_, _, _), (_, _, _):
            return connect_maps(student_shape, teacher_shape, aligns)
    expected = {"all": "equal shapes", "channels": "equal numbers of channels"}.get(
        aligns, "shapes equal but for the channels"
    )
    raise ValueError(f"{where}: the loss needs {expected}, got {taps}; tap other modules or give {where}.connector")


def agree(student_shape: Shape, teacher_shape: Shape, aligns: Aligns) -> bool:
    if aligns == "all":
        return student_shape == teacher_shape
    if aligns == "channels":
        return len(student_shape) == len(teacher_shape) and channels(student_shape) == channels(teacher_shape)
    return aligns == "nothing" or space(student_shape) == space(teacher_shape)


def space(shape: Shape) -> Shape:
    """All but the channels, which come last in tokens and first elsewhere."""
    return shape[:1] if len(shape) == 2 else shape[1:]


def channels(shape: Shape) -> int:
    return shape[-1] if len(shape) == 2 else shape[0]


def connect_maps(student_shape: Shape, teacher_shape: Shape, aligns: Aligns) -> nn.Module:
    in_channels, height, width = student_shape
    out_channels, out_height, out_width = teacher_shape
    parts: list[nn.Module] = []
    if in_channels != out_channels and aligns != "space":
        # With a bias: no norm follows that would give the teacher's mean.
        parts.append(nn.Conv2d(in_channels, out_channels, kernel_size=1))
    if (height, width) != (out_height, out_width) and aligns != "channels":
        shrinks = out_height * out_width < height * width
        # The two commute, so the convolution stands where the map is smaller.
        parts.insert(0 if shrinks else len(parts), SpatialResize((out_height, out_width)))
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def build_connector(spec: ImportSpec, student_shape: Shape, teacher_shape: Shape, where: str) -> nn.Module:
    try:
        module = spec.build(student_shape, teacher_shape)
    except Exception as error:
        raise ValueError(
            f"{where}: {spec.target} is called with the shapes {student_shape} and {teacher_shape}, "
            f"then its kwargs; it failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{where}: {spec.target} must return a torch.nn.Module, got {type(module).__name__}; "
            "return the layer itself"
        )
    return module


def check_output(
    module: nn.Module, student_shape: Shape, teacher_shape: Shape, aligns: Aligns, where: str, taps: str
) -> None:
    try:
        outputs = probe(module, {}, student_shape, torch.float32, where)
        shape = row_shape(LOGITS, outputs[LOGITS], where)
    except TapError:
        raise
    except Exception as error:
        raise ValueError(
            f"{where}: cannot take {taps}: {type(error).__name__}: {error}; "
            f"it is called with features of shape (rows, {str(student_shape)[1:-1].rstrip(',')})"
        ) from error
    if not agree(shape, teacher_shape, aligns):
        raise ValueError(f"{where}: gives {shape} for {taps}; make it give {teacher_shape}")
