"""Knowledge distillation by softened class probabilities."""

from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.probabilities import kl_divergence, log_probabilities
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_logits


@distils(paper="Hinton, Vinyals and Dean, 2015, arXiv 1503.02531", kind="response")
def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Softened class probabilities (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531).

    T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), summed over the classes, averaged over the batch. T^2
    keeps the gradient's size independent of T; a published weight assumes it, and the mean over the batch
    (not over N * C). `standardize` takes each row's z-scores before T (Sun et al., 2024, arXiv 2403.01427).

    student_logits, teacher_logits: (N, C). Returns a scalar, or (N,) with `reduction="none"`.
    Raises ValueError where the shapes differ, the temperature is not above 0, one class is to be standardised, or
    the reduction is unknown.
    """
    require_logits(student_logits, teacher_logits)
    student = log_probabilities(student_logits, temperature, standardize=standardize)
    teacher = log_probabilities(teacher_logits, temperature, standardize=standardize)
    return reduce(temperature**2 * kl_divergence(student, teacher), reduction)
