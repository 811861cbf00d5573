"""Relational knowledge distillation: how far samples lie apart, and under which angles they see one another."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from actors.losses.metadata import distils
from actors.losses.precision import at_least_float32, full_precision
from actors.losses.relation.directions import directions
from actors.losses.shapes import require_same_batch


@distils(paper="Park et al., 2019, arXiv 1904.05068", kind="relation", aligns="nothing")
def rkd_distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Distances between the samples of a batch (Park et al., 2019, arXiv 1904.05068).

    mean_ij smooth_l1(d_s(i, j) - d_t(i, j)) over all N^2 pairs, a sample with itself included, with
    d(i, j) = |f_i - f_j|_2 / mu, mu being the mean distance of two different samples of the batch, and f the
    features as rows. It relates the samples of a batch, hence no `reduction`; the published weight, 25,
    assumes the N^2. Two equal samples have distance 0 and no gradient from one another: a student that gives
    all samples the same (a head that starts at zero) learns nothing from it. Its gradient may hold N^2 D
    numbers.

    student_features (N, ...), teacher_features (N, ...): any shapes beyond N. Returns a scalar.
    Raises ValueError where N differs or there is nothing beyond N.
    """
    require_same_batch(student_features=student_features, teacher_features=teacher_features)
    return functional.smooth_l1_loss(_distances(student_features), _distances(teacher_features))


@distils(paper="Park et al., 2019, arXiv 1904.05068", kind="relation", aligns="nothing")
def rkd_angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Angles between three samples of a batch (Park et al., 2019, arXiv 1904.05068).

    mean_ijk smooth_l1(a_s(i, j, k) - a_t(i, j, k)) over all N^3 triples, those of fewer than three samples
    included, with a(i, j, k) the cosine of the angle at j between i and k, f the features as rows. It relates
    the samples of a batch, hence no `reduction`; the published weight, 50, assumes the N^3. Samples that are
    equal to j give it cosine 0 and no gradient: a student that gives all samples the same (a head that starts
    at zero) learns nothing from it. It holds tensors of N^2 D and N^3 numbers.

    student_features (N, ...), teacher_features (N, ...): any shapes beyond N. Returns a scalar.
    Raises ValueError where N differs or there is nothing beyond N.
    """
    require_same_batch(student_features=student_features, teacher_features=teacher_features)
    return functional.smooth_l1_loss(_angles(student_features), _angles(teacher_features))


def _distances(features: Tensor) -> Tensor:
    """(N, N), in units of the mean distance of two different samples; zeros where no two are apart."""
    rows = at_least_float32(features).flatten(start_dim=1)
    with full_precision(rows):
        # By a matrix product, near samples would lose their digits
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(1, len(rows) * (len(rows) - 1))
    return distances / mean.masked_fill(mean == 0, math.inf)


def _angles(features: Tensor) -> Tensor:
    """(N, N, N), by j, i and k: the cosine of the angle at j between i and k."""
    rows = at_least_float32(features).flatten(start_dim=1)
    towards = directions(rows.unsqueeze(0) - rows.unsqueeze(1))
    with full_precision(rows):
        return towards @ towards.transpose(1, 2)
