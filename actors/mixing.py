"""Views that mix a sample with another one of its slice: mixup and cutmix.

Partner and weight come from the view's generator alone, so that teacher and student see the same mixture, whoever
builds it. Such a view gives a `Mixture` for its label; of a batch they are `Mixtures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.views import MapDataset, crop_and_flip


class Mixture(NamedTuple):
    """The labels of a sample and its partner; `weight`: of the first."""

    label: int
    partner_label: int
    weight: float


@dataclass(frozen=True)
class Mixtures:
    """Of each row of a batch: int64 labels of the partner, float32 weights of the row's own label."""

    partner_labels: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Mixtures:
        return Mixtures(self.partner_labels.to(device), self.weights.to(device))


def mixup(
    dataset: MapDataset,
    sample_id: int,
    generator: np.random.Generator,
    *,
    partners: np.ndarray,
    alpha: float = 0.2,
    padding: int = 0,
    flip: bool = False,
) -> tuple[np.ndarray, Mixture]:
    """mixup (Zhang et al. 2018, arXiv 1710.09412): weight * image + (1 - weight) * partner, its weight drawn from
    Beta(alpha, alpha).

    Both are cropped and flipped before, each by its own draw. `partners`: ids of the sample's slice.
    """
    weight = _drawn_weight(generator, alpha)
    pixels, label = crop_and_flip(dataset, sample_id, generator, padding=padding, flip=flip)
    other, other_label = crop_and_flip(dataset, _partner(partners, generator), generator, padding=padding, flip=flip)
    _refuse_unlike(pixels, other, sample_id)
    mixed = weight * pixels.astype(np.float64) + (1 - weight) * other
    whole = np.issubdtype(pixels.dtype, np.integer)
    return (np.rint(mixed) if whole else mixed).astype(pixels.dtype), Mixture(label, other_label, weight)


def cutmix(
    dataset: MapDataset,
    sample_id: int,
    generator: np.random.Generator,
    *,
    partners: np.ndarray,
    alpha: float = 1.0,
    padding: int = 0,
    flip: bool = False,
) -> tuple[np.ndarray, Mixture]:
    """CutMix (Yun et al. 2019, arXiv 1905.04899): a box of the partner, of 1 - weight of the area, weight ~ Beta(alpha,
    alpha), around a point drawn evenly; what lies outside of the image is cut off, and the weight is what is left.

    Both are cropped and flipped before, each by its own draw. `partners`: ids of the sample's slice.
    """
    weight = _drawn_weight(generator, alpha)
    row, column = generator.random(2)
    pixels, label = crop_and_flip(dataset, sample_id, generator, padding=padding, flip=flip)
    other, other_label = crop_and_flip(dataset, _partner(partners, generator), generator, padding=padding, flip=flip)
    _refuse_unlike(pixels, other, sample_id)
    height, width = pixels.shape[1:]
    rows, columns = _cut(row, height, weight), _cut(column, width, weight)
    mixed = pixels.copy()
    mixed[:, rows, columns] = other[:, rows, columns]
    taken = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, Mixture(label, other_label, 1 - taken / (height * width))


def _drawn_weight(generator: np.random.Generator, alpha: float) -> float:
    """As float32 holds it: labels are weighed by the same number as pixels."""
    return float(np.float32(generator.beta(alpha, alpha)))


def _partner(partners: np.ndarray, generator: np.random.Generator) -> int:
    return int(partners[int(generator.random() * len(partners))])


def _refuse_unlike(pixels: np.ndarray, other: np.ndarray, sample_id: int) -> None:
    if (pixels.shape, pixels.dtype) != (other.shape, other.dtype):
        raise ValueError(
            f"data.views: sample {sample_id} is {pixels.shape} {pixels.dtype}, its partner {other.shape} "
            f"{other.dtype}; mixing needs images of one size, resize them in the dataset"
        )


def _cut(centre: float, length: int, weight: float) -> slice:
    """`centre`: as a share of the length."""
    side = int(length * (1 - weight) ** 0.5)
    start = int(centre * length) - side // 2
    return slice(max(0, start), min(length, start + side))
