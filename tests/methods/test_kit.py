"""The kit can fail: losses broken on purpose, each caught by the check that is there for it."""

import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from actors.losses import (
    attention_transfer_loss,
    distils,
    hint_loss,
    kd_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)
from tests.methods import kit
from tests.methods.cases import feature, relation, response
from tests.methods.golden import golden_value

KD, DKD, *_ = response.CASES
HINT, ATTENTION, *_ = feature.CASES
SIMILARITY, RKD, *_ = relation.CASES


def log_softmax(logits, temperature):
    return functional.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, 1)


def kl_rows(student_logits, teacher_logits, temperature):
    student, teacher = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return (teacher.exp() * (teacher - student)).sum(1)


def kd_without_t_squared(student_logits, teacher_logits, *, temperature=4.0):
    return kl_rows(student_logits, teacher_logits, temperature).mean()


def kd_mean_over_elements(student_logits, teacher_logits, *, temperature=4.0):
    return temperature**2 * kl_rows(student_logits, teacher_logits, temperature).mean() / student_logits.shape[1]


def kd_turned_round(student_logits, teacher_logits, *, temperature=4.0):
    return temperature**2 * kl_rows(teacher_logits, student_logits, temperature).mean()


def kd_by_cross_entropy(student_logits, teacher_logits, *, temperature=4.0):
    return functional.cross_entropy(student_logits / temperature, (teacher_logits / temperature).softmax(1))


def kd_by_log_of_softmax(student_logits, teacher_logits, *, temperature=4.0):
    student, teacher = (student_logits / temperature).softmax(1), (teacher_logits / temperature).softmax(1)
    return temperature**2 * (teacher * (teacher.log() - student.log())).sum(1).mean()


def kd_in_half(student_logits, teacher_logits, *, temperature=4.0):
    student = functional.log_softmax(student_logits / temperature, 1)
    teacher = functional.log_softmax(teacher_logits / temperature, 1)
    return (temperature**2 * (teacher.exp() * (teacher - student)).sum(1).mean()).float()


def kd_of_a_detached_student(student_logits, teacher_logits, *, temperature=4.0):
    return kd_loss(student_logits.detach(), teacher_logits, temperature=temperature)


def kd_without_a_slope(student_logits, teacher_logits, *, temperature=4.0):
    return kd_of_a_detached_student(student_logits, teacher_logits) + 0 * student_logits.sum()


def kd_with_half_a_slope(student_logits, teacher_logits, *, temperature=4.0):
    mixed = 0.5 * student_logits + 0.5 * student_logits.detach()
    return kd_loss(mixed, teacher_logits, temperature=temperature)


def kd_that_sums(student_logits, teacher_logits, *, temperature=4.0, reduction="mean"):
    rows = kd_loss(student_logits, teacher_logits, temperature=temperature, reduction="none")
    return rows if reduction == "none" else rows.sum()


def kd_that_mixes_rows(student_logits, teacher_logits, *, temperature=4.0, reduction="mean"):
    rows = kd_loss(student_logits, teacher_logits, temperature=temperature, reduction="none")
    return rows.mean() if reduction == "mean" else rows.mean().expand(len(rows))


def kd_that_takes_any_reduction(student_logits, teacher_logits, *, temperature=4.0, reduction="mean"):
    known = reduction if reduction in ("mean", "none") else "mean"
    return kd_loss(student_logits, teacher_logits, temperature=temperature, reduction=known)


def kd_that_prefers_the_first(student_logits, teacher_logits, *, temperature=4.0):
    rows = kd_loss(student_logits, teacher_logits, temperature=temperature, reduction="none")
    return (rows * torch.arange(len(rows), 0, -1)).mean()


def kd_that_writes(student_logits, teacher_logits, *, temperature=4.0):
    value = kd_loss(student_logits, teacher_logits, temperature=temperature)
    teacher_logits.zero_()
    return value


def kd_of_a_silent_shape(student_logits, teacher_logits, *, temperature=4.0):
    return kd_loss(student_logits, teacher_logits[:, :1].expand_as(student_logits), temperature=temperature)


def kd_of_a_terse_shape(student_logits, teacher_logits, *, temperature=4.0):
    if student_logits.shape != teacher_logits.shape:
        raise ValueError("shapes differ")
    return kd_loss(student_logits, teacher_logits, temperature=temperature)


def hint_that_broadcasts(student_features, teacher_features):
    return (student_features - teacher_features[:, :3, :4]).square().mean()


def attention_by_hand(student_features, teacher_features):
    student, teacher = (f.square().mean(1).flatten(1) for f in (student_features, teacher_features))
    return (student / student.norm(dim=1, keepdim=True) - teacher / teacher.norm(dim=1, keepdim=True)).square().mean()


