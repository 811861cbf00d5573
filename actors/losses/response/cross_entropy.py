"""Cross entropy with the labels: not distillation, but what runs beside it."""

from torch import Tensor
from torch.nn import functional

from actors.losses.precision import at_least_float32
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_hard_labels, require_same_shape


def cross_entropy_loss(
    student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Cross entropy, with label smoothing on request (Szegedy et al., 2015, arXiv 1512.00567).

    -sum_c u_c log softmax(z)_c with u = (1 - label_smoothing) * labels + label_smoothing / C.

    student_logits: (N, C); labels: class numbers (N,) in 0 .. C - 1, or probabilities (N, C) in floating
    point (unlabelled rows must be left out before). Returns a scalar, or (N,) with `reduction="none"`.
    Raises ValueError where the shapes do not fit or the reduction is unknown.
    """
    logits = at_least_float32(student_logits)
    if labels.dim() == 2 and labels.is_floating_point():
        require_same_shape("give a probability per class", student_logits=student_logits, labels=labels)
        target = labels.to(logits.dtype)
    else:
        require_hard_labels(student_logits, labels)
        target = labels.long()
    per_sample = functional.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    return reduce(per_sample, reduction)
