"""The weighted sum of losses: what it asks for, whom it masks, what it trains."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from actors.criterion import Criterion
from actors.distillation import Distillation
from actors.ensemble import combines
from actors.features import TappedModel
from actors.knowledge import Knowledge, Position, TeacherRequest
from actors.specs import ImportSpec, LossSpec, TapPair, TeacherSpec, WeightSpec
from actors.term import Outputs, Targets
from tests.methods.golden import golden_input, golden_value
from tests.unit.digits_setup import HARD, model

MSE = ImportSpec("torch.nn.functional:mse_loss")
KD = ImportSpec("actors.losses:kd_loss", {"temperature": 4.0})


def teacher(name, classes=10, class_map=None, **shapes) -> TeacherSpec:
    return TeacherSpec(name, model(), "", {"logits": (classes,), **shapes}, class_map)


def loss(name="soft", target=KD, on="logits", teachers=("a",), weight=1.0, **more) -> LossSpec:
    spec = weight if isinstance(weight, WeightSpec) else WeightSpec(weight, weight)
    return LossSpec(name, target, on, spec, teachers, **more)


def criterion(*losses, teachers=(), **student) -> Criterion:
    return Criterion(losses, {"logits": (10,), **student}, teachers)


def targets(labels, epoch=0, **logits) -> Targets:
    labels = torch.as_tensor(labels)
    known = {n: Knowledge(n, z) for n, z in logits.items()}
    return Targets(labels, torch.arange(len(labels)), known, Position(epoch))


def asked(terms, epoch=0):
    return terms.request(torch.zeros(2, dtype=torch.int64), Position(epoch))


def at_labels(student, teacher, *, labels, reduction):
    """The gap at each row's own class. Plain enough to compute by hand."""
    assert reduction == "none"
    rows = torch.arange(len(labels))
    return student[rows, labels] - teacher[rows, labels]


def row_gap(student, teacher, *, reduction):
    assert reduction == "none"
    return (teacher - student).mean(dim=1)


def row_ids(student, teacher, *, ids, reduction):
    return ids + 0 * student.sum(dim=1)


def gap_at(student, teacher, *, temperature):
    return (teacher - student).mean()


def every_gap(student, teacher, *, labels, reduction):
    return student - teacher


def at_ids(student, teacher, *, ids):
    return (ids * (student - teacher).sum(dim=1)).sum()


def gram_gap(student, teacher):
    """Relates the rows of a batch, so it has no reduction."""
    return (student @ student.T - teacher @ teacher.T).square().mean()


@combines(paper="mine", gives="target")
def last_teacher(targets, *, temperature, bonus):
    """A rule of the user's: what the last teacher says, and more."""
    return targets[-1] + bonus + temperature


@combines(paper="mine", gives="weights")
def twice_the_first(*, shares, teachers):
    """A rule of the user's that is decided before anybody is asked."""
    return torch.tensor([2.0 * (name == teachers[0]) for name in teachers])


HERE = "tests.unit.test_criterion"


def test_one_request_per_teacher_holds_all_that_its_losses_need():
    taps = {"student": (16,), "middle": (8,), "late": (4,)}
    hint = ImportSpec("actors.losses:hint_loss")
    terms = criterion(
        HARD,
        loss("soft", teachers=("a", "b")),
        loss("early", hint, TapPair("student", "middle"), ("a",)),
        loss("again", MSE, TapPair("student", "middle"), ("a",)),
        loss("late", hint, TapPair("student", "late"), ("a", "c")),
        teachers=[teacher("c", **taps), teacher("a", **taps), teacher("b")],
        **taps,
    )
    assert asked(terms) == (
        TeacherRequest("a", True, ("middle", "late")),
        TeacherRequest("b", True, ()),
        TeacherRequest("c", False, ("late",)),
    )
    assert terms.student_taps(["hard", "early", "late"]) == ("student",) and terms.student_taps(["soft"]) == ()


