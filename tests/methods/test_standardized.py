"""Logit standardisation as an option of the losses on logits: what it computes, and that no promise is lost by it."""

from dataclasses import replace

import pytest
import torch

from actors.losses.probabilities import standardized
from tests.methods import kit
from tests.methods.cases import response
from tests.methods.golden import golden_input

CASES = tuple(case for case in response.CASES if case.has_option("standardize"))


def of_cases():
    return pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def with_option(case):
    row = case.golden[0]
    return replace(case, golden=(replace(row, kwargs={**row.kwargs, "standardize": True}),), steep_at=("zero student",))


def halves(case):
    kit.check_half_precision(case, torch.float16)
    kit.check_half_precision(case, torch.bfloat16)


def reduction(case):
    if case.has_option("reduction"):
        kit.check_reduction(case)


def test_every_distilling_loss_on_logits_has_the_option():
    assert [case.name for case in CASES] == [case.name for case in response.CASES if case.metadata]


def test_z_scores_by_hand():
    """-1, 0, 1 around 3 in steps of 2; the unbiased standard deviation of 1, 3, 5 is 2."""
    logits = torch.tensor([[1.0, 3.0, 5.0], [7.0, 7.0, 7.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(standardized(logits), expected, rtol=1e-6, atol=0)
    assert standardized(logits)[0, 2].item() == 2 / (2 + 1e-7)


@of_cases()
def test_the_option_is_the_loss_of_z_scores(case):
    inputs = case.inputs()
    scores = inputs | {k: standardized(v) for k, v in inputs.items() if v.is_floating_point()}
    torch.testing.assert_close(case(inputs, standardize=True), case(scores), rtol=1e-12, atol=0)
    assert abs(case(inputs, standardize=True) - case(inputs)) > 1e-3


@of_cases()
def test_the_size_of_the_logits_does_not_count(case):
    inputs = case.inputs()
    other = inputs | {"student_logits": 5 * inputs["student_logits"] - 2}
    torch.testing.assert_close(case(other, standardize=True), case(inputs, standardize=True), rtol=1e-6, atol=0)


@of_cases()
@pytest.mark.parametrize(
    "check",
    [
        kit.check_zero_at_equality,
        kit.check_gradient,
        kit.check_extremes,
        kit.check_autocast,
        kit.check_permutation,
        kit.check_purity,
        halves,
        reduction,
    ],
)
def test_every_promise_holds_with_it(check, case):
    check(with_option(case))


@of_cases()
def test_one_class_has_no_spread(case):
    inputs = {k: v[:, :1] if v.dim() == 2 else torch.zeros_like(v) for k, v in case.inputs().items()}
    text = (
        "student_logits: expected two" if "labels" in inputs else "standardize: expected logits of two classes at least"
    )
    with pytest.raises(ValueError, match=text):
        case(inputs, standardize=True)


def test_a_head_of_zeros_gets_a_finite_gradient():
    zeros = torch.zeros(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(CASES[0].loss(zeros, golden_input("t").float(), standardize=True), zeros)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 1e5
