"""Going on without a teacher that is lost: who may be dropped, and what the rules make of those who are left."""

import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from actors.criterion import Criterion
from actors.ensemble import combines
from actors.errors import TeacherLostError
from actors.knowledge import Knowledge, Position
from actors.policies.dropping import left, may_go_on
from actors.pool.chronicle import joined
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, LossSpec, ModelSpec, TapPair, TeacherSpec
from actors.term import Outputs, Targets
from tests.unit.digits_setup import HARD, SOFT, model, save_teacher, student, trainer

HERE = "tests.unit.test_dropping"
MSE = ImportSpec("torch.nn.functional:mse_loss")
GAP = ImportSpec(f"{HERE}:row_gap")
TEACHERS = tuple(
    TeacherSpec(name, ModelSpec(ImportSpec("actors.models:mlp")), "", {"logits": (4,), "tap": (2,)}) for name in "abc"
)
SAID = {"a": 1.0, "c": 5.0}
LABELS = torch.tensor([0, 1, 2, -1])


def row_gap(student, teacher, *, reduction):
    return (teacher - student).mean(dim=1)


def of_first_class(student, teacher):
    return (teacher - student)[:, 0].mean()


@combines(paper="mine", gives="weights")
def first_counts_double(*, teachers):
    return torch.tensor([2.0, *[1.0] * (len(teachers) - 1)]) / (len(teachers) + 1)


def criterion(rule, target=MSE, teachers=TEACHERS, dropped=("b",), on="logits", **kwargs) -> Criterion:
    names = tuple(one.name for one in teachers)
    spec = LossSpec("soft", target, on, teachers=names, ensemble=ImportSpec(rule, kwargs))
    return Criterion([spec], {"logits": (4,), "own": (3,)}, teachers, dropped=dropped)


def heard(terms, said=SAID, labels=LABELS, step=0):
    """What they say, of the rows that they are asked about: the same number everywhere, or rows of logits."""
    known = {}
    for one in terms.request(labels, Position(0, step)):
        says = torch.as_tensor(said[one.teacher]).expand(len(labels), 4)
        known[one.teacher] = Knowledge(one.teacher, says if one.rows is None else says[list(one.rows)], rows=one.rows)
    return Targets(labels, torch.arange(len(labels)), known, Position(0, step))


def taken(terms, targets):
    total, _, weights = terms(Outputs(torch.zeros(len(targets.labels), 4)), targets)
    return total.item(), weights["soft"].tolist()


def test_a_teacher_is_dropped_only_where_all_that_are_lost_may_be_and_every_loss_hears_another():
    losses = [(), ("a", "b", "c"), ("b", "c")]
    assert may_go_on(["b"], ["b"], [], losses)
    assert not may_go_on(["b"], ["c"], [], losses)
    assert not may_go_on(["a", "b"], ["a"], [], losses), "they live in one actor"
    assert not may_go_on(["b"], ["b", "c"], ["c"], losses), "the last loss has lost c before"
    assert may_go_on(["a"], ["a", "c"], ["c"], losses)
    assert left("abc", {"b"}) == ("a", "c")


def test_the_error_says_who_is_lost_in_another_process_too():
    error = pickle.loads(pickle.dumps(TeacherLostError("teacher 'duo' has no replica left", ["a", "b"])))
    assert error.teachers == ("a", "b") and str(error) == "teacher 'duo' has no replica left"


@pytest.mark.parametrize(
    ("weights", "shares"),
    [(None, [0.5, 0, 0.5]), ({"b": 7, "c": 3}, [0.25, 0, 0.75])],
)
def test_the_mean_of_losses_is_that_of_the_others_with_their_weights_scaled(weights, shares):
    terms = criterion("actors.ensemble:mean_losses", weights=weights)
    total, found = taken(terms, heard(terms))
    assert total == pytest.approx(shares[0] * 1 + shares[2] * 25) and found == pytest.approx(shares)


