"""What is particular to one loss: values by hand, identities of the papers, refusals of its own."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional

from actors.losses import (
    attention_transfer_loss,
    channel_wise_loss,
    cross_entropy_loss,
    dist_loss,
    dkd_loss,
    generalized_jsd_loss,
    hint_loss,
    kd_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)
from tests.methods import kit
from tests.methods.cases import response
from tests.methods.golden import golden_input


def test_kd_is_dkd_with_the_teachers_own_weights():
    """The paper's identity: KL = TCKD + (1 - p_y of the teacher) * NCKD."""
    s, t, y = golden_input("s"), golden_input("t"), golden_input("y")
    target = dkd_loss(s, t, y, alpha=1.0, beta=0.0, reduction="none")
    others = dkd_loss(s, t, y, alpha=0.0, beta=1.0, reduction="none")
    rest = 1 - functional.softmax(t / 4, dim=1)[torch.arange(4), y]
    torch.testing.assert_close(target + rest * others, kd_loss(s, t, reduction="none"))


def test_dkd_sees_the_other_classes_of_a_sure_teacher():
    """A target at 1e4 must not cost the other classes their digits."""
    s, t, y = golden_input("s"), golden_input("t"), golden_input("y")
    sure = t.scatter(1, y.unsqueeze(1), 1e4)
    others = partial(dkd_loss, alpha=0.0, beta=1.0)
    torch.testing.assert_close(others(s, sure, y), others(s, t, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(others(s.float(), sure.float(), y), others(s, t, y).float(), rtol=1e-5, atol=0)


def test_dkd_refuses_what_it_cannot_take():
    s, t, y = golden_input("s"), golden_input("t"), golden_input("y")
    with pytest.raises(ValueError, match=r"labels: expected class numbers \(int64\), got torch.float64"):
        dkd_loss(s, t, y.double())
    with pytest.raises(ValueError, match="student_logits: expected two classes at least, got one"):
        dkd_loss(s[:, :1], t[:, :1], torch.zeros(4, dtype=torch.int64))


def test_generalized_jsd_by_hand():
    """Even against (3/4, 1/4), beta = 1/4: m = (9/16, 7/16)."""
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    of_teacher = 0.75 * math.log(0.75 * 16 / 9) + 0.25 * math.log(0.25 * 16 / 7)
    of_student = 0.5 * math.log(0.5 * 16 / 9) + 0.5 * math.log(0.5 * 16 / 7)
    value = generalized_jsd_loss(student, teacher, beta=0.25)
    assert value.item() == pytest.approx(0.25 * of_teacher + 0.75 * of_student, rel=1e-12)


def test_generalized_jsd_tends_to_its_ends():
    s, t = golden_input("s"), golden_input("t")
    forward, reverse = kd_loss(s, t, temperature=1.0), kd_loss(t, s, temperature=1.0)
    torch.testing.assert_close(generalized_jsd_loss(s, t, beta=1e-6) / 1e-6, forward, rtol=1e-5, atol=0)
    torch.testing.assert_close(generalized_jsd_loss(s, t, beta=1 - 1e-6) / 1e-6, reverse, rtol=1e-5, atol=0)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_generalized_jsd_at_a_temperature_is_that_of_softer_logits_times_its_square(beta):
    s, t = golden_input("s"), golden_input("t")
    softer = generalized_jsd_loss(s / 4, t / 4, beta=beta)
    torch.testing.assert_close(generalized_jsd_loss(s, t, beta=beta, temperature=4.0), 16 * softer)
    torch.testing.assert_close(generalized_jsd_loss(s, t, beta=beta), generalized_jsd_loss(t, s, beta=1 - beta))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.999999, 1.0])
