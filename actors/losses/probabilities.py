"""Log-probabilities at a temperature, and the divergence between two of them."""

from torch import Tensor
from torch.nn import functional

from actors.losses.precision import at_least_float32

EPSILON = 1e-7


def log_probabilities(logits: Tensor, temperature: float = 1.0, *, standardize: bool = False) -> Tensor:
    """log softmax(z / T) over the last dimension, in float32 at least, of z as it is or `standardized`.

    Raises ValueError where the temperature is not above 0, or one class is to be standardised.
    """
    return functional.log_softmax(softened(logits, temperature, standardize=standardize), dim=-1)


def softened(logits: Tensor, temperature: float, *, standardize: bool = False) -> Tensor:
    """z / T in float32 at least, of z as it is or `standardized`; raises ValueError as `log_probabilities` does."""
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    logits = standardized(logits) if standardize else at_least_float32(logits)
    return logits / temperature


def standardized(logits: Tensor) -> Tensor:
    """Logit standardisation (Sun et al., 2024, arXiv 2403.01427), in float32 at least.

    (z - mean z) / (std z + 1e-7) over the last dimension, std being the unbiased one (C - 1): the student
    need not follow the size of the teacher's logits. A row of equal logits (a head that starts
    at zero) becomes zeros, and its gradient is 1e7 times what it would be otherwise: more than float16 holds.

    Raises ValueError for one class alone, which has no spread.
    """
    if logits.shape[-1] < 2:
        raise ValueError("standardize: expected logits of two classes at least, got one; leave it out")
    logits = at_least_float32(logits)
    spread = logits.std(dim=-1, keepdim=True)
    return (logits - logits.mean(dim=-1, keepdim=True)) / (spread + EPSILON)


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p || q) = sum_c p (log p - log q) over the last dimension; a student's q comes first, a teacher's p second."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