def test_a_weight_of_zero_asks_for_nothing_and_does_not_count():
    falling = loss("falling", weight=WeightSpec(1, 0, 2))
    rising = loss("rising", MSE, TapPair("tap", "tap"), ("b",), weight=WeightSpec(0, 1, 2))
    terms = criterion(HARD, falling, rising, teachers=[teacher("a"), teacher("b", tap=(3,))], tap=(3,))
    assert [list(terms.active(epoch)) for epoch in range(3)] == [
        ["hard", "falling"],
        ["hard", "falling", "rising"],
        ["hard", "rising"],
    ]
    assert [[one.teacher for one in asked(terms, epoch)] for epoch in range(4)] == [["a"], ["a", "b"], ["b"], ["b"]]
    assert asked(criterion(HARD)) == ()
    _, values, _ = terms(Outputs(torch.zeros(2, 10)), targets([1, 2], a=torch.zeros(2, 10)))
    assert list(values) == ["hard", "falling"]


def test_a_ramp_goes_in_a_straight_line_and_stays():
    ramp = WeightSpec(1, 3, 4)
    assert [ramp.at(epoch) for epoch in (0, 1, 2, 3, 4, 50)] == [1, 1.5, 2, 2.5, 3, 3]
    assert WeightSpec(0.7, 0.7).at(0) == 0.7


def test_the_total_is_weighted_and_each_term_is_reported_bare():
    student, known = torch.zeros(2, 10, requires_grad=True), torch.ones(2, 10)
    terms = criterion(
        loss("hard", ImportSpec("torch.nn.functional:cross_entropy"), "labels", (), 0.5),
        loss("soft", MSE, weight=WeightSpec(0, 4, 2)),
        teachers=[teacher("a")],
    )
    total, values, _ = terms(Outputs(student), targets([3, 4], 1, a=known))
    assert values["hard"].item() == pytest.approx(math.log(10)) and values["soft"].item() == 1
    assert total.item() == pytest.approx(0.5 * math.log(10) + 2 * 1)
    assert total.requires_grad and not values["soft"].requires_grad


@pytest.mark.parametrize("rule", ["losses", "logits", "probabilities"])
def test_golden_values_of_several_teachers(rule):
    soft = loss(teachers=("a", "b"), ensemble=ImportSpec(f"actors.ensemble:mean_{rule}"))
    terms = criterion(soft, teachers=[teacher("b", 6), teacher("a", 6)])
    known = targets([0] * 4, a=golden_input("t"), b=golden_input("t2"))
    total, *_ = terms(Outputs(golden_input("s")), known)
    assert total.item() == pytest.approx(golden_value(f"multi-teacher: mean of {rule}", "kd T=4", "s,[t,t2]"), abs=1e-9)


def test_shares_of_the_teachers_come_from_the_config():
    weighted = ImportSpec("actors.ensemble:mean_losses", {"weights": {"b": 3}})
    terms = criterion(loss(target=MSE, teachers=("a", "b"), ensemble=weighted), teachers=[teacher("a"), teacher("b")])
    total, *_ = terms(Outputs(torch.zeros(2, 10)), targets([0, 0], a=torch.ones(2, 10), b=torch.full((2, 10), 2.0)))
    assert total.item() == pytest.approx(0.25 * 1 + 0.75 * 4)


def test_a_rule_of_the_users_gets_its_kwargs_and_the_losses_temperature():
    rule = ImportSpec(f"{HERE}:last_teacher", {"bonus": 100})
    terms = criterion(loss(target=MSE, teachers=("a", "b"), ensemble=rule), teachers=[teacher("a"), teacher("b")])
    known = targets([0, 0], a=torch.ones(2, 10), b=torch.full((2, 10), 2.0))
    assert terms(Outputs(torch.zeros(2, 10)), known)[0].item() == (2 + 100 + 1) ** 2
    gap = ImportSpec(f"{HERE}:gap_at", {"temperature": 4.0})
    terms = criterion(loss(target=gap, teachers=("a", "b"), ensemble=rule), teachers=[teacher("a"), teacher("b")])
    assert terms(Outputs(torch.zeros(2, 10)), known)[0].item() == 2 + 100 + 4


def test_who_has_no_weight_is_neither_asked_nor_needed():
    rule = ImportSpec(f"{HERE}:twice_the_first")
    terms = criterion(loss(target=MSE, teachers=("a", "b"), ensemble=rule), teachers=[teacher("a"), teacher("b")])
    assert asked(terms) == (TeacherRequest("a"),)
    total, _, weights = terms(Outputs(torch.zeros(2, 10)), targets([0, 0], a=torch.ones(2, 10)))
    assert total.item() == 2 and weights["soft"].tolist() == [2, 0]


