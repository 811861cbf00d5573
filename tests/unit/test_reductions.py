"""What a loss needs of a teacher is made at the teacher: the same student, bit for bit, and fewer bytes."""

import pickle
from dataclasses import replace

import pytest
import torch

from actors.criterion import Criterion
from actors.knowledge import Knowledge, Position, TeacherRequest, merged, pack, unpack
from actors.losses import attention_transfer_loss, distils, fsp_loss
from actors.losses.feature import attention_transfer
from actors.losses.relation.fsp import flow
from actors.reductions import Reduction
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, LossSpec, TapPair
from actors.term import Outputs, Targets
from tests.unit.digits_setup import HARD, batches, model, save_teacher, student, trainer

MAP = "actors.losses.feature.attention_transfer:attention_map"
ATTENTION = LossSpec(
    "attention", ImportSpec("actors.losses:attention_transfer_loss"), TapPair("s", "t"), teachers=("a",)
)
HINT = replace(ATTENTION, name="hint", loss=ImportSpec("actors.losses:hint_loss"))
MAP_OF_T = Reduction(MAP, ("t",), (("exponent", 2.0),))
SMALL = model("actors.models:tiny_cnn", width=4, taps={"s": "stage1", "v": "stage2"})


def by_exponent(spec: LossSpec, exponent: float) -> LossSpec:
    return replace(spec, loss=replace(spec.loss, kwargs={"exponent": exponent}))


@pytest.fixture
def wide(tmp_path):
    taps = {"t": "stage1", "u": "stage2"}
    return save_teacher(tmp_path, "a", model("actors.models:plain_cnn", width=8, stem_stride=1, taps=taps))


def request(teacher, *losses) -> TeacherRequest:
    shapes = {"logits": (10,), "s": (4, 8, 8)}
    (one,) = Criterion(losses, shapes, [teacher]).request(torch.zeros(2, dtype=torch.int64), Position())
    return one


def runs(tmp_path, teacher, *losses, source=None):
    """The trained weights and the bytes that came, reduced at the teacher and at the student."""
    results = []
    for place in (None, "student"):
        taught = [replace(loss, reduce=place) for loss in losses]
        training = trainer(student([teacher], [HARD, *taught], spec=SMALL), tmp_path / str(place), source)
        state = training.run()
        results.append((training.exported(), state.bytes_received / state.rows_trained))
    return results


@pytest.mark.parametrize("exponent", [2.0, 2.5])
def test_attention_maps_made_at_the_teacher_give_the_same_student(tmp_path, wide, exponent):
    assert wide.shapes["t"] == (8, 8, 8)
    (there, few), (here, many) = runs(tmp_path, wide, by_exponent(ATTENTION, exponent))
    assert there == here
    assert (few, many) == (4 * 8 * 8, 4 * 8 * 8 * 8), "the map, and all its channels"


def test_the_loss_at_a_reduced_feature_is_the_loss(wide):
    (batch,) = batches(1)
    features = torch.rand(24, 4, 8, 8)
    for loss in (ATTENTION, by_exponent(ATTENTION, 3.0)):
        terms = Criterion([loss], {"logits": (10,), "s": (4, 8, 8)}, [wide])
        asked = terms.request(batch.labels, Position())
        source = LocalTeachers.load([wide])
        raw, sent = source.ask(batch, (TeacherRequest("a", False, ("t",)), *asked)).result()
        assert list(sent.features) == [asked[0].reductions[0].name] and sent.logits is None
        targets = Targets(batch.labels, torch.arange(24), {"a": sent})
        value = terms(Outputs(torch.zeros(24, 10), {"s": features}), targets)[0]
        assert torch.equal(value, attention_transfer_loss(features, raw.features["t"], **loss.loss.kwargs))


def test_the_same_reduction_is_asked_for_once(wide):
    again, cubic = replace(ATTENTION, name="again"), replace(by_exponent(ATTENTION, 3.0), name="cubic")
    other = replace(cubic, on=TapPair("s", "u"))
    assert request(wide, ATTENTION, again) == TeacherRequest("a", False, reductions=(MAP_OF_T,))
    assert request(wide, ATTENTION, cubic).reductions == (MAP_OF_T, Reduction(MAP, ("t",), (("exponent", 3.0),)))
    assert request(wide, ATTENTION, other).tapped == ("t", "u")


def test_what_travels_as_it_is_is_not_sent_reduced_too(tmp_path, wide):
    assert request(wide, ATTENTION, HINT) == TeacherRequest("a", False, ("t",))
    elsewhere = replace(HINT, on=TapPair("s", "u"))
    assert request(wide, ATTENTION, elsewhere) == TeacherRequest("a", False, ("u",), reductions=(MAP_OF_T,))
    (there, few), (here, many) = runs(tmp_path, wide, ATTENTION, HINT)
    assert there == here and few == many == 4 * 8 * 8 * 8