def test_generalized_jsd_holds_at_any_beta(beta):
    """The case of the kit has one beta: the others are other formulas."""
    case = next(case for case in response.CASES if case.loss is generalized_jsd_loss)
    case = replace(case, golden=(replace(case.golden[0], kwargs={"beta": beta}),))
    kit.check_extremes(case)
    kit.check_half_precision(case, torch.float16)
    kit.check_zero_at_equality(case)


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_generalized_jsd_refuses_a_beta_that_mixes_nothing(beta):
    with pytest.raises(ValueError, match=rf"beta: expected a number from 0 .* to 1 .*, got {beta}"):
        generalized_jsd_loss(golden_input("s"), golden_input("t"), beta=beta)


def test_cross_entropy_takes_soft_labels():
    s, y = golden_input("s"), golden_input("y")
    one_hot = functional.one_hot(y, 6).double()
    torch.testing.assert_close(cross_entropy_loss(s, one_hot), cross_entropy_loss(s, y))
    smoothed = 0.9 * one_hot + 0.1 / 6
    torch.testing.assert_close(cross_entropy_loss(s, smoothed), cross_entropy_loss(s, y, label_smoothing=0.1))
    torch.testing.assert_close(cross_entropy_loss(s.half(), one_hot), cross_entropy_loss(s.half(), y))
    with pytest.raises(ValueError, match=r"labels: expected shape \(4, 6\) as student_logits, got \(4, 5\)"):
        cross_entropy_loss(s, one_hot[:, :5])


def test_attention_transfer_by_hand():
    """One sample, two channels, two places: q = ((1 + 9) / 2, (0 + 16) / 2) against (1, 0)."""
    student = torch.tensor([1.0, 0.0, -3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 2)
    teacher = torch.tensor([2.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    length = (25 + 64) ** 0.5
    expected = ((5 / length - 1) ** 2 + (8 / length) ** 2) / 2
    assert attention_transfer_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    absolute = (((2 / 8**0.5) - 1) ** 2 + (2 / 8**0.5) ** 2) / 2
    assert attention_transfer_loss(student, teacher, exponent=1.0).item() == pytest.approx(absolute, rel=1e-12)


def test_attention_transfer_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match=r"exponent: expected 1 at least, got 0\.5"):
        attention_transfer_loss(golden_input("fs"), golden_input("ft"), exponent=0.5)
    with pytest.raises(ValueError, match=r"student_features: expected shape \(N, C, H, W\), got \(4, 5\)"):
        attention_transfer_loss(golden_input("es"), golden_input("et"))


def test_channel_wise_by_hand():
    """Two channels of two places: (3/4, 1/4) against even, and equal up to a constant, which a softmax drops."""
    teacher = torch.tensor([3.0, 1.0, 5.0, 2.0], dtype=torch.float64).log().view(1, 2, 1, 2)
    student = torch.tensor([1.0, 1.0, 10.0, 4.0], dtype=torch.float64).log().view(1, 2, 1, 2)
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert channel_wise_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-12)
    assert channel_wise_loss(2 * student, 2 * teacher, temperature=2.0).item() == pytest.approx(4 * expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"student_features: expected shape \(N, C, H, W\), got \(4, 5\)"):
        channel_wise_loss(golden_input("es"), golden_input("et"))


def test_similarity_preserving_takes_any_two_shapes():
    assert similarity_preserving_loss(golden_input("es"), golden_input("ft")) > 0
    rotated = golden_input("es").flip(1)
    assert similarity_preserving_loss(golden_input("es"), rotated).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [hint_loss, similarity_preserving_loss, rkd_distance_loss, rkd_angle_loss, pkt_loss])
def test_features_keep_their_batch_dimension(loss):
    with pytest.raises(ValueError, match=r"student_features: expected shape \(N, \.\.\.\) of two dimensions"):
        loss(golden_input("es")[0], golden_input("et"))


def test_dist_of_one_sample_teaches_by_its_classes_alone():
    s, t = golden_input("s")[:1].requires_grad_(), golden_input("t")[:1]
    within = dist_loss(s, t, beta=0.0)
    (gradient,) = torch.autograd.grad(within, s)
    assert within.item() == 1 and not gradient.any()
    assert 0 < dist_loss(s, t, gamma=0.0).item() < 2
