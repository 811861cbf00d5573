"""What knowledge depends on misses when it changes, everything else hits: one by one."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.knowledge import TeacherRequest
from actors.specs import ImportSpec, InputSpec, LossSpec, StoreSpec, TapPair, WeightSpec
from actors.store.keys import data_identity, judge_identity, pieces
from actors.views import plain  # noqa: F401 - by another name
from orchestrator.config import ExperimentConfig
from orchestrator.storing import coverage, lacking, refuse_placeless, requests_by_view
from tests.unit.digits_setup import DATA, NETS, SOFT, batches, digits, save_teacher, student
from tests.unit.store_setup import Counting, store_spec, stored

ATTENTION = LossSpec(
    "attention",
    ImportSpec("actors.losses:attention_transfer_loss", {}),
    on=TapPair("tap", "tap"),
    teachers=("wide",),
    reduce="teacher",
)
STUDENT = replace(NETS["tiny_cnn"], taps={"tap": "stage2"})


class Edited:
    """The digits, one pixel of one row other."""

    def __init__(self, row):
        self.row = row

    def __len__(self):
        return len(digits())

    def __getitem__(self, index):
        image, label = digits()[index]
        return (image ^ 1 if index == self.row else image), label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def teacher(folder):
    return save_teacher(folder, "wide", NETS["tiny_cnn"])


def keys(teacher, losses=(SOFT,), *, weights="w", data=DATA, dataset=None, encoding="float16", **recipe) -> set[str]:
    """Of all pieces that a student asks of it."""
    identity = data_identity(dataset or digits(), data)
    store = StoreSpec("x", encoding, {}, identity, {teacher.name: judge_identity(teacher, weights)})
    spec = replace(student([teacher], losses, spec=STUDENT, **recipe), data=data)
    asked = {one for request in requests_by_view(spec, [teacher.name]).values() for one in request}
    return {piece.key for request in asked for piece in pieces(request, teacher, store)}


def of_model(spec, **changes):
    return replace(spec, model=replace(spec.model, **changes))


CHANGED_TEACHERS = {
    "model target": lambda t: of_model(t, model=replace(t.model.model, target="actors.models:mobile_cnn")),
    "model kwargs": lambda t: of_model(t, model=replace(t.model.model, kwargs={"width": 8, "num_classes": 10})),
    "input": lambda t: of_model(t, input=InputSpec(size=12)),
    "normalisation": lambda t: of_model(t, input=InputSpec(mean=(0.2,))),
    "precision": lambda t: replace(t, precision="bf16"),
    "chunk": lambda t: replace(t, chunk=16),
    "threads": lambda t: replace(t, threads=2),
    "channels_last": lambda t: replace(t, channels_last=True),
    "compile": lambda t: replace(t, compile="inductor"),
    "class_map": lambda t: replace(t, class_map=tuple(range(10))),
}
CHANGED = {
    "weights": {"weights": "v"},
    "encoding": {"encoding": "int8"},
    "view function": {"data": replace(DATA, views=ImportSpec("actors.views:plain"))},
    "view kwargs": {"data": replace(DATA, views=ImportSpec("actors.views:crop_and_flip", {"padding": 2}))},
    "view seed": {"data": replace(DATA, seed=1)},
    "dataset": {"dataset": Edited(0)},
}
SAME = {
    "batch size": {"batch_size": 12},
    "epochs": {"epochs": 7},
    "seed of the student": {"seed": 4},
    "number of views": {"data": replace(DATA, num_views=1)},
    "slices": {"data": replace(DATA, slices={"student": 48, "validation": 40})},
    "evaluation view": {"data": replace(DATA, evaluation_view=ImportSpec("actors.views:crop_and_flip"))},
    "temperature": {"losses": [replace(SOFT, loss=replace(SOFT.loss, kwargs={"temperature": 9.0}))]},
    "weight": {"losses": [replace(SOFT, weight=WeightSpec(0.1, 0.7, 3))]},
    "loss": {"losses": [replace(SOFT, loss=ImportSpec("actors.losses:dkd_loss"))]},
    "ensemble rule": {"losses": [replace(SOFT, ensemble=ImportSpec("actors.ensemble:mean_logits"))]},
    "name of the loss": {"losses": [replace(SOFT, name="other")]},
}


@pytest.mark.parametrize("change", CHANGED_TEACHERS)
def test_another_teacher_is_another_key(teacher, change):
    assert not keys(teacher) & keys(CHANGED_TEACHERS[change](teacher))


@pytest.mark.parametrize("change", CHANGED)
def test_another_of_what_knowledge_depends_on_is_another_key(teacher, change):
    assert not keys(teacher) & keys(teacher, **CHANGED[change])


@pytest.mark.parametrize("change", SAME)
def test_what_knowledge_does_not_depend_on_is_the_same_key(teacher, change):
    assert keys(teacher) == keys(teacher, **SAME[change])


def test_other_slices_are_other_partners(teacher):
    mixing = replace(DATA, views=ImportSpec("actors.mixing:mixup"))
    assert not keys(teacher, data=mixing) & keys(teacher, data=replace(mixing, slices={**DATA.slices, "student": 48}))


def test_a_view_that_gives_the_same_pixels_is_another_one(teacher):
    """The fingerprint sees a few samples alone: the view and its seed are part of the key themselves."""
    known = keys(teacher, data=replace(DATA, views=ImportSpec("actors.views:plain")))
    assert known.isdisjoint(keys(teacher, data=replace(DATA, views=ImportSpec("actors.views:plain"), seed=1)))
    assert known.isdisjoint(keys(teacher, data=replace(DATA, views=ImportSpec("tests.unit.test_store_keys:plain"))))


def test_names_of_teachers_and_taps_and_replicas_are_the_same_key(teacher):
    renamed = replace(teacher, replicas=3, actor="together", may_be_dropped=True)
    assert keys(teacher) == keys(renamed)
    other_tap = of_model(teacher, taps={"called_otherwise": teacher.model.taps["tap"]})
    other_tap = replace(other_tap, shapes={**teacher.shapes, "called_otherwise": teacher.shapes["tap"]})
    store = StoreSpec("x", judges={"wide": {"weights": "w"}})
    (one,) = pieces(TeacherRequest("wide", False, ("tap",)), teacher, store)
    (other,) = pieces(TeacherRequest("wide", False, ("called_otherwise",)), other_tap, store)
    assert one.key == other.key


def test_other_taps_and_reductions_are_other_keys(teacher):
    reduced = keys(teacher, [ATTENTION])
    other_exponent = keys(teacher, [replace(ATTENTION, loss=replace(ATTENTION.loss, kwargs={"exponent": 4.0}))])
    raw = keys(teacher, [replace(ATTENTION, reduce="student")])
    top = keys(teacher, [replace(SOFT, top_k=3)])
    fewer = keys(teacher, [replace(SOFT, top_k=2)])
    sets = [keys(teacher), reduced, other_exponent, raw, top, fewer]
    assert len(set().union(*sets)) == sum(map(len, sets)) and len(top) == 3, "values, classes and the rest"


def test_single_taps_have_their_own_encoding(teacher):
    store = StoreSpec("x", "float16", {"tap": "int8"}, {}, {"wide": {"weights": "w"}})
    asked = pieces(TeacherRequest("wide", True, ("tap",)), teacher, store)
    assert [(piece.name, piece.encoding.name) for piece in asked] == [("logits", "float16"), ("tap", "int8")]
    reduced = requests_by_view(student([teacher], [ATTENTION], spec=STUDENT), ["wide"])[0][0]
    assert [piece.encoding.name for piece in pieces(reduced, teacher, store)] == ["int8"], "made of that tap"


def test_a_rung_knows_what_it_lacks(tmp_path, teacher, folder):
    """Two views, of which the store has one, and of one teacher of two."""
    other = save_teacher(folder, "narrow")
    both = replace(SOFT, teachers=("wide", "narrow"))
    spec = student([teacher, other], [both], epochs=3)
    store = store_spec(tmp_path, teacher, other)
    assert lacking(spec, store, len(digits())) == ["wide", "narrow"]
    with stored(tmp_path, teacher, inner=Counting(teacher)) as source:
        for batch in batches(4):
            source.ask(batch, (TeacherRequest("wide"),)).result()
    found = coverage(spec, store, len(digits()))
    assert [(one.teacher, one.there, one.needed) for one in found] == [("wide", 96, 192), ("narrow", 0, 192)]
    once = replace(spec, data=replace(DATA, num_views=1))
    assert lacking(once, store, len(digits())) == ["narrow"]
    assert lacking(replace(once, dropped=("narrow",)), store, len(digits())) == []


def test_a_loss_that_begins_later_is_asked_for_in_the_views_of_its_epochs(teacher):
    late = replace(ATTENTION, weight=WeightSpec(0.0, 1.0, 1))
    spec = student([teacher], [SOFT, late], spec=STUDENT, epochs=2)
    by_view = requests_by_view(spec, ["wide"])
    assert [len(one.reductions) for (one,) in by_view.values()] == [0, 1] and list(by_view) == [0, 1]
    assert requests_by_view(spec, []) == {}


def test_a_store_that_cannot_have_a_folder_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    config = ExperimentConfig.from_yaml(Path(__file__).with_name("digits.yaml"), [f"store={{folder: {tmp_path}/file}}"])
    with pytest.raises(ValueError, match=r"^store\.folder: .*file cannot be made: File exists; choose another folder$"):
        refuse_placeless(config)
