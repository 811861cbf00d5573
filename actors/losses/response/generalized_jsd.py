"""Generalised Jensen-Shannon divergence: from the forward KL to the reverse."""

import math

import torch
from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.probabilities import kl_divergence, log_probabilities
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_logits


@distils(paper="Agarwal et al., 2023, arXiv 2306.13649", kind="response")
def generalized_jsd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised Jensen-Shannon divergence of GKD (Agarwal et al., 2023, arXiv 2306.13649).

    T^2 * [beta * KL(p_t || m) + (1 - beta) * KL(p_s || m)], m = beta * p_t + (1 - beta) * p_s, averaged over
    the batch, with p = softmax(z / T). The two ends are the divergences that it tends to in direction:
    beta = 0 is the forward KL(p_t || p_s), which `kd_loss` is too, beta = 1 the reverse KL(p_s || p_t). Just
    inside of an end the value is that KL times beta, or 1 - beta: a weight does not carry over. T^2 is that
    of `kd_loss`, not of the paper, which stays at T = 1, the default. `standardize` takes each row's z-scores
    before T (Sun et al., 2024, arXiv 2403.01427).

    student_logits, teacher_logits: (N, C). Returns a scalar, or (N,) with `reduction="none"`.
    Raises ValueError where the shapes differ, beta is not from 0 to 1, the temperature is not above 0, one
    class is to be standardised, or the reduction is unknown.
    """
    require_logits(student_logits, teacher_logits)
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: expected a number from 0 (forward KL) to 1 (reverse KL), got {beta}")
    student = log_probabilities(student_logits, temperature, standardize=standardize)
    teacher = log_probabilities(teacher_logits, temperature, standardize=standardize)
    return reduce(temperature**2 * _divergence(student, teacher, beta), reduction)


def _divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """The divergence of each row of log-probabilities; the mixture stays a logarithm, and so never is log 0."""
    if beta == 0:
        return kl_divergence(student, teacher)
    if beta == 1:
        return kl_divergence(teacher, student)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * kl_divergence(mixture, teacher) + (1 - beta) * kl_divergence(mixture, student)
