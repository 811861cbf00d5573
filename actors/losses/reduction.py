"""From a value per sample to what a loss returns."""

from typing import Literal

from torch import Tensor

Reduction = Literal["mean", "none"]


def reduce(per_sample: Tensor, reduction: Reduction) -> Tensor:
    """The mean over the batch, or the values (N,) as they are. The mean of no samples is nan, as in torch.

    Raises ValueError for any other reduction.
    """
    if reduction == "mean":
        return per_sample.mean()
    if reduction == "none":
        return per_sample
    raise ValueError(f"reduction: expected mean or none, got {reduction!r}")
