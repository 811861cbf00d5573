"""The largest logits and the mass of the others: what is exact, what travels, who can use it."""

import math
from dataclasses import replace

import pytest
import torch

from actors.criterion import Criterion
from actors.knowledge import Knowledge, Position, TeacherRequest, pack, unpack
from actors.losses import kd_loss
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, LossSpec, TeacherSpec
from actors.term import Outputs, Targets
from actors.top_k import rebuilt, top_k, top_k_reduction
from tests.unit.digits_setup import HARD, SOFT, batches, model, save_teacher, student, trainer

LARGEST = replace(SOFT, top_k=3)
THREE = top_k_reduction(3)
TEACHER = TeacherSpec("a", model(), "", {"logits": (10,)})


def through(logits, k):
    return rebuilt(*top_k(logits, k=k), num_classes=logits.shape[1])


def by_hand(logits, k):
    """Row by row, in Python's floats."""
    rows = []
    for row in logits.tolist():
        largest = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k]
        others = [math.exp(row[c]) for c in range(len(row)) if c not in largest]
        rows.append([row[c] if c in largest else math.log(sum(others) / len(others)) for c in range(len(row))])
    return torch.tensor(rows, dtype=logits.dtype)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_others_share_their_mass_evenly(k):
    logits = 4 * torch.randn(7, 10, dtype=torch.float64)
    torch.testing.assert_close(through(logits, k), by_hand(logits, k))


def test_at_temperature_1_the_largest_probabilities_and_the_mass_of_the_others_are_exact():
    logits = 4 * torch.randn(50, 10, dtype=torch.float64)
    exact, got = logits.softmax(dim=1), through(logits, 3).softmax(dim=1)
    largest = exact.topk(3, dim=1)
    torch.testing.assert_close(got.gather(1, largest.indices), largest.values)
    assert torch.equal(got.topk(3, dim=1).indices, largest.indices), "who shares is never above who is named"
    assert not torch.allclose((logits / 4).softmax(dim=1), (through(logits, 3) / 4).softmax(dim=1), atol=1e-3)


def test_one_below_all_classes_loses_nothing():
    logits = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(through(logits, 3), logits)


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_extreme_logits_stay_finite(size):
    logits = size * torch.tensor([[1.0, -1, -1, 0.5], [-1, -1, -1, -1], [1, 1, 1, 1]])
    assert bool(torch.isfinite(through(logits, 1)).all())


@pytest.mark.parametrize(("classes", "dtype"), [(32768, torch.int16), (32769, torch.int32)])
def test_every_class_has_a_number(classes, dtype):
    logits = torch.zeros(1, classes)
    logits[0, -1] = 5
    values, indices, _ = top_k(logits, k=1)
    assert indices.dtype == dtype and through(logits, 1).argmax() == classes - 1 and values.item() == 5


def test_the_parts_come_back_from_a_journey():
    logits = torch.randn(3, 10)
    made = THREE({"logits": logits})
    got = unpack(pack(Knowledge("a", None, made)))
    assert [key.rpartition(".")[2] for key in got.features] == ["values", "indices", "rest"] and got.logits is None
    assert torch.equal(rebuilt(*THREE.found(got.tensors), num_classes=10), through(logits, 3))
    assert got.num_bytes == 3 * (3 * 4 + 3 * 2 + 4)


def test_a_loss_hears_the_rebuilt_logits(tmp_path):
    teacher = save_teacher(tmp_path)
    (batch,) = batches(1)
    terms = Criterion([LARGEST], {"logits": (10,)}, [teacher])
    asked = terms.request(batch.labels, Position())
    assert asked == (TeacherRequest("wide", False, reductions=(THREE,)),)
    whole, largest = LocalTeachers.load([teacher]).ask(batch, (TeacherRequest("wide"), *asked)).result()
    logits = torch.randn(24, 10)
    total, *_ = terms(Outputs(logits), Targets(batch.labels, torch.arange(24), {"wide": largest}))
    torch.testing.assert_close(total.float(), kd_loss(logits, by_hand(whole.logits, 3)))
    assert not torch.isclose(total.float(), kd_loss(logits, whole.logits), rtol=1e-3)


