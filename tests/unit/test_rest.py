"""What becomes of the others where the largest logits are heard: spread, one bucket, or ignored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.criterion import Criterion
from actors.knowledge import Knowledge, Position
from actors.losses import kd_loss
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, LossSpec, TeacherSpec
from actors.term import Outputs, Targets
from actors.top_k import facing, rebuilt, top_k, top_k_reduction
from orchestrator.checking import check
from orchestrator.config import ExperimentConfig
from tests.unit.digits_setup import HARD, SOFT, model, save_teacher, student, trainer
from tests.unit.test_checking import DIGITS, refusal

FLOAT64 = torch.float64
MAPPED = (9, 0, 4, 2, 7)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def soft(rest, k=3, rule="mean_losses", teachers=("a",), kwargs=None, **more) -> LossSpec:
    spec = LossSpec("soft", SOFT.loss, "logits", teachers=teachers, top_k=k, rest=rest, **more)
    return replace(spec, ensemble=ImportSpec(f"actors.ensemble:{rule}", kwargs or {}))


def teacher(name="a", classes=10, class_map=None) -> TeacherSpec:
    return TeacherSpec(name, model(), "", {"logits": (classes,)}, class_map)


def drawn(rows=6, classes=10, size=3.0):
    return size * torch.randn(rows, classes, dtype=FLOAT64)


def parts(logits, k=3, **more) -> Knowledge:
    return Knowledge("a", None, top_k_reduction(k)({"logits": logits}), **more)


def taught(spec, logits, said, labels=None, teachers=None):
    """The loss of a criterion of this one loss. `said`: knowledge by teacher."""
    labels = torch.zeros(len(logits), dtype=torch.int64) if labels is None else labels
    terms = Criterion([spec], {"logits": (10,)}, teachers or [teacher(name) for name in said])
    total, *_ = terms(Outputs(logits), Targets(labels, torch.arange(len(logits)), said))
    return total


def by_hand(own, said, rest, k, temperature=4.0):
    """KL times T squared of each row in NumPy, class by class."""
    values = []
    for student_row, teacher_row in zip(own.detach().numpy(), said.numpy(), strict=True):
        named = list(np.argsort(-teacher_row)[:k])
        left = [c for c in range(len(teacher_row)) if c not in named]
        q, p = ([row[c] for c in named] for row in (student_row, teacher_row))
        if rest == "bucket":
            q, p = ([*one, np.log(np.sum(np.exp(row[left])))] for one, row in ((q, student_row), (p, teacher_row)))
        q, p = (np.exp(np.array(one) / temperature) for one in (q, p))
        q, p = q / q.sum(), p / p.sum()
        values.append(temperature**2 * np.sum(p * np.log(p / q)))
    return torch.tensor(np.array(values))


@pytest.mark.parametrize(("rest", "expected"), [("bucket", 0.5 * np.log(2)), ("ignore", 0.0)])
def test_a_case_on_paper(rest, expected):
    """The teacher says 1/2, 1/4 and a rest of 1/4; the student 1/4, 1/8, and a rest of 5/8 at T = 1."""
    said = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=FLOAT64).log()
    own = torch.tensor([[0.25, 0.125, 0.375, 0.25]], dtype=FLOAT64).log()
    values = kd_loss(*facing(own, *top_k(said, k=2), bucket=rest == "bucket"), temperature=1.0)
    bucket = 0.5 * np.log(2) + 0.25 * np.log(2) + 0.25 * np.log(0.25 / 0.625)
    assert float(values) == pytest.approx(bucket if rest == "bucket" else expected, abs=1e-12)


@pytest.mark.parametrize("reduce", [None, "teacher", "student"])
@pytest.mark.parametrize("k", [2, 3, 9])
@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_values_by_hand_from_parts_and_from_all_logits(rest, k, reduce):
    own, said = drawn(), drawn()
    expected = by_hand(own, said, rest, k).mean()
    for sent in (parts(said, k), Knowledge("a", said)):
        torch.testing.assert_close(taught(soft(rest, k, reduce=reduce), own, {"a": sent}), expected)


def test_what_is_asked_is_the_same_for_all_three():
    asked = {
        Criterion([soft(rest)], {"logits": (10,)}, [teacher()]).request(torch.zeros(2), Position())
        for rest in ("spread", "bucket", "ignore")
    }
    ((request,),) = asked
    assert request.reductions == (top_k_reduction(3),) and not request.logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rest", ["spread", "bucket", "ignore"])
def test_a_student_that_says_the_same_has_no_loss_and_no_gradient(rest, dtype):
    """Under `spread` the same as what it hears, in which the others are all alike."""
    said = drawn(40).to(dtype)
    said = rebuilt(*top_k(said, k=3), num_classes=10) if rest == "spread" else said
    own = said.clone().requires_grad_()
    value = taught(soft(rest), own, {"a": parts(said)})
    value.backward()
    assert abs(value.item()) < 1e-5 and own.grad.abs().max() < 1e-6
    moved = (said + drawn(40).to(dtype)).requires_grad_()
    taught(soft(rest), moved, {"a": parts(said)}).backward()
    assert moved.grad.abs().max() > 1e-3


def test_under_spread_a_student_equal_to_its_teacher_is_drawn_away():
    said = drawn(40)
    assert taught(soft("spread"), said, {"a": parts(said)}) > 0.01


@pytest.mark.parametrize("rest", ["spread", "bucket", "ignore"])
def test_the_gradient_reaches_the_student_alone_where_it_is_compared(rest):
    own, said = drawn().requires_grad_(), drawn()
    sent = parts(said)
    taught(soft(rest), own, {"a": sent}).backward()
    named = torch.zeros_like(said, dtype=torch.bool).scatter(1, said.topk(3).indices, True)
    assert own.grad[named].abs().min() > 0 and bool((own.grad[~named] != 0).all()) == (rest != "ignore")
    assert rest != "ignore" or not own.grad[~named].any()
    assert all(part.grad is None and not part.requires_grad for part in sent.features.values())


@pytest.mark.parametrize("bucket", [True, False])
def test_the_gradient_is_right(bucket):
    own, sent = drawn(3, 5).requires_grad_(), top_k(drawn(3, 5), k=2)
    assert torch.autograd.gradcheck(lambda one: kd_loss(*facing(one, *sent, bucket=bucket)), (own,))


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("bucket", [True, False])
def test_extreme_logits_stay_finite(size, bucket):
    own = (size * torch.tensor([[1.0, -1, -1, 0.5], [-1, -1, -1, -1], [-1, 1, 1, 1]])).requires_grad_()
    said = top_k(size * torch.tensor([[1.0, -1, -1, 0.5], [1, -1, -1, -1], [1, 1, 1, 1]]), k=2)
    kd_loss(*facing(own, *said, bucket=bucket)).backward()
    assert bool(torch.isfinite(own.grad).all())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_one_below_all_classes_the_bucket_loses_nothing(temperature):
    own, said = drawn(classes=4), drawn(classes=4)
    torch.testing.assert_close(
        kd_loss(*facing(own, *top_k(said, k=3), bucket=True), temperature=temperature),
        kd_loss(own, said, temperature=temperature),
    )


def test_at_temperature_1_a_bucket_never_costs_more_than_all_classes():
    """The data-processing inequality, also in the other direction; at other temperatures there is none."""
    own, said = drawn(2000), drawn(2000)
    above = 0
    for k in range(1, 10):
        pair = facing(own, *top_k(said, k=k), bucket=True)
        for one, all_classes in ((pair, (own, said)), (pair[::-1], (said, own))):
            gap = kd_loss(*one, temperature=1.0, reduction="none") - kd_loss(
                *all_classes, temperature=1.0, reduction="none"
            )
            assert gap.max() < 1e-9
        hot = kd_loss(*pair, temperature=8.0, reduction="none") - kd_loss(own, said, temperature=8.0, reduction="none")
        above += int((hot > 1e-6).sum())
    assert above > 0


@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_class_maps_are_kept(rest):
    """The student's logits are those of the classes that the teacher knows, in order."""
    own, said = drawn(), drawn(classes=5)
    known = [teacher("a", 5, MAPPED)]
    expected = by_hand(own[:, sorted(MAPPED)], said, rest, 2).mean()
    torch.testing.assert_close(taught(soft(rest, 2), own, {"a": parts(said, 2)}, teachers=known), expected)


