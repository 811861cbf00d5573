"""Many teachers into one: the rules that say how several teachers' answers become one loss.

A rule is a pure function `(targets, loss, *, shares, temperature) -> value`. `targets` has one tensor per teacher,
`loss(k, target)` is the loss of the student against a target in teacher k's classes and shape, `shares` (teachers,)
add up to 1. The three means are three different things (Hinton et al., 2015, arXiv 1503.02531, averages probabilities).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

TeacherLoss = Callable[[int, Tensor], Tensor]


class EnsembleRule(Protocol):
    """Combines one target per teacher into one loss value."""

    def __call__(
        self, targets: Sequence[Tensor], loss: TeacherLoss, *, shares: Tensor, temperature: float
    ) -> Tensor: ...


def mean_losses(targets: Sequence[Tensor], loss: TeacherLoss, *, shares: Tensor, temperature: float = 1.0) -> Tensor:
    """The mean of the losses against each teacher: sum_k share_k loss_k."""
    values = [share * loss(k, target) for k, (share, target) in enumerate(zip(shares, targets, strict=True))]
    return torch.stack(values).sum(dim=0)


def mean_logits(targets: Sequence[Tensor], loss: TeacherLoss, *, shares: Tensor, temperature: float = 1.0) -> Tensor:
    """The loss against the mean of the logits: z = sum_k share_k z_k. `targets`: (rows, classes) each."""
    return loss(0, torch.einsum("k,k...->...", shares.to(targets[0].dtype), torch.stack(list(targets))))


def mean_probabilities(
    targets: Sequence[Tensor], loss: TeacherLoss, *, shares: Tensor, temperature: float = 1.0
) -> Tensor:
    """The loss against the mean of the probabilities at the loss's temperature T, as the pseudo-logits
    z = T * logsumexp_k(log_softmax(z_k / T) + log share_k). `targets`: (rows, classes) each.
    """
    log_probabilities = torch.stack([torch.log_softmax(target / temperature, dim=1) for target in targets])
    log_shares = shares.to(log_probabilities.dtype).log().view(-1, *[1] * targets[0].ndim)
    return loss(0, temperature * torch.logsumexp(log_probabilities + log_shares, dim=0))


def shares_of(teachers: Sequence[str], weights: Mapping[str, float] | None, where: str) -> Tensor:
    """Each teacher's share from fixed weights (missing ones 1), scaled to add up to 1. `where` is their config key.

    Raises:
        ValueError: they are no mapping of numbers, one is negative, or all are zero.
    """
    given = {} if weights is None else weights
    if not isinstance(given, Mapping) or not all(isinstance(weight, (int, float)) for weight in given.values()):
        raise ValueError(f"{where}: expected a number for each teacher's name, got {weights!r}")
    raw = torch.tensor([float(given.get(teacher, 1.0)) for teacher in teachers], dtype=torch.float64)
    if len(raw) and not (bool((raw >= 0).all()) and 0 < raw.sum() < torch.inf):
        raise ValueError(f"{where}: expected weights >= 0 with a positive sum, got {raw.tolist()}")
    return raw / raw.sum() if len(raw) else raw
