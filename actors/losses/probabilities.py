"""Log-probabilities at a temperature, and the divergence between two of them."""

from torch import Tensor
from torch.nn import functional

from actors.losses.precision import at_least_float32


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(z / T) over the last dimension, in float32 at least.

    Raises ValueError where the temperature is not above 0.
    """
    return functional.log_softmax(softened(logits, temperature), dim=-1)


def softened(logits: Tensor, temperature: float) -> Tensor:
    """z / T in float32 at least; raises ValueError where the temperature is not above 0."""
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    return at_least_float32(logits) / temperature


def kl_divergence(student_log_probabilities: Tensor, teacher_log_probabilities: Tensor) -> Tensor:
    """KL(p_t || p_s) = sum_c p_t (log p_t - log p_s), a value per row."""
    gap = teacher_log_probabilities - student_log_probabilities
    return (teacher_log_probabilities.exp() * gap).sum(dim=-1)