def values_of(own, said, rest):
    """Of each teacher of ten classes, by row."""
    return torch.stack([by_hand(own, one, rest, 3) for one in said.values()])


@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_two_teachers_each_at_its_own_classes(rest):
    own, said = drawn(), {"a": drawn(), "b": drawn()}
    spec = soft(rest, teachers=("a", "b"), kwargs={"weights": {"a": 3}})
    expected = (torch.tensor([0.75, 0.25], dtype=FLOAT64) @ values_of(own, said, rest)).mean()
    torch.testing.assert_close(taught(spec, own, {name: parts(one) for name, one in said.items()}), expected)


@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_a_sample_is_taught_by_its_specialists_at_their_classes(rest):
    """Teacher a was asked about rows 0, 2 and 4, and teacher b about the others."""
    own, said, labels = drawn(), {"a": drawn(), "b": drawn()}, torch.tensor([0, 1, 0, 1, 0, 1])
    spec = soft(rest, rule="label_routing", teachers=("a", "b"), kwargs={"routes": {"a": [0], "b": [1]}})
    sent = {name: parts(one[k::2], rows=tuple(range(k, 6, 2))) for k, (name, one) in enumerate(said.items())}
    by_teacher = values_of(own, said, rest)
    expected = torch.where(labels == 0, by_teacher[0], by_teacher[1]).mean()
    torch.testing.assert_close(taught(spec, own, sent, labels), expected)