def by_rule(name, *losses_teachers, target=KD, on="logits", **kwargs):
    rule = ImportSpec(f"actors.ensemble:{name}", kwargs)
    names = tuple(one.name for one in losses_teachers)
    return criterion(loss(target=target, on=on, teachers=names, ensemble=rule), teachers=losses_teachers, s=(5,))


@pytest.mark.parametrize(("rule", "row"), [("confidence", "CA-MKD"), ("entropy", "EBKD (entropy)")])
def test_golden_values_of_weights_per_sample(rule, row):
    # The published code divides by the number of teachers besides.
    terms = by_rule(rule, teacher("a", 6), teacher("b", 6))
    known = targets([0, 2, 4, 5], a=golden_input("t"), b=golden_input("t2"))
    total, *_ = terms(Outputs(golden_input("s")), known)
    inputs = "s,[t,t2],y" if rule == "confidence" else "s,[t,t2]"
    assert total.item() / 2 == pytest.approx(golden_value(f"multi-teacher: {row}", "kd T=4", inputs), rel=1e-6)


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_a_loss_on_taps_hears_the_logits_that_its_rule_needs(rule):
    hint = ImportSpec("actors.losses:hint_loss")
    terms = by_rule(rule, teacher("a", t=(5,)), teacher("b", t=(5,)), target=hint, on=TapPair("s", "t"))
    assert asked(terms) == (TeacherRequest("a", True, ("t",)), TeacherRequest("b", True, ("t",)))
    sure, unsure = torch.eye(10)[[3, 4]] * 50, torch.zeros(2, 10)
    known = {
        name: Knowledge(name, logits, {"t": torch.full((2, 5), float(size))})
        for name, logits, size in (("a", sure, 1), ("b", unsure, 7))
    }
    outputs = Outputs(torch.zeros(2, 10), {"s": torch.zeros(2, 5)})
    total, _, weights = terms(outputs, Targets(torch.tensor([3, 4]), torch.arange(2), known))
    expected = weights["soft"] @ torch.tensor([1.0, 49.0])
    assert total.item() == pytest.approx(expected.item()) and weights["soft"][0] > 0.85


def test_a_routed_teacher_is_asked_about_its_rows_alone_and_teaches_them_alone():
    routes = {"a": [0, 1], "b": [2]}
    terms = by_rule("label_routing", teacher("a"), teacher("b"), target=ImportSpec(f"{HERE}:row_gap"), routes=routes)
    labels = torch.tensor([2, 0, -1, 1, 9])
    assert terms.request(labels, Position()) == (
        TeacherRequest("a", rows=(1, 2, 3, 4)),
        TeacherRequest("b", rows=(0, 2, 4)),
    )
    known = {
        "a": Knowledge("a", torch.tensor([1.0, 2, 3, 4]).view(4, 1).expand(4, 10), rows=(1, 2, 3, 4)),
        "b": Knowledge("b", torch.tensor([10.0, 20, 40]).view(3, 1).expand(3, 10), rows=(0, 2, 4)),
    }
    student = torch.zeros(5, 10, requires_grad=True)
    total, _, weights = terms(Outputs(student), Targets(labels, torch.arange(5), known))
    # Row 2 has no label and row 4 is nobody's: both teach them, in halves.
    assert total.item() == pytest.approx((10 + 1 + (2 + 20) / 2 + 3 + (4 + 40) / 2) / 5)
    assert weights["soft"].tolist() == pytest.approx([3 / 5, 2 / 5])
    total.backward()
    assert (student.grad.abs().sum(dim=1) > 0).all()


def test_another_loss_may_need_rows_that_are_not_routed():
    routed = ImportSpec("actors.ensemble:label_routing", {"routes": {"a": [0], "b": [1]}})
    gap = ImportSpec(f"{HERE}:row_gap")
    pair = [teacher("a"), teacher("b")]
    terms = criterion(
        loss("routed", gap, teachers=("a", "b"), ensemble=routed), loss("soft", gap, teachers=("a",)), teachers=pair
    )
    labels = torch.tensor([0, 1])
    assert terms.request(labels, Position()) == (TeacherRequest("a"), TeacherRequest("b", rows=(1,)))
    known = {"a": Knowledge("a", torch.ones(2, 10)), "b": Knowledge("b", torch.full((1, 10), 5.0), rows=(1,))}
    _, values, _ = terms(Outputs(torch.zeros(2, 10)), Targets(labels, torch.arange(2), known))
    assert values["routed"].item() == (1 + 5) / 2 and values["soft"].item() == 1


