"""Flow of the solution procedure: how the channels of one layer go with those of a later one."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32, full_precision
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_maps, require_same_channels

Pooling = Literal["max", "mean"]
POOLS = {"max": functional.adaptive_max_pool2d, "mean": functional.adaptive_avg_pool2d}


def flow(early: Tensor, late: Tensor, *, pooling: Pooling) -> Tensor:
    """(N, C, H, W) and (N, D, H', W') to (N, C, D): sum over the places of f_c g_d, divided by their number."""
    require_maps(early=early, late=late)
    if pooling not in POOLS:
        raise ValueError(f"pooling: expected max or mean, got {pooling!r}")
    size = [min(sides) for sides in zip(early.shape[2:], late.shape[2:], strict=True)]
    first, second = (POOLS[pooling](at_least_float32(one), size).flatten(start_dim=2) for one in (early, late))
    with full_precision(first):
        return first @ second.transpose(1, 2) / first.shape[2]


def fsp_closing(student_flow: Tensor, teacher_flow: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """The loss between two matrices."""
    gap = student_flow - teacher_flow
    return reduce(gap.square().flatten(start_dim=1).mean(dim=1), reduction)


@distils(
    paper="Yim et al., 2017, CVPR",
    kind="relation",
    aligns="channels",
    phi=flow,
    closing=fsp_closing,
)
def fsp_loss(
    student_early: Tensor,
    student_late: Tensor,
    teacher_early: Tensor,
    teacher_late: Tensor,
    *,
    pooling: Pooling = "max",
    reduction: Reduction = "mean",
) -> Tensor:
    """Gram matrix of two layers in each sample (Yim et al., 2017, CVPR).

    mean_cd (G_s - G_t)^2, then over the batch, with G_cd = sum over the H * W places of f_c g_d, divided by their
    number, f being the earlier layer's feature and g the later one's. Where they differ in size the larger is pooled
    to the smaller: by its maxima as in the paper ("A gift from knowledge distillation"); `mean` is what published
    code does. The paper sums over the C * D elements: a weight published for the sum is to be multiplied by C * D
    here. It is of the fourth degree in its features: from 1e3 on its gradient outgrows float16.

    student_early, teacher_early (N, C, ., .), student_late, teacher_late (N, D, ., .): height and width are each
    feature's own. Returns a scalar, or (N,) with `reduction="none"`.
    Raises ValueError where N, C or D differ, or pooling or reduction are unknown.
    """
    require_same_channels(student_early=student_early, teacher_early=teacher_early)
    require_same_channels(student_late=student_late, teacher_late=teacher_late)
    student_flow = flow(student_early, student_late, pooling=pooling)
    return fsp_closing(student_flow, flow(teacher_early, teacher_late, pooling=pooling), reduction=reduction)