def test_rows_of_several_requests_are_joined_and_reductions_kept():
    some = TeacherRequest("a", False, (), (1, 3), (MAP_OF_T,))
    assert merged([some, replace(some, rows=(3, 2))]) == TeacherRequest("a", False, (), (1, 2, 3), (MAP_OF_T,))
    assert merged([some, TeacherRequest("a")]) == TeacherRequest("a", True, (), None, (MAP_OF_T,))


def test_a_feature_that_would_not_shrink_travels_as_it_is_unless_told_otherwise(tmp_path):
    one = save_teacher(tmp_path, "a", model("actors.models:plain_cnn", width=1, stem_stride=1, taps={"t": "stage1"}))
    assert one.shapes["t"] == (1, 8, 8)
    assert request(one, ATTENTION) == TeacherRequest("a", False, ("t",))
    (there, few), (here, many) = runs(tmp_path, one, ATTENTION)
    assert there == here and few == many
    assert request(one, replace(ATTENTION, reduce="teacher")).reductions == (MAP_OF_T,)


def test_an_argument_of_phi_that_may_change_is_refused(wide):
    with pytest.raises(ValueError, match=r"^losses.attention.loss.kwargs.exponent: .* got \[2, 3\]; give it that, or"):
        request(wide, by_exponent(ATTENTION, [2, 3]))


def test_rows_that_a_rule_routes_are_reduced_too(wide):
    routed = replace(
        ATTENTION,
        ensemble=ImportSpec("actors.ensemble:label_routing", {"routes": {"a": [0], "b": [1]}}),
        teachers=("a", "b"),
    )
    pair = [wide, replace(wide, name="b")]
    terms = Criterion([routed], {"logits": (10,), "s": (4, 8, 8)}, pair)
    labels = torch.tensor([0, 1, 1])
    asked = terms.request(labels, Position())
    assert asked == (
        TeacherRequest("a", False, (), (0,), (MAP_OF_T,)),
        TeacherRequest("b", False, (), (1, 2), (MAP_OF_T,)),
    )
    features, raw = torch.rand(3, 4, 8, 8), torch.rand(3, 8, 8, 8)
    known = {
        one.teacher: Knowledge(one.teacher, None, MAP_OF_T({"t": raw[list(one.rows)]}), rows=one.rows) for one in asked
    }
    total, *_ = terms(Outputs(torch.zeros(3, 10), {"s": features}), Targets(labels, torch.arange(3), known))
    torch.testing.assert_close(total, attention_transfer_loss(features, raw))


def test_a_reduction_travels_in_requests_and_its_result_in_answers():
    sent = pickle.loads(pickle.dumps(TeacherRequest("a", reductions=(MAP_OF_T,))))
    assert sent == TeacherRequest("a", reductions=(MAP_OF_T,)) and hash(sent) == hash(sent)
    assert MAP_OF_T.name == f"{MAP}(t, exponent=2.0)" and MAP_OF_T.label == "attention_map(t, exponent=2.0)"
    made = MAP_OF_T({"t": torch.rand(3, 2, 4, 4)})
    got = unpack(pack(Knowledge("a", None, made)))
    assert torch.equal(got.features[MAP_OF_T.name], made[MAP_OF_T.name])


def test_autograd_is_the_callers_business_in_reductions_too(wide):
    teacher = LocalTeachers.load([wide])._teachers["a"]
    pixels = torch.rand(3, 1, 8, 8, requires_grad=True)
    answer = teacher.answer(
        {"image": pixels}, TeacherRequest("a", False, reductions=(MAP_OF_T,)), batches(1)[0].digests[:3]
    )
    answer.features[MAP_OF_T.name].sum().backward()
    assert pixels.grad is not None and bool((pixels.grad != 0).any())


def sums(features):
    return features.sum()


def test_a_phi_that_is_not_row_wise_is_refused():
    with pytest.raises(ValueError, match=r"test_reductions:sums: expected a result with the rows first, got \(\)"):
        Reduction("tests.unit.test_reductions:sums", ("t",)).bytes_per_row({"t": (2, 4, 4)})


FLOW = "actors.losses.relation.fsp:flow"
FSP = LossSpec(
    "fsp", ImportSpec("actors.losses:fsp_loss"), TapPair(("s", "v"), ("t", "u")), teachers=("a",), section="losses"
)
FLOW_OF_TU = Reduction(FLOW, ("t", "u"), (("pooling", "max"),))