@pytest.mark.parametrize("rule", ["confidence", "entropy", "learned"])
def test_rules_weigh_by_all_classes_whatever_becomes_of_the_others(rule):
    own, said, labels = drawn(), {"a": drawn(), "b": drawn()}, torch.arange(6)
    sent = {name: parts(one) for name, one in said.items()}
    targets, pair = Targets(labels, torch.arange(6), sent), [teacher("a"), teacher("b")]
    found = []
    for rest in ("spread", "bucket", "ignore"):
        terms = Criterion([soft(rest, rule=rule, teachers=("a", "b"))], {"logits": (10,)}, pair)
        total, _, weights = terms(Outputs(own), targets)
        found.append(weights["soft"])
        if rest != "spread" and rule == "learned":
            torch.testing.assert_close(total, values_of(own, said, rest).mean())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_loss_on_all_logits_may_stand_beside_it():
    own, said = drawn(), drawn()
    losses = [replace(soft(rest), name=rest) for rest in ("spread", "bucket", "ignore")]
    terms = Criterion([*losses, replace(soft("spread"), name="all", top_k=None)], {"logits": (10,)}, [teacher()])
    labels = torch.zeros(6, dtype=torch.int64)
    _, values, _ = terms(Outputs(own), Targets(labels, torch.arange(6), {"a": Knowledge("a", said)}))
    for rest in ("bucket", "ignore"):
        torch.testing.assert_close(values[rest], by_hand(own, said, rest, 3).mean())
    assert torch.equal(values["spread"], kd_loss(own, rebuilt(*top_k(said, k=3), num_classes=10)))
    assert torch.equal(values["all"], kd_loss(own, said))


@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_where_it_is_reduced_changes_no_bit_and_three_ways_are_three_students(tmp_path, rest):
    wide = save_teacher(tmp_path)
    exported = {}
    for name, way, place in (("at", rest, "teacher"), ("here", rest, "student"), ("spread", "spread", None)):
        spec = student([wide], [HARD, replace(SOFT, top_k=3, rest=way, reduce=place)])
        training = trainer(spec, tmp_path / name, LocalTeachers.load([wide]))
        training.run()
        exported[name] = training.exported()
    assert exported["at"] == exported["here"] != exported["spread"]


def test_left_out_it_is_spread():
    def loss_of(*overrides):
        return ExperimentConfig.from_yaml(DIGITS, overrides).losses["soft"].spec("soft", ["wide"])

    assert loss_of("losses.soft.top_k=3") == loss_of("losses.soft.top_k=3", "losses.soft.rest=spread")
    assert loss_of("losses.soft.top_k=3", "losses.soft.rest=null").rest == "spread"
    assert loss_of("losses.soft.top_k=3", "losses.soft.rest=bucket").rest == "bucket"


@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_check_lets_them_through(rest):
    losses = (f"losses.soft.rest={rest}", "losses.soft.top_k=2")
    for rule in ("mean_losses", "random", "learned", "confidence", "entropy"):
        check(ExperimentConfig.from_yaml(DIGITS, [*losses, f"losses.soft.ensemble={rule}"]))


@pytest.mark.parametrize(
    ("override", "why"),
    [
        (
            "losses.soft.ensemble=mean_logits",
            "actors.ensemble:mean_logits makes one target of all teachers; use rest: spread, or mean_losses",
        ),
        (
            "losses.soft.ensemble=mean_probabilities",
            "actors.ensemble:mean_probabilities makes one target of all teachers; use rest: spread, or mean_losses",
        ),
        (
            "losses.soft.loss=actors.losses:dkd_loss",
            "the labels that actors.losses:dkd_loss takes are numbers among all classes; use rest: spread, or a loss "
            "without labels",
        ),
        (
            "losses.soft.loss=actors.losses:dist_loss",
            "actors.losses:dist_loss may compare rows class by class (it has no `reduction`); use rest: spread, or a "
            "loss with `reduction`",
        ),
    ],
)
@pytest.mark.parametrize("rest", ["bucket", "ignore"])
def test_what_needs_the_same_classes_in_every_row_is_refused(rest, override, why):
    said = refusal("losses.soft.top_k=2", "losses.soft.ensemble=mean_losses", f"losses.soft.rest={rest}", override)
    assert said == f"losses.soft.rest: {rest} compares each row at its teacher's own 2 largest classes, and {why}"