def test_the_mean_of_logits_is_that_of_the_others():
    terms = criterion("actors.ensemble:mean_logits", weights={"a": 3, "b": 9})
    total, found = taken(terms, heard(terms))
    assert total == pytest.approx((0.75 * 1 + 0.25 * 5) ** 2) and found == [0.75, 0, 0.25]


def test_the_mean_of_probabilities_is_that_of_the_others():
    terms = criterion("actors.ensemble:mean_probabilities", target=ImportSpec(f"{HERE}:of_first_class"))
    sure = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    total, _ = taken(terms, heard(terms, {"a": sure, "c": torch.full((4,), 0.25).log()}))
    assert total == pytest.approx(torch.tensor((0.7 + 0.25) / 2).log().item())


def test_by_confidence_and_by_entropy_the_others_are_weighed_against_each_other():
    logits = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    said = {"a": logits, "c": torch.full((4,), 0.25).log()}
    labels = torch.zeros(4, dtype=torch.int64)
    # Costs -log 0.7 and -log 0.25: w_a = 1 - softmax = 0.7 / 0.95. Entropies in parts of log 4: 0.6784 and 1.
    for rule, weight in (("confidence", 0.7 / 0.95), ("entropy", 1 / 1.6784)):
        terms = criterion(f"actors.ensemble:{rule}", target=GAP)
        _, found = taken(terms, heard(terms, said, labels))
        assert found == pytest.approx([weight, 0, 1 - weight], abs=1e-4)


def test_the_dice_fall_on_the_others():
    terms = criterion("actors.ensemble:random", weights={"b": 50})
    asked = [[one.teacher for one in terms.request(LABELS, Position(0, step))] for step in range(40)]
    assert {"a"} < {name for names in asked for name in names} == {"a", "c"} and {len(names) for names in asked} == {1}
    for step in range(4):
        total, weights = taken(terms, heard(terms, step=step))
        assert (total, weights) in [(1, [1, 0, 0]), (25, [0, 0, 1])]


def test_learned_weights_stay_and_are_scaled_among_the_others():
    whole = criterion("actors.ensemble:learned", weights={"a": 2, "b": 3, "c": 5}, dropped=())
    terms = criterion("actors.ensemble:learned")
    terms.load_state_dict(whole.state_dict())
    total, found = taken(terms, heard(terms))
    assert found == pytest.approx([2 / 7, 0, 5 / 7]) and total == pytest.approx(2 / 7 * 1 + 5 / 7 * 25, rel=1e-5)
    terms(Outputs(torch.zeros(4, 4)), heard(terms, {"a": torch.eye(4)[0], "c": torch.eye(4)[1]}))[0].backward()
    gradient = terms.terms[0].combination._rule.scores.grad
    assert gradient[1] == 0 and gradient[0] != 0


def test_routed_rows_of_a_dropped_specialist_are_taught_by_whoever_knows_their_class():
    routes = {"a": [0, 1], "b": [2], "c": [1]}
    terms = criterion("actors.ensemble:label_routing", target=GAP, routes=routes)
    assert [(one.teacher, one.rows) for one in terms.request(LABELS, Position())] == [("a", None), ("c", (1, 2, 3))]
    # Row 0 is a's; row 1 that of both; row 2 was b's and both know its class; row 3 has no label.
    total, found = taken(terms, heard(terms))
    assert total == pytest.approx((1 + 3 + 3 + 3) / 4) and found == pytest.approx([2.5 / 4, 0, 1.5 / 4])


