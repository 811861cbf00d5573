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
    weight = float(generator.beta(alpha, alpha))
    pixels, label = crop_and_flip(dataset, sample_id, generator, padding=padding, flip=flip)
    other, other_label = crop_and_flip(dataset, _partner(partners, generator), generator, padding=padding, flip=flip)
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
    weight = float(generator.beta(alpha, alpha))
    row, column = generator.random(2)
    pixels, label = crop_and_flip(dataset, sample_id, generator, padding=padding, flip=flip)
    other, other_label = crop_and_flip(dataset, _partner(partners, generator), generator, padding=padding, flip=flip)
    height, width = pixels.shape[1:]
    rows, columns = _cut(row, height, weight), _cut(column, width, weight)
    mixed = pixels.copy()
    mixed[:, rows, columns] = other[:, rows, columns]
    taken = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, Mixture(label, other_label, 1 - taken / (height * width))


def _partner(partners: np.ndarray, generator: np.random.Generator) -> int:
    return int(partners[generator.integers(len(partners))])


def _cut(centre: float, length: int, weight: float) -> slice:
    """`centre`: as a share of the length."""
    half, middle = int(length * (1 - weight) ** 0.5) / 2, int(centre * length)
    return slice(max(0, round(middle - half)), min(length, round(middle + half)))