def test_a_routed_loss_gets_the_ids_of_its_rows_and_one_that_has_all_rows_is_asked_about_all():
    routes = {"a": [0, 1], "b": [2]}
    terms = by_rule("label_routing", teacher("a"), teacher("b"), target=ImportSpec(f"{HERE}:row_ids"), routes=routes)
    assert terms.request(torch.tensor([0, 1, 1]), Position()) == (TeacherRequest("a"),)
    labels = torch.tensor([2, 0, 2])
    known = {
        one.teacher: Knowledge(one.teacher, torch.zeros(len(one.rows), 10), rows=one.rows)
        for one in terms.request(labels, Position())
    }
    total, *_ = terms(Outputs(torch.zeros(3, 10)), Targets(labels, torch.tensor([7, 70, 700]), known))
    assert total.item() == pytest.approx((7 + 70 + 700) / 3)


def test_random_hears_one_teacher_a_step_the_same_on_every_worker():
    terms = by_rule("random", teacher("a"), teacher("b"), target=MSE)
    drawn = []
    for step in range(50):
        (request,) = terms.request(torch.zeros(2, dtype=torch.int64), Position(1, step))
        drawn.append(request.teacher)
        known = {request.teacher: Knowledge(request.teacher, torch.ones(2, 10))}
        targets_ = Targets(torch.zeros(2, dtype=torch.int64), torch.arange(2), known, Position(1, step))
        total, _, weights = terms(Outputs(torch.zeros(2, 10)), targets_)
        assert total.item() == 1 and sorted(weights["soft"].tolist()) == [0, 1]
    assert 10 < drawn.count("a") < 40
    assert drawn != [terms.request(torch.zeros(2), Position(2, step))[0].teacher for step in range(50)]
    other = Criterion([terms.terms[0].spec], {"logits": (10,)}, [teacher("a"), teacher("b")], seed=1)
    assert drawn != [other.request(torch.zeros(2), Position(1, step))[0].teacher for step in range(50)]


def test_learned_weights_move_towards_who_is_right_and_only_by_the_labels():
    terms = by_rule("learned", teacher("a"), teacher("b"), target=MSE)
    right, wrong = torch.eye(10)[[3, 4]] * 5, torch.eye(10)[[5, 6]] * 5
    student = torch.zeros(2, 10, requires_grad=True)
    optimizer = torch.optim.SGD(terms.parameters(), lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        known = {"a": Knowledge("a", wrong), "b": Knowledge("b", right)}
        total, values, weights = terms(Outputs(student), Targets(torch.tensor([3, 4]), torch.arange(2), known))
        total.backward()
        optimizer.step()
    assert weights["soft"][1] > 0.9
    assert total.item() == pytest.approx(values["soft"].item()), "its own objective has no value"
    gradients = []
    for times in (1, 2):
        terms.zero_grad()
        twice = {name: Knowledge(name, one.logits.repeat(times, 1)) for name, one in known.items()}
        labels = torch.tensor([3, 4]).repeat(times)
        terms(Outputs(student.repeat(times, 1)), Targets(labels, torch.arange(2 * times), twice))[0].backward()
        gradients.append(terms.terms[0].combination._rule.scores.grad.clone())
    torch.testing.assert_close(*gradients)
    terms.zero_grad()
    terms(Outputs(student), Targets(torch.tensor([-1, -1]), torch.arange(2), known))[0].backward()
    assert terms.terms[0].combination._rule.scores.grad.tolist() == [0, 0], "without labels it learns nothing"


@pytest.mark.parametrize("rule", ["mean_losses", "confidence", "entropy", "random", "label_routing", "learned"])
def test_every_rule_of_weights_takes_masks_and_classes_that_overlap_only_partly(rule):
    pair = (teacher("a", 3, (0, 1, 2)), teacher("b", 2, (3, 2)))
    terms = by_rule(rule, *pair, target=ImportSpec(f"{HERE}:at_labels"))
    labels = torch.tensor([0, 2, 3, 7, -1])
    generator = torch.Generator().manual_seed(0)
    known = {
        one.teacher: Knowledge(
            one.teacher,
            torch.randn(5 if one.rows is None else len(one.rows), 3 if one.teacher == "a" else 2, generator=generator),
            rows=one.rows,
        )
        for one in terms.request(labels, Position())
    }
    student = torch.randn(5, 10, generator=generator).requires_grad_()
    total, _, weights = terms(Outputs(student), Targets(labels, torch.arange(5), known))
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(student.grad).all()
    assert weights["soft"].sum().item() == pytest.approx(1)
    assert not student.grad[3:].any(), "nobody knows class 7, and the last row has no label"
    assert student.grad[:3].any()


@pytest.mark.parametrize("target", ["actors.losses:cross_entropy_loss", "torch.nn.functional:cross_entropy"])
def test_unlabelled_rows_contribute_nothing_to_a_loss_on_labels(target):
    logits = torch.randn(4, 10, requires_grad=True)
    terms = criterion(loss("hard", ImportSpec(target), "labels", ()))
    total, *_ = terms(Outputs(logits), targets([7, -1, 2, -1]))
    assert total.item() == pytest.approx(F.cross_entropy(logits[[0, 2]], torch.tensor([7, 2])).item())
    total.backward()
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True, False]