def test_the_flow_between_two_layers_is_by_hand():
    """Two channels early on 2x2 places, one late on a single one: pooled to that, and multiplied."""
    early = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.0], [-2.0, -3.0]]]])
    late = torch.tensor([[[[5.0]]]])
    assert flow(early, late, pooling="max").tolist() == [[[20.0], [0.0]]]
    assert flow(early, late, pooling="mean").tolist() == [[[12.5], [-7.5]]]
    same = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]]]])
    assert flow(early, same, pooling="max").tolist() == [[[(1 + 4 + 0 + 4) / 4], [(-1 + 0 + 0 - 3) / 4]]]
    gap = fsp_loss(early, late, torch.zeros_like(early), late, reduction="none")
    assert gap.tolist() == [(20**2 + 0) / 2] and fsp_loss.__kwdefaults__["pooling"] == "max"


def test_grams_made_at_the_teacher_give_the_same_student_through_a_connector_for_each_tap(tmp_path, wide):
    assert (wide.shapes["t"], wide.shapes["u"]) == ((8, 8, 8), (16, 4, 4))
    (there, few), (here, many) = runs(tmp_path, wide, FSP)
    assert there == here
    assert (few, many) == (4 * 8 * 16, 4 * (8 * 8 * 8 + 16 * 4 * 4))
    terms = Criterion([FSP], {"logits": (10,), "s": (4, 8, 8), "v": (6, 2, 2)}, [wide])
    assert [tuple(p.shape) for p in terms.parameters()] == [(8, 4, 1, 1), (8,), (16, 6, 1, 1), (16,)]
    assert terms.student_taps(["fsp"]) == ("s", "v")


def test_two_taps_are_reduced_unless_both_travel_as_they_are(wide):
    shapes = {"logits": (10,), "s": (4, 8, 8), "v": (6, 2, 2)}

    def asked(*losses):
        return Criterion(losses, shapes, [wide]).request(torch.zeros(2), Position())

    hint_u = replace(HINT, name="hint u", on=TapPair("v", "u"))
    assert asked(FSP) == (TeacherRequest("a", False, reductions=(FLOW_OF_TU,)),)
    assert asked(FSP)[0].tapped == ("t", "u")
    assert asked(FSP, HINT) == (TeacherRequest("a", False, ("t",), reductions=(FLOW_OF_TU,)),)
    assert asked(FSP, HINT, hint_u) == (TeacherRequest("a", False, ("t", "u")),)


def test_what_the_student_shows_is_made_once_for_all_teachers(wide, monkeypatch):
    pair = [wide, replace(wide, name="b")]
    terms = Criterion([replace(ATTENTION, teachers=("a", "b"))], {"logits": (10,), "s": (4, 8, 8)}, pair)
    features, maps = torch.rand(3, 4, 8, 8), torch.rand(2, 3, 64)
    known = {name: Knowledge(name, None, {MAP_OF_T.name: maps[k]}) for k, name in enumerate("ab")}
    targets = Targets(torch.zeros(3, dtype=torch.int64), torch.arange(3), known)
    seen, made = [], attention_transfer.attention_map
    monkeypatch.setattr(attention_transfer, "attention_map", lambda one, **how: seen.append(one) or made(one, **how))

    total, *_ = terms(Outputs(torch.zeros(3, 10), {"s": features}), targets)

    assert len(seen) == 1 and seen[0] is features
    torch.testing.assert_close(total.float(), (made(features, exponent=2.0) - maps).square().mean())


def centred(logits):
    return logits - logits.mean(dim=1, keepdim=True)


def gap(student, teacher, *, reduction="mean"):
    values = (student - teacher).square().mean(dim=1)
    return values.mean() if reduction == "mean" else values


@distils(paper="A, 2020", kind="response", phi=centred, closing=gap)
def centred_loss(student_logits, teacher_logits, *, reduction="mean"):
    return gap(centred(student_logits), centred(teacher_logits), reduction=reduction)


@pytest.mark.parametrize("classes", [None, (4, 2, 7)])
def test_a_loss_on_logits_may_have_a_phi_too(tmp_path, classes):
    outputs = 10 if classes is None else len(classes)
    spec = model("actors.models:tiny_cnn", width=4, num_classes=outputs)
    teacher = save_teacher(tmp_path, "a", spec, class_map=classes)
    loss = LossSpec("own", ImportSpec("tests.unit.test_reductions:centred_loss"), "logits", teachers=("a",))
    terms = Criterion([loss], {"logits": (10,)}, [teacher])
    logits, said = torch.randn(5, 10), torch.randn(5, outputs)
    targets = Targets(torch.zeros(5, dtype=torch.int64), torch.arange(5), {"a": Knowledge("a", said)})
    total, *_ = terms(Outputs(logits), targets)
    own = logits if classes is None else logits[:, sorted(classes)]
    torch.testing.assert_close(total.float(), centred_loss(own, said))