@pytest.mark.parametrize("loss", ["kd_loss", "dist_loss", "dkd_loss", "generalized_jsd_loss"])
def test_where_it_is_reduced_changes_nothing_but_bytes(tmp_path, loss):
    teacher = save_teacher(tmp_path)
    found = []
    for place in ("teacher", "student"):
        taught = replace(LARGEST, loss=ImportSpec(f"actors.losses:{loss}"), reduce=place)
        training = trainer(student([teacher], [HARD, taught]), tmp_path / place)
        state = training.run()
        found.append((training.exported(), state.bytes_received / state.rows_trained))
    (there, few), (here, many) = found
    assert there == here and (few, many) == (3 * 4 + 3 * 2 + 4, 10 * 4)


def test_a_loss_on_all_logits_beside_it_hears_all_and_they_travel_once(tmp_path):
    teacher = save_teacher(tmp_path)
    terms = Criterion([LARGEST, replace(SOFT, name="all")], {"logits": (10,)}, [teacher])
    assert terms.request(torch.zeros(2), Position()) == (TeacherRequest("wide"),)
    logits, said = torch.randn(4, 10), torch.randn(4, 10)
    known = Targets(torch.zeros(4, dtype=torch.int64), torch.arange(4), {"wide": Knowledge("wide", said)})
    _, values, _ = terms(Outputs(logits), known)
    torch.testing.assert_close(values["soft"].float(), kd_loss(logits, by_hand(said, 3)))
    torch.testing.assert_close(values["all"].float(), kd_loss(logits, said))


def test_class_maps_are_kept(tmp_path):
    """Outputs 0 .. 4 are classes 9, 0, 4, 2, 7: the largest are named by their place among the known ones in order."""
    spec = model(num_classes=5, width=24, depth=1)
    teacher = save_teacher(tmp_path, spec=spec, class_map=(9, 0, 4, 2, 7))
    (batch,) = batches(1)
    terms = Criterion([replace(LARGEST, top_k=2)], {"logits": (10,)}, [teacher])
    (largest,) = LocalTeachers.load([teacher]).ask(batch, terms.request(batch.labels, Position())).result()
    unmapped = LocalTeachers.load([replace(teacher, class_map=None)])
    (whole,) = unmapped.ask(batch, (TeacherRequest("wide"),)).result()
    logits, in_order = torch.randn(24, 10), whole.logits[:, [1, 3, 2, 4, 0]]
    total, *_ = terms(Outputs(logits), Targets(batch.labels, torch.arange(24), {"wide": largest}))
    torch.testing.assert_close(total.float(), kd_loss(logits[:, [0, 2, 4, 7, 9]], by_hand(in_order, 2)))


@pytest.mark.parametrize("rule", ["mean_probabilities", "mean_logits", "confidence", "entropy", "learned"])
def test_a_rule_gets_the_rebuilt_logits(rule):
    """It is as if teachers had said them; nothing travels beside the parts."""
    pair = [TEACHER, replace(TEACHER, name="b")]
    spec = LossSpec("soft", SOFT.loss, "logits", teachers=("a", "b"), ensemble=ImportSpec(f"actors.ensemble:{rule}"))
    labels, said = torch.arange(6), {"a": 3 * torch.randn(6, 10), "b": 3 * torch.randn(6, 10)}
    terms = Criterion([replace(spec, top_k=3)], {"logits": (10,)}, pair)
    asked = terms.request(labels, Position())
    assert asked == tuple(TeacherRequest(name, False, reductions=(THREE,)) for name in said)
    sent = {name: Knowledge(name, None, THREE({"logits": one})) for name, one in said.items()}
    whole = {name: Knowledge(name, by_hand(one, 3)) for name, one in said.items()}
    outputs = Outputs(torch.randn(6, 10))
    found, *_, weights = terms(outputs, Targets(labels, torch.arange(6), sent))
    plain = Criterion([spec], {"logits": (10,)}, pair)
    expected, *_, of_plain = plain(outputs, Targets(labels, torch.arange(6), whole))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weights["soft"], of_plain["soft"])
