"""Two models on the same test samples: where only one of them is right (McNemar). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CHANCE = 0.05


@dataclass(frozen=True)
class Paired:
    """`gained`: samples that the second model alone has right; `lost`: those that the first alone has right."""

    gained: int
    lost: int
    samples: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Paired:
        """From whether each is right, per sample."""
        return cls(int((second & ~first).sum()), int((first & ~second).sum()), len(first))

    @property
    def points(self) -> float:
        """The second's accuracy minus the first's, in points of a hundred."""
        return 100 * (self.gained - self.lost) / self.samples

    @property
    def standard_errors(self) -> float:
        """The difference in units of what chance would make of the samples on which the two differ; signed."""
        differing = self.gained + self.lost
        return (self.gained - self.lost) / sqrt(differing) if differing else 0.0

    @property
    def probability(self) -> float:
        """Of a difference as large or larger, either way, if each differing sample fell to either by a coin (exact)."""
        differing = self.gained + self.lost
        term = comb(differing, max(self.gained, self.lost))
        total = 0
        for one in range(max(self.gained, self.lost), differing + 1):
            total += term
            term = term * (differing - one) // (one + 1)
        return min(1.0, 2 * total / 2**differing)

    @property
    def is_beyond_chance(self) -> bool:
        return self.probability < CHANCE

    def __str__(self) -> str:
        return f"{self.points:+.2f} points, {abs(self.standard_errors):.1f} standard errors"
