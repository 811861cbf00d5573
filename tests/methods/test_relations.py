"""What is particular to losses that relate samples: values by hand, samples that coincide, a batch of one."""

import pytest
import torch

from actors.losses import pkt_loss, rkd_angle_loss, rkd_distance_loss
from tests.methods.golden import golden_input, golden_value

LOSSES = [rkd_distance_loss, rkd_angle_loss, pkt_loss]


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def gradient_of(loss, student, teacher):
    student = student.clone().requires_grad_()
    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    return value.item(), gradient


def test_rkd_is_both_of_its_parts():
    """The published weights."""
    s, t = golden_input("es"), golden_input("et")
    whole = 25 * rkd_distance_loss(s, t) + 50 * rkd_angle_loss(s, t)
    assert whole.item() == pytest.approx(golden_value("rkd", "distance 25, angle 50", "es,et"), rel=1e-12)


def test_rkd_distance_by_hand():
    """On a line: 1, 3, 2 in units of their mean 2, against 1, 2, 1 in units of 4/3; nine pairs, three of them empty."""
    value = rkd_distance_loss(rows([0], [1], [3]), rows([0], [1], [2]))
    gaps = (1 / 2 - 3 / 4, 3 / 2 - 3 / 2, 1 - 3 / 4)
    assert value.item() == pytest.approx(2 * sum(gap**2 / 2 for gap in gaps) / 9, rel=1e-12)


def test_rkd_angle_by_hand():
    """Cosines 0, r, r of a right angle against 1, -1, 1 on a line; beyond a gap of 1 the loss is linear."""
    value = rkd_angle_loss(rows([0, 0], [1, 0], [0, 1]), rows([0], [1], [2]))
    r = 0.5**0.5
    assert value.item() == pytest.approx(2 * (1 / 2 + (1 + r - 1 / 2) + (1 - r) ** 2 / 2) / 27, rel=1e-12)


def test_rkd_counts_equal_samples_among_the_distances():
    """0, 0 and 3 on a line lie 0, 3 and 3 apart: the mean is 2, as for 0, 1 and 3."""
    gaps = (1 / 2, 3 / 2 - 3 / 2, 3 / 2 - 1)
    value = rkd_distance_loss(rows([0], [1], [3]), rows([0], [0], [3]))
    assert value.item() == pytest.approx(2 * sum(gap**2 / 2 for gap in gaps) / 9, rel=1e-12)


def test_pkt_by_hand():
    """Two samples: cosine 0 gives (2/3, 1/3), cosine -1 gives (1, 0)."""
    value = pkt_loss(rows([1, 0], [0, 2]), rows([1, 0], [-3, 0]))
    assert value.item() == pytest.approx(2 * torch.tensor(1.5).log().item() / 4, rel=1e-6)
    turned = pkt_loss(rows([1, 0], [-3, 0]), rows([1, 0], [0, 2]))
    sure = 2 / 3 * torch.log(rows(2 / 3)) + 1 / 3 * torch.log(rows(1 / 3 / 1e-7))
    assert turned.item() == pytest.approx(2 * sure.item() / 4, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_any_two_shapes_and_any_size_of_the_features(loss):
    s, t = golden_input("es"), golden_input("ft")
    assert loss(s, t) > 0
    torch.testing.assert_close(loss(3 * s, t), loss(s, t / 7), rtol=1e-10, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_equal_samples_of_the_student_keep_the_gradient_in_bounds(loss):
    s, t = golden_input("es"), golden_input("et")
    s[1] = s[0]
    value, gradient = gradient_of(loss, s, t)
    assert value > 0 and 1e-6 < gradient.abs().max() < 1
    _, in_float32 = gradient_of(loss, s.float(), t.float())
    torch.testing.assert_close(in_float32.double(), gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sample_of_zeros_keeps_the_gradient_in_bounds(loss):
    s, t = golden_input("es"), golden_input("et")
    s[2] = 0
    value, gradient = gradient_of(loss, s, t)
    assert value > 0 and 1e-6 < gradient.abs().max() < 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", [0.0, 0.3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_student_that_gives_all_samples_the_same_gets_a_gradient_of_no_harm(loss, level, dtype):
    _, gradient = gradient_of(loss, torch.full((4, 5), level, dtype=dtype), golden_input("et").to(dtype))
    assert gradient.abs().max() < 1


@pytest.mark.parametrize("loss", LOSSES)
def test_a_teacher_that_gives_all_samples_the_same_is_finite(loss):
    value, _ = gradient_of(loss, golden_input("es"), torch.zeros(4, 7, dtype=torch.float64))
    assert value > 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_batch_of_one_costs_and_teaches_nothing(loss, level):
    value, gradient = gradient_of(loss, level * golden_input("es")[:1], golden_input("et")[:1])
    assert abs(value) < 1e-12 and gradient.abs().max() < 1e-12


def test_near_samples_keep_their_digits():
    """Thirty samples a hundred times as far from the origin as from each other."""
    s, t = (torch.sin(torch.arange(30 * 5).view(30, 5) * step).float() + 100 for step in (0.37, 0.61))
    for loss in (rkd_distance_loss, rkd_angle_loss):
        torch.testing.assert_close(loss(s, t).double(), loss(s.double(), t.double()), rtol=1e-5, atol=0)


def test_pkt_of_opposed_samples_is_finite():
    """In float32 the cosine of opposed rows may round to less than -1."""
    for size in range(500, 540):
        s = torch.sin(torch.arange(size, dtype=torch.float32)).unsqueeze(0)
        value, _ = gradient_of(pkt_loss, torch.cat([s, -s]), torch.cat([s, s]))
        assert value > 0
