"""Attention transfer: where the teacher looks."""

from torch import Tensor
from torch.nn import functional

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_maps, require_same_space


def attention_map(features: Tensor, *, exponent: float) -> Tensor:
    """(N, C, H, W) to (N, H * W): mean over the channels of |f|^exponent, of unit length in each sample."""
    require_maps(features=features)
    if not exponent >= 1:
        raise ValueError(f"exponent: expected 1 at least, got {exponent}; below 1 the gradient at 0 is infinite")
    features = at_least_float32(features)
    energies = features.square() if exponent == 2 else features.abs().pow(exponent)
    energy = energies.mean(dim=1)
    return functional.normalize(energy.flatten(start_dim=1), dim=1)


def attention_closing(student_map: Tensor, teacher_map: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """The loss between two attention maps."""
    return reduce((student_map - teacher_map).square().mean(dim=1), reduction)


@distils(
    paper="Zagoruyko and Komodakis, 2016, arXiv 1612.03928",
    kind="feature",
    aligns="space",
    phi=attention_map,
    closing=attention_closing,
)
def attention_transfer_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    exponent: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Spatial attention maps (Zagoruyko and Komodakis, 2016, arXiv 1612.03928).

    mean (Q_s - Q_t)^2 over H * W, then over the batch, with Q = q / |q|_2 and q = mean_c |f_c|^exponent. The
    paper writes beta / 2 * |Q_s - Q_t|, its code the form here; the published beta of 1000, divided by the
    number of elements, assumes this mean.

    student_features (N, C, H, W), teacher_features (N, C', H, W). Returns a scalar, or (N,) with
    `reduction="none"`.
    Raises ValueError where N, H or W differ, the exponent is below 1, or the reduction is unknown.
    """
    require_same_space(student_features=student_features, teacher_features=teacher_features)
    student_map, teacher_map = (attention_map(one, exponent=exponent) for one in (student_features, teacher_features))
    return attention_closing(student_map, teacher_map, reduction=reduction)