def test_a_batch_without_labels_gives_0_and_a_gradient_of_0():
    logits = torch.randn(3, 10, requires_grad=True)
    total, values, _ = criterion(HARD)(Outputs(logits), targets([-1, -1, -1]))
    total.backward()
    assert total.item() == values["hard"].item() == 0 and torch.equal(logits.grad, torch.zeros(3, 10))


def test_unlabelled_rows_do_learn_from_a_teacher():
    logits, known = torch.zeros(3, 10, requires_grad=True), torch.ones(3, 10)
    total, *_ = criterion(loss(target=MSE), teachers=[teacher("a")])(Outputs(logits), targets([-1, 0, -1], a=known))
    total.backward()
    assert total.item() == 1 and bool((logits.grad != 0).all())


def test_a_teacher_of_some_classes_is_compared_on_those_alone():
    # Output 0 of the teacher is class 5, output 1 class 0; it sends them in the data's order: 0, 5.
    student = torch.arange(10.0).expand(2, 10).clone().requires_grad_()
    known = torch.tensor([[0.0, 3.0], [0.0, 7.0]])
    terms = criterion(loss(target=MSE), teachers=[teacher("a", 2, (5, 0))])
    total, *_ = terms(Outputs(student), targets([0, 1], a=known))
    assert total.item() == pytest.approx((0 + 2**2 + 0 + 2**2) / 4)
    total.backward()
    assert (student.grad != 0).any(dim=0).tolist() == [column == 5 for column in range(10)]


def test_labels_that_a_teacher_does_not_know_are_masked_and_the_others_renumbered():
    student = torch.zeros(4, 10)
    student[:, 5], student[:, 8] = 50.0, 80.0
    known = torch.tensor([[1.0, 2.0, 3.0]] * 4)  # of the classes 0, 5 and 8
    terms = criterion(loss(target=ImportSpec(f"{HERE}:at_labels")), teachers=[teacher("a", 3, (8, 5, 0))])
    total, *_ = terms(Outputs(student), targets([5, 1, 8, -1], a=known))
    assert total.item() == pytest.approx(((50 - 2) + (80 - 3)) / 2)


def test_of_a_loss_with_many_values_per_row_their_mean_counts():
    student = torch.tensor([[1.0] * 10, [5.0] * 9 + [25.0], [9.0] * 10])
    terms = criterion(loss(target=ImportSpec(f"{HERE}:every_gap")), teachers=[teacher("a")])
    total, *_ = terms(Outputs(student), targets([4, 4, -1], a=torch.zeros(3, 10)))
    assert total.item() == pytest.approx((1 + 7) / 2)


def test_what_a_loss_needs_is_bound_by_name():
    terms = criterion(loss(target=ImportSpec(f"{HERE}:at_ids")), teachers=[teacher("a")])
    total, *_ = terms(Outputs(torch.ones(3, 10)), targets([0, 0, 0], a=torch.zeros(3, 10)))
    assert total.item() == (0 + 1 + 2) * 10


