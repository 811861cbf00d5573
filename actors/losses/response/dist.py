"""Distillation from a stronger teacher: correlation in place of divergence."""

from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.probabilities import log_probabilities
from actors.losses.shapes import require_logits

EPSILON = 1e-8


@distils(paper="Huang et al., 2022, arXiv 2205.10536", kind="response")
def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """Correlation of probabilities over classes and over samples (Huang et al., 2022, arXiv 2205.10536).

    T^2 * [beta * (1 - mean_i rho(row i)) + gamma * (1 - mean_c rho(column c))], rho being Pearson's
    correlation of student and teacher on softmax(z / T), with 1e-8 added to its denominator. T^2 is the
    published code's, not the paper's; at T = 1, the default, they agree. `standardize` takes
    each row's z-scores before T (Sun et al., 2024, arXiv 2403.01427).

    The columns relate the samples of a batch, hence no `reduction`. What is constant has rho = 0: a column in
    a batch of one sample costs its 1 and teaches nothing. A student's row of equal logits (a head that starts
    at zero) meets a gradient beyond 1e6 where classes are few: more than float16 holds.

    student_logits, teacher_logits: (N, C). Returns a scalar.
    Raises ValueError where the shapes differ, the temperature is not above 0, or one class is to be standardised.
    """
    require_logits(student_logits, teacher_logits)
    student = log_probabilities(student_logits, temperature, standardize=standardize).exp()
    teacher = log_probabilities(teacher_logits, temperature, standardize=standardize).exp()
    between_classes = 1 - _correlation(student, teacher).mean()
    within_classes = 1 - _correlation(student.T, teacher.T).mean()
    return temperature**2 * (beta * between_classes + gamma * within_classes)


def _correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson's correlation of each row of the student with the teacher's."""
    student = student - student.mean(dim=1, keepdim=True)
    teacher = teacher - teacher.mean(dim=1, keepdim=True)
    norms = student.norm(dim=1) * teacher.norm(dim=1)
    return (student * teacher).sum(dim=1) / (norms + EPSILON)
