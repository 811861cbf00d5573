"""TinyViT's format of kept logits (Wu et al., 2022, arXiv 2207.10666): of each row the k largest probabilities in
float16, their classes in 2 bytes each, and a seed of 4 bytes. Imports no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

K = 100
SEED_BYTES, VALUE_BYTES, CLASS_BYTES = 4, 2, 2
SMALLEST = 2.0**-24
"""The smallest positive float16."""


@dataclass(frozen=True)
class TinyVit:
    """Rows of `num_classes`; of at most `K` all are kept."""

    num_classes: int

    @property
    def k(self) -> int:
        return min(K, self.num_classes)

    @property
    def bytes_per_row(self) -> int:
        return SEED_BYTES + self.k * (VALUE_BYTES + CLASS_BYTES)

    def encode(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, k) probabilities and classes."""
        values, classes = logits.softmax(dim=1).topk(self.k, dim=1)
        return values.half(), classes.to(torch.int16)

    def decode(self, values: Tensor, classes: Tensor) -> Tensor:
        """Logits: the logarithms of the probabilities; what these lack of 1 is spread evenly over the other classes."""
        kept = values.float()
        others = self.num_classes - self.k
        rest = (1 - kept.sum(dim=1, keepdim=True)).clamp_min(0) / max(1, others)
        spread = rest.repeat(1, self.num_classes).scatter(1, classes.long(), kept)
        return spread.clamp_min(SMALLEST).log()
