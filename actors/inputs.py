"""From a batch's raw inputs to what one model takes: scaling, channels, size, normalisation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from actors.specs import InputSpec


def prepare(inputs: Mapping[str, Tensor], spec: InputSpec, where: str = "input") -> Tensor:
    """The input `spec` names as float32: uint8 scaled to 0..1, grey repeated or colour averaged, resized, normalised.

    Shapes: (rows, channels, height, width) in and out; other ranks pass through normalisation alone.

    Raises:
        ValueError: the batch has no such input, the number of channels cannot be had from it, or what is no image
            should be resized.
    """
    if spec.name not in inputs:
        raise ValueError(f"{where}.name: the data has no input {spec.name!r}, it has {', '.join(map(repr, inputs))}")
    images = inputs[spec.name]
    # A copy: a model that works in place must not change what others see.
    images = images.float() / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)
    if images.ndim == 4:
        images = _resize(_with_channels(images, spec.channels, where), spec.size)
    elif spec.size is not None or spec.channels is not None:
        shape = tuple(images.shape[1:])
        raise ValueError(f"{where}: size and channels are for images, the input has shape {shape}; leave both out")
    if any(spec.mean) or any(std != 1 for std in spec.std):
        for key, values in (("mean", spec.mean), ("std", spec.std)):
            if len(values) not in (1, images.shape[1]):
                raise ValueError(f"{where}.{key}: expected 1 or {images.shape[1]} numbers, got {len(values)}")
        images = (images - _per_channel(spec.mean, images)) / _per_channel(spec.std, images)
    return images


def _with_channels(images: Tensor, channels: int | None, where: str) -> Tensor:
    found = images.shape[1]
    if channels is None or channels == found:
        return images
    if found == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 1:
        return images.mean(dim=1, keepdim=True)
    raise ValueError(f"{where}.channels: expected 1 or {found} (the data's), got {channels}")


def _resize(images: Tensor, size: int | None) -> Tensor:
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _per_channel(values: tuple[float, ...], images: Tensor) -> Tensor:
    # Made on a GPU it would wait for all that was given to the GPU before.
    there = torch.tensor(values).to(images.device, non_blocking=True)
    return there.view(1, -1, *([1] * (images.ndim - 2)))
