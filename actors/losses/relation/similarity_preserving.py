"""Similarity preserving: which samples of a batch look alike to the teacher."""

from torch import Tensor
from torch.nn import functional

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32, full_precision
from actors.losses.shapes import require_same_batch


@distils(paper="Tung and Mori, 2019, arXiv 1907.09682", kind="relation", aligns="nothing")
def similarity_preserving_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarities between the samples of a batch (Tung and Mori, 2019, arXiv 1907.09682).

    |G_s - G_t|_F^2 / N^2, G being F F^T with each row scaled to unit length and F the features as rows. It
    relates the samples of a batch, hence no `reduction`; a published weight assumes the N^2.

    student_features (N, ...), teacher_features (N, ...): any shapes beyond N. Returns a scalar.
    Raises ValueError where N differs or there is nothing beyond N.
    """
    require_same_batch(student_features=student_features, teacher_features=teacher_features)
    gap = _similarities(student_features) - _similarities(teacher_features)
    return gap.square().mean()


def _similarities(features: Tensor) -> Tensor:
    rows = at_least_float32(features).flatten(start_dim=1)
    with full_precision(rows):
        return functional.normalize(rows @ rows.T, dim=1)
