"""Ensemble rules: three means that are three things, weights per sample, and what each asks for."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import actors.ensemble as ensemble
from actors.ensemble import (
    confidence,
    entropy,
    label_routing,
    learned,
    mean_logits,
    mean_losses,
    mean_probabilities,
    own_labels,
    random,
    rule_metadata,
    shares_of,
)
from actors.losses import kd_loss
from actors.specs import ENSEMBLE_RULES, RULE_ARGUMENTS
from tests.methods.golden import golden_input, golden_value

HALVES = torch.tensor([0.5, 0.5], dtype=torch.float64)
ALL = list(range(6))


def kd(target):
    return kd_loss(golden_input("s"), target, temperature=4.0).item()


def test_every_rule_says_what_it_is_and_asks_for_known_things_alone():
    for name in ENSEMBLE_RULES:
        metadata = rule_metadata(getattr(ensemble, name))
        assert metadata is not None and metadata.paper
        assert set(metadata.arguments) <= {*RULE_ARGUMENTS, "routes"}
    assert rule_metadata(len) is None
    assert rule_metadata(confidence).needs == ("logits", "labels") and rule_metadata(confidence).per_sample


@pytest.mark.parametrize("rule", [mean_logits, mean_probabilities])
def test_golden_values_of_one_target(rule):
    given = {} if rule is mean_logits else {"temperature": 4.0}
    target = rule([golden_input("t"), golden_input("t2")], shares=HALVES, **given)
    name = f"multi-teacher: mean of {rule.__name__.removeprefix('mean_')}"
    assert kd(target) == pytest.approx(golden_value(name, "kd T=4", "s,[t,t2]"), rel=1e-6)


def test_golden_value_of_the_mean_of_losses():
    losses = torch.tensor([kd(golden_input("t")), kd(golden_input("t2"))], dtype=torch.float64)
    found = mean_losses(shares=HALVES) @ losses
    expected = golden_value("multi-teacher: mean of losses", "kd T=4", "s,[t,t2]")
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_golden_weights_of_confidence():
    weights = confidence(logits=[golden_input("t"), golden_input("t2")], labels=golden_input("y"), classes=[ALL, ALL])
    expected = golden_value("multi-teacher: CA-MKD weights, 2 teachers x 4 samples", GOLDEN_CA, "[t,t2],y")
    assert weights.flatten().tolist() == pytest.approx(expected, rel=1e-6)


GOLDEN_CA = "w_k = 1 - softmax_k(CE(t_k,y)), K-1 = 1"


def test_the_mean_of_logits_is_weighted():
    target = mean_logits([torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 8.0]])], shares=torch.tensor([0.75, 0.25]))
    assert target.tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_of_probabilities_is_that_of_the_softened_ones(temperature):
    first, second = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.5, -1.0, 4.0]])
    target = mean_probabilities([first, second], shares=torch.tensor([0.75, 0.25]), temperature=temperature)
    softened = [(z / temperature).softmax(dim=1) for z in (first, second)]
    assert_close((target / temperature).softmax(dim=1), 0.75 * softened[0] + 0.25 * softened[1])


@pytest.mark.parametrize("rule", [mean_logits, mean_probabilities])
def test_a_teacher_without_a_share_does_not_count(rule):
    teacher, other = golden_input("t"), golden_input("t2")
    target = rule([teacher, other], shares=torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert kd(target) == pytest.approx(kd(teacher), abs=1e-12)


def test_teachers_that_are_very_sure_give_no_infinity():
    sure = [torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])]
    classes = [[0, 1, 2]] * 2
    for found in (
        mean_probabilities(sure, shares=HALVES),
        confidence(logits=sure, labels=torch.tensor([2]), classes=classes),
        entropy(logits=sure),
        learned(shares=HALVES)(logits=sure, labels=torch.tensor([2]), classes=classes).objective,
    ):
        assert bool(found.isfinite().all())


def test_of_one_teacher_every_rule_gives_all_to_it():
    logits, labels = [golden_input("t")], torch.tensor([0, 2, -1, 5])
    one = torch.ones(1, dtype=torch.float64)
    assert confidence(logits=logits, labels=labels, classes=[ALL]).tolist() == [[1, 1, 1, 1]]
    assert entropy(logits=logits).tolist() == [[1, 1, 1, 1]]
    assert random(shares=one, dice=np.random.default_rng(0)).tolist() == [1]
    assert label_routing(shares=one, labels=labels, teachers=["a"], classes=[ALL]).tolist() == [[1, 1, 1, 1]]
    assert learned(shares=one)(logits=logits, labels=labels, classes=[ALL]).weights.tolist() == [1]


def test_confidence_with_three_teachers_by_hand():
    # Cross entropies at the label: log 2, log 4, log 4; softmax of these: 2, 4, 4 tenths.
    probabilities = ([0.5, 0.5], [0.25, 0.75], [0.25, 0.75])
    logits = [torch.tensor([p], dtype=torch.float64).log() for p in probabilities]
    weights = confidence(logits=logits, labels=torch.tensor([0]), classes=[[0, 1]] * 3)
    assert weights[:, 0].tolist() == pytest.approx([0.8 / 2, 0.6 / 2, 0.6 / 2])


def test_confidence_where_not_all_know_the_class():
    logits = [golden_input("t")[:, :3], golden_input("t2")[:, :2], golden_input("t")[:, 3:5]]
    classes = [[0, 1, 2], [2, 3], [7, 8]]
    weights = confidence(logits=logits, labels=torch.tensor([0, 2, 9, -1]), classes=classes)
    assert weights[:, 0].tolist() == [1, 0, 0], "one knows it"
    assert weights[2, 1] == 0 and weights[:2, 1].sum() == pytest.approx(1) and (weights[:2, 1] > 0).all(), "two do"
    assert weights[:, 2].tolist() == weights[:, 3].tolist() == pytest.approx([1 / 3] * 3), "nobody, and no label"


def test_entropy_is_relative_to_the_number_of_classes():
    weights = entropy(logits=[torch.zeros(1, 8), torch.zeros(1, 2), torch.tensor([[100.0, 0.0]])])
    assert weights[:, 0].tolist() == pytest.approx([0.25, 0.25, 0.5], abs=1e-6)
    assert entropy(logits=[torch.tensor([[100.0, 0.0]])] * 2)[:, 0].tolist() == [0.5, 0.5], "all are sure"
    one_class = entropy(logits=[torch.zeros(1, 1), torch.zeros(1, 2), torch.zeros(1, 2)])
    assert one_class[:, 0].tolist() == pytest.approx([0.5, 0.25, 0.25]), "of one class anybody is sure"
    nearly = [torch.tensor([[gap, 0.0]], dtype=torch.float64) for gap in (12.0, 13.0)]
    first, second = (-(p * p.log()).sum().item() for p in (one.softmax(dim=1) for one in nearly))
    assert entropy(logits=nearly)[:, 0].tolist() == pytest.approx([second / (first + second), first / (first + second)])


def test_a_drawn_teacher_follows_the_shares():
    dice = np.random.default_rng(0)
    counts = sum(random(shares=torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64), dice=dice) for _ in range(1000))
    assert counts.sum() == 1000 and counts[2] == 0 and 650 < counts[0] < 750


def test_routes_are_the_class_maps_where_none_are_given():
    given = {"shares": torch.tensor([0.25, 0.75], dtype=torch.float64), "teachers": ["a", "b"]}
    labels = torch.tensor([0, 1, 2, 5, -1])
    weights = label_routing(**given, labels=labels, classes=[[0, 1], [1, 2]])
    assert weights.tolist() == [[1, 0.25, 0, 0.25, 0.25], [0, 0.75, 1, 0.75, 0.75]]


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        (None, "routes: all teachers know the same classes; say who teaches which"),
        ({"a": [0], "c": [1]}, "routes: 'c' is none of the teachers a, b"),
        ({"a": [0], "b": [1, 6]}, "routes: 'b' does not know class 6; it knows"),
    ],
)
def test_impossible_routes_are_refused(routes, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        label_routing(shares=HALVES, labels=torch.tensor([0]), teachers=["a", "b"], classes=[ALL, ALL], routes=routes)


def test_learned_weights_follow_the_likelihood_of_the_mixture():
    rule = learned(shares=torch.tensor([0.25, 0.75], dtype=torch.float64))
    logits = [torch.tensor([[0.9, 0.1]] * 3).log(), torch.tensor([[0.2, 0.8]] * 3).log()]
    found = rule(logits=logits, labels=torch.tensor([0, -1, 9]), classes=[[0, 1], [0, 1]])
    assert found.weights.tolist() == pytest.approx([0.25, 0.75]) and not found.weights.requires_grad
    assert found.objective.tolist() == pytest.approx([-np.log(0.25 * 0.9 + 0.75 * 0.2), 0, 0])


def test_of_those_who_know_a_class_learned_weights_compare_these_alone():
    rule = learned(shares=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    logits = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.4, 0.6]]).log()]
    found = rule(logits=logits, labels=torch.tensor([0]), classes=[[0, 1], [2, 3], [0, 5]])
    assert found.objective.tolist() == pytest.approx([-np.log((0.2 * 0.9 + 0.5 * 0.4) / 0.7)])


def test_own_labels_are_columns_of_a_teacher():
    assert own_labels(torch.tensor([5, 0, 8, 3, -1, 99]), [0, 5, 8]).tolist() == [1, 0, 2, -1, -1, -1]


def test_shares_add_up_to_1():
    assert shares_of(("a", "b", "c"), None, "w").tolist() == [1 / 3] * 3
    assert shares_of(("a", "b"), {"a": 3}, "w").tolist() == [0.75, 0.25], "who is not named weighs 1"
    assert shares_of((), None, "w").tolist() == []


@pytest.mark.parametrize("weights", [{"a": -1}, {"a": 0}, {"a": float("nan")}, {"a": float("inf")}])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"^losses\.x\.weights: expected weights above 0, got \["):
        shares_of(("a", "b"), weights, "losses.x.weights")


@pytest.mark.parametrize("weights", [[1, 2], {"a": "much"}, 3, [], {"a": None}])
def test_weights_that_are_no_mapping_of_numbers_are_refused(weights):
    with pytest.raises(ValueError, match=r"^losses\.x\.weights: expected a number for each teacher's name, got "):
        shares_of(("a", "b"), weights, "losses.x.weights")
