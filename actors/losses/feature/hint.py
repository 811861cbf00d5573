"""Hints of FitNets: the student's feature, through a connector, follows the teacher's."""

from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_same_batch, require_same_shape


@distils(paper="Romero et al., 2014, arXiv 1412.6550", kind="feature")
def hint_loss(student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared distance of features (Romero et al., 2014, arXiv 1412.6550).

    mean (f_s - f_t)^2 over all elements of a sample, then over the batch. The paper writes half of the sum
    over a sample's D elements: a weight published for the sum is to be multiplied by D / 2 here. The
    regressor that fits the student's feature to the teacher's shape is a connector, outside of this function.

    student_features, teacher_features: (N, ...), of one shape. Returns a scalar, or (N,) with
    `reduction="none"`.
    Raises ValueError where the shapes differ or the reduction is unknown.
    """
    require_same_batch(student_features=student_features, teacher_features=teacher_features)
    require_same_shape(
        "fit the student's feature by a connector",
        student_features=student_features,
        teacher_features=teacher_features,
    )
    gap = at_least_float32(student_features) - at_least_float32(teacher_features)
    return reduce(gap.square().flatten(start_dim=1).mean(dim=1), reduction)