def test_a_loss_that_relates_rows_is_called_on_the_whole_batch():
    student = torch.eye(2).repeat(1, 5)
    terms = criterion(loss(target=ImportSpec(f"{HERE}:gram_gap")), teachers=[teacher("a")])
    total, *_ = terms(Outputs(student), targets([0, -1], a=torch.zeros(2, 10)))
    assert total.item() == (25 + 0 + 0 + 25) / 4


def test_a_loss_written_in_c_is_called_with_both_tensors():
    terms = criterion(loss(target=ImportSpec("torch:dist", {"p": 1})), teachers=[teacher("a")])
    total, *_ = terms(Outputs(torch.ones(2, 10)), targets([0, 0], a=torch.zeros(2, 10)))
    assert total.item() == 20


def test_a_users_loss_on_taps_of_one_shape_needs_no_connector():
    terms = criterion(loss("hint", MSE, TapPair("s", "t")), teachers=[teacher("a", t=(3,))], s=(3,))
    known = Targets(torch.tensor([0, 0]), torch.arange(2), {"a": Knowledge("a", None, {"t": torch.ones(2, 3)})})
    features = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    total, *_ = terms(Outputs(torch.zeros(2, 10), {"s": features}), known)
    assert total.item() == pytest.approx((0 + 1 + 4 + 0) / 6) and list(terms.parameters()) == []


def test_each_teacher_has_its_own_connector_and_all_are_trained():
    pair = loss("hint", MSE, TapPair("s", "t"), ("a", "b"))
    terms = criterion(pair, teachers=[teacher("a", t=(3,)), teacher("b", t=(4,))], s=(5,))
    assert [tuple(p.shape) for p in terms.parameters()] == [(3, 5), (3,), (4, 5), (4,)]
    known = {n: Knowledge(n, None, {"t": torch.ones(2, size)}) for n, size in (("a", 3), ("b", 4))}
    outputs = Outputs(torch.zeros(2, 10), {"s": torch.randn(2, 5)})
    before = [p.clone() for p in terms.parameters()]
    optimizer = torch.optim.SGD(terms.parameters(), lr=0.1)
    terms(outputs, Targets(torch.zeros(2, dtype=torch.int64), torch.arange(2), known))[0].backward()
    optimizer.step()
    assert all(bool((p != old).any()) for p, old in zip(terms.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["half", "train", "type", "items", "float", "forward", "with space"])
def test_losses_and_teachers_may_have_any_name(name):
    terms = criterion(loss(name, MSE, teachers=(name,)), teachers=[teacher(name)])
    total, values, _ = terms(Outputs(torch.ones(2, 10)), targets([0, 0], **{name: torch.zeros(2, 10)}))
    assert total.item() == 1 and list(values) == [name]
    assert asked(terms) == (TeacherRequest(name),)


def test_a_student_runs_its_taps_only_where_a_loss_of_the_epoch_looks():
    late = loss("hint", MSE, TapPair("s", "t"), weight=WeightSpec(0, 1, 1))
    terms = criterion(HARD, late, teachers=[teacher("a", t=(12,))], s=(12,))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Linear(12, 10))
    student = Distillation(TappedModel(net, {"s": "1"}), terms)
    pixels = torch.rand(2, 1, 8, 8)
    known = Targets(torch.tensor([1, 2]), torch.arange(2), {"a": Knowledge("a", None, {"t": torch.zeros(2, 12)})})
    losses = [list(student(pixels, replace(known, position=Position(epoch)))[1]) for epoch in (0, 1)]
    assert losses == [["hard"], ["hard", "hint"]]
    assert student.outputs(pixels.double().float(), ("s",)).features["s"].shape == (2, 12)


def test_losses_are_computed_in_float32_under_autocast():
    terms = criterion(loss(target=ImportSpec(f"{HERE}:gram_gap")), teachers=[teacher("a")])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    student, pixels, known = Distillation(TappedModel(net, {}), terms), torch.rand(2, 1, 8, 8), torch.zeros(2, 10)
    with torch.autocast("cpu", torch.bfloat16):
        logits = student.outputs(pixels, ()).logits
        total, *_ = student(pixels, targets([1, 2], a=known))
    assert logits.dtype == torch.float32
    assert total.item() == gram_gap(logits, known).item(), "its matrix products are not in bfloat16"
    assert torch.equal(logits, logits.bfloat16().float()), "the student itself ran in bfloat16"
