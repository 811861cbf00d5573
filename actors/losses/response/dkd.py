"""Decoupled knowledge distillation."""

import torch
from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.probabilities import kl_divergence, log_probabilities, softened
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_hard_labels, require_logits


@distils(paper="Zhao et al., 2022, arXiv 2203.08679", kind="response", needs=("labels",))
def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Target and other classes taught apart (Zhao et al., 2022, arXiv 2203.08679).

    T^2 * (alpha * TCKD + beta * NCKD) at temperature T, averaged over the batch. TCKD = KL(b_t || b_s) with
    b = (p_y, 1 - p_y); NCKD = KL(q_t || q_s) with q the softmax over the classes other than y. A published
    alpha and beta assume both T^2 and the mean over the batch. `standardize` takes each row's z-scores, over
    all of its classes, before T (Sun et al., 2024, arXiv 2403.01427).

    student_logits, teacher_logits: (N, C) with C >= 2; labels: (N,), class numbers in 0 .. C - 1 (unlabelled
    rows must be left out before). Returns a scalar, or (N,) with `reduction="none"`.
    Raises ValueError where the shapes differ, C < 2, labels are no class numbers, the temperature is not
    above 0, or the reduction is unknown.
    """
    require_logits(student_logits, teacher_logits)
    require_hard_labels(student_logits, labels)
    if student_logits.shape[1] < 2:
        raise ValueError("student_logits: expected two classes at least, got one; take kd_loss")
    student_target, student_others = _decoupled(softened(student_logits, temperature, standardize=standardize), labels)
    teacher_target, teacher_others = _decoupled(softened(teacher_logits, temperature, standardize=standardize), labels)
    target_part = kl_divergence(student_target, teacher_target)
    others_part = kl_divergence(student_others, teacher_others)
    return reduce(temperature**2 * (alpha * target_part + beta * others_part), reduction)


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log (p_y, 1 - p_y), (N, 2), and the log-softmax over the other classes, (N, C - 1)."""
    label_column = labels.long().unsqueeze(1)
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, columns + (columns >= label_column))
    # 1 - p_y rounds to 0 where a model is sure, and its log to -inf; as a logit of its own it stays finite
    rest = others.logsumexp(dim=1, keepdim=True)
    target_or_rest = torch.cat([logits.gather(1, label_column), rest], dim=1)
    return log_probabilities(target_or_rest), log_probabilities(others)
