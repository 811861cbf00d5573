"""Three means, three values."""

import pytest
import torch
from torch.testing import assert_close

from actors.ensemble import mean_logits, mean_losses, mean_probabilities, shares_of
from actors.losses import kd_loss
from tests.methods.golden import golden_input, golden_value

RULES = {
    "mean of losses": mean_losses,
    "mean of logits": mean_logits,
    "mean of probabilities": mean_probabilities,
}
HALVES = torch.tensor([0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("name", RULES)
def test_golden_values(name):
    student = golden_input("s")
    found = RULES[name](
        [golden_input("t"), golden_input("t2")],
        lambda teacher, target: kd_loss(student, target, temperature=4.0),
        shares=HALVES,
        temperature=4.0,
    )
    assert found.item() == pytest.approx(golden_value(f"multi-teacher: {name}", "kd T=4", "s,[t,t2]"), abs=1e-9)


def target_of(rule, targets, shares, temperature=1.0):
    """The one target that a joint rule gives to its loss."""
    seen = []
    rule(
        targets,
        lambda k, z: seen.append((k, z)) or torch.zeros(()),
        shares=torch.tensor(shares),
        temperature=temperature,
    )
    ((teacher, target),) = seen
    assert teacher == 0
    return target


def test_the_mean_of_losses_is_weighted_and_asks_each_teacher_about_its_own_target():
    targets = [torch.tensor([1.0]), torch.tensor([10.0]), torch.tensor([100.0])]
    found = mean_losses(targets, lambda k, target: (k + 1) * target.sum(), shares=torch.tensor([0.5, 0.3, 0.2]))
    assert found.item() == pytest.approx(0.5 * 1 + 0.3 * 20 + 0.2 * 300)


def test_the_mean_of_logits_is_weighted():
    target = target_of(mean_logits, [torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 8.0]])], [0.75, 0.25])
    assert target.tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_of_probabilities_is_that_of_the_softened_ones(temperature):
    first, second = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.5, -1.0, 4.0]])
    target = target_of(mean_probabilities, [first, second], [0.75, 0.25], temperature)
    softened = [(z / temperature).softmax(dim=1) for z in (first, second)]
    assert_close((target / temperature).softmax(dim=1), 0.75 * softened[0] + 0.25 * softened[1])


def test_of_one_teacher_all_rules_say_the_same():
    student, teacher = golden_input("s"), golden_input("t")
    values = [
        rule(
            [teacher], lambda k, z: kd_loss(student, z, temperature=4.0), shares=HALVES[:1] * 2, temperature=4.0
        ).item()
        for rule in RULES.values()
    ]
    assert values == pytest.approx([kd_loss(student, teacher, temperature=4.0).item()] * 3, abs=1e-12)


@pytest.mark.parametrize("rule", RULES.values())
def test_a_teacher_without_a_share_does_not_count(rule):
    student, teacher, other = golden_input("s"), golden_input("t"), golden_input("t2")
    shares = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = rule([teacher, other], lambda k, z: kd_loss(student, z, temperature=4.0), shares=shares, temperature=4.0)
    assert found.item() == pytest.approx(kd_loss(student, teacher, temperature=4.0).item(), abs=1e-12)


def test_teachers_that_are_very_sure_give_no_infinity():
    first, second = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    student = torch.zeros(1, 3, requires_grad=True)
    for rule in RULES.values():
        value = rule(
            [first, second], lambda k, z: kd_loss(student, z), shares=torch.tensor([0.5, 0.5]), temperature=4.0
        )
        (gradient,) = torch.autograd.grad(value, student)
        assert bool(value.isfinite() and gradient.isfinite().all())


def test_shares_add_up_to_1():
    assert shares_of(("a", "b", "c"), None, "w").tolist() == [1 / 3] * 3
    assert shares_of(("a", "b"), {"a": 3}, "w").tolist() == [0.75, 0.25], "who is not named weighs 1"
    assert shares_of(("b", "a"), {"a": 3, "b": 0}, "w").tolist() == [0, 1]
    assert shares_of((), None, "w").tolist() == []


@pytest.mark.parametrize("weights", [{"a": -1}, {"a": 0, "b": 0}, {"a": float("nan")}, {"a": float("inf")}])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"^losses\.x\.weights: expected weights >= 0 with a positive sum, got \["):
        shares_of(("a", "b"), weights, "losses.x.weights")


@pytest.mark.parametrize("weights", [[1, 2], {"a": "much"}, 3, [], {"a": None}])
def test_weights_that_are_no_mapping_of_numbers_are_refused(weights):
    with pytest.raises(ValueError, match=r"^losses\.x\.weights: expected a number for each teacher's name, got "):
        shares_of(("a", "b"), weights, "losses.x.weights")