def similarity_under_autocast(student_features, teacher_features):
    student, teacher = (f.flatten(1) @ f.flatten(1).T for f in (student_features, teacher_features))
    return (functional.normalize(student, dim=1) - functional.normalize(teacher, dim=1)).square().mean()


def check_first_golden(case):
    kit.check_golden(case, case.golden[0])


def check_float16(case):
    kit.check_half_precision(case, torch.float16)


BROKEN = (
    (check_first_golden, KD, kd_without_t_squared),
    (check_first_golden, KD, kd_mean_over_elements),
    (check_first_golden, KD, kd_turned_round),
    (kit.check_zero_at_equality, KD, kd_by_cross_entropy),
    (kit.check_gradient, KD, kd_of_a_detached_student),
    (kit.check_gradient, KD, kd_without_a_slope),
    (kit.check_gradient, KD, kd_with_half_a_slope),
    (kit.check_shape_error, KD, kd_of_a_silent_shape),
    (kit.check_shape_error, KD, kd_of_a_terse_shape),
    (kit.check_extremes, KD, kd_by_log_of_softmax),
    (kit.check_extremes, ATTENTION, attention_by_hand),
    (check_float16, KD, kd_in_half),
    (check_float16, SIMILARITY, similarity_under_autocast),
    (kit.check_autocast, SIMILARITY, similarity_under_autocast),
    (kit.check_reduction, KD, kd_that_sums),
    (kit.check_reduction, KD, kd_that_mixes_rows),
    (kit.check_permutation, KD, kd_that_prefers_the_first),
    (kit.check_purity, KD, kd_that_writes),
)


@pytest.mark.parametrize(("check", "case", "broken"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_loss_is_caught(check, case, broken):
    check(case)
    with pytest.raises(AssertionError):
        check(replace(case, loss=broken))


def test_an_unknown_reduction_must_be_refused():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        kit.check_reduction(replace(KD, loss=kd_that_takes_any_reduction))


@pytest.mark.parametrize(
    ("case", "loss", "wrong"),
    [
        (KD, kd_loss, "space"),
        (HINT, hint_loss, "space"),
        (HINT, hint_that_broadcasts, "all"),
        (ATTENTION, attention_transfer_loss, "all"),
        (ATTENTION, attention_transfer_loss, "nothing"),
        (SIMILARITY, similarity_preserving_loss, "space"),
        (RKD, rkd_distance_loss, "space"),
        (RKD, rkd_distance_loss, "all"),
    ],
)
def test_a_wrong_alignment_is_caught(case, loss, wrong):
    def renamed(*args, **kwargs):
        return loss(*args, **kwargs)

    distils(paper="A, 2020, arXiv 2001.00001", kind="feature", aligns=wrong)(renamed)
    with pytest.raises(AssertionError):
        kit.check_alignment(replace(case, loss=renamed))


def documented(student_logits, teacher_logits, labels, *, temperature=4.0):
    """A loss (A, 2020, arXiv 2001.00001).

    Raises ValueError where shapes differ.
    """


def hyperparameter_by_position(student_logits, teacher_logits, labels, temperature=4.0):
    """A loss (A, 2020, arXiv 2001.00001).

    Raises ValueError where shapes differ.
    """


def without_a_paper(student_logits, teacher_logits, labels, *, temperature=4.0):
    """A loss.

    Raises ValueError where shapes differ.
    """


def without_its_refusals(student_logits, teacher_logits, labels, *, temperature=4.0):
    """A loss (A, 2020, arXiv 2001.00001)."""


@pytest.mark.parametrize(
    ("loss", "paper", "needs", "honest"),
    [
        (documented, "A, 2020, arXiv 2001.00001", ("labels",), True),
        (documented, "A, 2021, arXiv 2101.00001", ("labels",), False),
        (documented, "A, 2020, arXiv 2001.00001", (), False),
        (hyperparameter_by_position, "A, 2020, arXiv 2001.00001", ("labels",), False),
        (without_a_paper, "A, 2020, arXiv 2001.00001", ("labels",), False),
        (without_its_refusals, "A, 2020, arXiv 2001.00001", ("labels",), False),
    ],
)
def test_a_dishonest_signature_is_caught(loss, paper, needs, honest):
    case = replace(DKD, loss=distils(paper=paper, kind="response", needs=needs)(loss))
    if honest:
        return kit.check_signature(case)
    with pytest.raises(AssertionError):
        kit.check_signature(case)


def test_a_golden_row_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match=re.escape("expected one row for ('kd', 'T=5', 's,t'), got 0")):
        golden_value("kd", "T=5", "s,t")