def test_routed_rows_whose_class_nobody_knows_any_more_are_not_taught():
    known = {"a": (0, 1), "b": (1, 2), "c": (0,)}
    teachers = [replace(one, class_map=known[one.name], shapes={"logits": (len(known[one.name]),)}) for one in TEACHERS]
    terms = criterion("actors.ensemble:label_routing", target=GAP, teachers=teachers)
    labels = torch.tensor([0, 1, 2, 3])
    requests = {one.teacher: one.rows for one in terms.request(labels, Position())}
    assert requests == {"a": (0, 1, 3), "c": (0, 3)}
    says = {
        name: Knowledge(name, torch.full((len(rows), len(known[name])), SAID[name]), rows=rows)
        for name, rows in requests.items()
    }
    student = torch.zeros(4, 4, requires_grad=True)
    total, _, weights = terms(Outputs(student), Targets(labels, torch.arange(4), says))
    total.backward()
    # Class 3 was never anybody's: all who are left teach it.
    assert total.item() == pytest.approx((3 + 1 + 3) / 3)
    assert student.grad.abs().sum(dim=1).gt(0).tolist() == [True, True, False, True]
    assert weights["soft"].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    nobody = Targets(torch.tensor([2]), torch.arange(1), {})
    assert terms.request(nobody.labels, Position()) == ()
    total, *_ = terms(Outputs(torch.ones(1, 4, requires_grad=True)), nobody)
    total.backward()
    assert total.item() == 0


def test_a_rule_of_the_users_is_told_of_the_others_alone():
    terms = criterion(f"{HERE}:first_counts_double", dropped=("a",))
    total, found = taken(terms, heard(terms, {"b": 1.0, "c": 5.0}))
    assert found == pytest.approx([0, 2 / 3, 1 / 3]) and total == pytest.approx(2 / 3 + 25 / 3)


def test_connectors_to_a_dropped_teacher_stay_so_that_checkpoints_fit():
    hint = ImportSpec("actors.losses:hint_loss")
    both = [
        criterion("actors.ensemble:mean_losses", hint, on=TapPair("own", "tap"), dropped=dropped)
        for dropped in ((), ("b",))
    ]
    shapes = [{name: part.shape for name, part in terms.state_dict().items()} for terms in both]
    assert shapes[0] == shapes[1] and len(shapes[0]) >= 3


def test_a_student_goes_on_from_its_checkpoint_without_asking_the_teacher_it_lost(tmp_path):
    wide, other = save_teacher(tmp_path), save_teacher(tmp_path, "other", model(width=8), seed=5)
    learned = replace(SOFT, teachers=("wide", "other"), ensemble=ImportSpec("actors.ensemble:learned"))
    begun = student([wide, other], [HARD, learned], epochs=1)
    trainer(begun, tmp_path / "run").run()

    without = replace(begun, recipe=replace(begun.recipe, epochs=2), dropped=("other",))
    state = trainer(without, tmp_path / "run", LocalTeachers.load([wide])).run()

    first, second = (record["weights"]["soft"] for record in state.history)
    assert first["other"] > 0.2 and second == {"wide": 1.0, "other": 0.0}
    assert set(state.teachers) == {"wide", "other"}, "both have taught it"


def test_the_records_of_two_pools_are_one():
    earlier = {
        "started": 100.0,
        "replicas": {"a": [[0.0, 1]], "b": [[0.0, 2], [3.0, 0]]},
        "restarts": {"b": 2},
        "events": [[3.0, "b", "replica 1 was lost"]],
        "dropped": [],
    }
    later = {
        "started": 105.5,
        "replicas": {"a": [(0.5, 1)]},
        "restarts": {"a": 1, "b": 1},
        "events": [(0.5, "a", "replica 0 serves")],
        "dropped": ["b"],
    }
    whole = joined(earlier, later)
    assert whole == {
        "started": 100.0,
        "replicas": {"a": [[0.0, 1], [5.5, 0], [6.0, 1]], "b": [[0.0, 2], [3.0, 0], [5.5, 0]]},
        "restarts": {"a": 1, "b": 3},
        "events": [[3.0, "b", "replica 1 was lost"], [6.0, "a", "replica 0 serves"]],
        "dropped": ["b"],
    }
    assert all(one[0] <= other[0] for one, other in pairwise(whole["events"]))
