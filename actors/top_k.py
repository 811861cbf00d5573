"""The k largest logits of a row and the mass of the others: what travels in place of all logits. Imports no Ray."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actors.reductions import Reduction

PARTS = ("values", "indices", "rest")
SMALL = torch.iinfo(torch.int16)


def top_k_reduction(k: int) -> Reduction:
    """A teacher's logits as their `PARTS`."""
    return Reduction("actors.top_k:top_k", ("logits",), (("k", k),), PARTS)


def top_k(logits: Tensor, *, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits (N, C), k below C: the k largest (N, k), their classes (N, k), int16 where these fit into it, and the
    logsumexp of the others (N, 1)."""
    values, classes = logits.topk(k, dim=1)
    rest = logits.scatter(1, classes, -torch.inf).logsumexp(dim=1, keepdim=True)
    return values, classes.to(torch.int16 if logits.shape[1] <= SMALL.max + 1 else torch.int32), rest


def rebuilt(values: Tensor, classes: Tensor, rest: Tensor, *, num_classes: int) -> Tensor:
    """Logits (N, num_classes) in which the other classes share their mass evenly: at temperature 1 the k largest
    probabilities are the teacher's."""
    each = rest - math.log(num_classes - values.shape[1])
    return each.repeat(1, num_classes).scatter(1, classes.long(), values)
