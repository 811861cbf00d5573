"""Probabilistic knowledge transfer: with what probability one sample finds another beside it."""

from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32, full_precision
from actors.losses.relation.directions import directions
from actors.losses.shapes import require_same_batch

EPSILON = 1e-7


@distils(paper="Passalis and Tefas, 2018, arXiv 1803.10837", kind="relation", aligns="nothing")
def pkt_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Probabilities of one sample beside another (Passalis and Tefas, 2018, arXiv 1803.10837).

    mean_ij p_t(j | i) * log [(p_t(j | i) + 1e-7) / (p_s(j | i) + 1e-7)], with p(j | i) = k(i, j) / sum_j k(i, j),
    k = (cos + 1) / 2 and cos that of the two samples' features as rows. The paper sums over the pairs i != j;
    this is the published code's form, which keeps i = j, and a published weight assumes its mean over N^2. It
    relates the samples of a batch, hence no `reduction`. A sample whose features are all zero has cosine 0
    with every other, and no gradient: a head that starts at zero learns nothing from it.

    student_features (N, ...), teacher_features (N, ...): any shapes beyond N. Returns a scalar.
    Raises ValueError where N differs or there is nothing beyond N.
    """
    require_same_batch(student_features=student_features, teacher_features=teacher_features)
    student, teacher = _neighbours(student_features), _neighbours(teacher_features)
    return (teacher * ((teacher + EPSILON).log() - (student + EPSILON).log())).mean()


def _neighbours(features: Tensor) -> Tensor:
    """(N, N): row i is the distribution of i's neighbours."""
    rows = directions(at_least_float32(features).flatten(start_dim=1))
    with full_precision(rows):
        cosines = rows @ rows.T
    # Rounding may take a cosine below -1 by more than the epsilon in the logarithm
    kernel = (cosines.clamp(min=-1) + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)
