"""The k largest logits of a row and the mass of the others: what travels in place of all logits. Imports no Ray.

`rebuilt` and `facing` say what a loss makes of them: logits of all classes, or of the k and perhaps one bucket.
"""

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
    small = logits.shape[1] <= SMALL.max + 1
    return values, classes.to(torch.int16 if small else torch.int32), others(logits, classes)


def others(logits: Tensor, classes: Tensor) -> Tensor:
    """The logsumexp (N, 1) of the logits (N, C) that are not of `classes` (N, k), int64."""
    return logits.scatter(1, classes, -torch.inf).logsumexp(dim=1, keepdim=True)


def rebuilt(values: Tensor, classes: Tensor, rest: Tensor, *, num_classes: int) -> Tensor:
    """Logits (N, num_classes) in which the other classes share their mass evenly: at temperature 1 the k largest
    probabilities are the teacher's."""
    each = rest - math.log(num_classes - values.shape[1])
    return each.repeat(1, num_classes).scatter(1, classes.long(), values)


def facing(
    student_logits: Tensor, values: Tensor, classes: Tensor, rest: Tensor, *, bucket: bool
) -> tuple[Tensor, Tensor]:
    """The student's logits (N, C) and the teacher's at the teacher's k classes, (N, k) each.

    With `bucket` (N, k + 1): the other classes are one more, of the logit logsumexp(others). At temperature 1 it has
    their mass; at temperature T it is one class with that same logit, not the others softened one by one. Without it
    their mass is left out, and a softmax is over the k alone.
    """
    columns = classes.long()
    named = student_logits.gather(1, columns)
    if not bucket:
        return named, values
    return torch.cat([named, others(student_logits, columns)], dim=1), torch.cat([values, rest], dim=1)
