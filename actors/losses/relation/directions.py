"""Directions of vectors, safe where a vector is zero."""

import math

from torch import Tensor


def directions(vectors: Tensor) -> Tensor:
    """Unit vectors along the last dimension; a zero vector stays zero, and has no gradient.

    `functional.normalize` divides by 1e-12 there, and its gradient drowns every other.
    """
    lengths = vectors.norm(dim=-1, keepdim=True)
    return vectors / lengths.masked_fill(lengths == 0, math.inf)
