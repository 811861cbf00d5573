"""Reading through a store: what is there is read, what is missing is asked and kept, nothing twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.errors import KnowledgeError, NotStoredError
from actors.knowledge import TeacherRequest
from actors.reductions import Reduction
from actors.sources import Given
from actors.specs import ImportSpec, InputSpec
from tests.unit.digits_setup import NETS, SOFT, batches, save_teacher, student, trained
from tests.unit.store_setup import Counting, stored

MAP = Reduction("actors.losses.feature.attention_transfer:attention_map", ("tap",), (("exponent", 2.0),))


def asked(source, several, *requests):
    """What a student would get: two batches are always under way."""
    answers = [source.ask(batch, requests) for batch in several]
    return [answer.result() for answer in answers]


def the_same(one, other):
    return all(
        a.rows == b.rows
        and a.tensors.keys() == b.tensors.keys()
        and all(map(torch.equal, a.tensors.values(), b.tensors.values()))
        for several, others in zip(one, other, strict=True)
        for a, b in zip(several, others, strict=True)
    )


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int16", "int8"])
def test_a_hit_and_a_miss_are_equal_and_a_full_store_asks_nobody(tmp_path, encoding):
    teacher, other = save_teacher(tmp_path), save_teacher(tmp_path, "cnn", NETS["tiny_cnn"])
    requests = TeacherRequest("wide"), TeacherRequest("cnn", True, ("tap",), None, (MAP,))
    inner = Counting(teacher, other)
    with stored(tmp_path / "store", teacher, other, inner=inner, encoding=encoding) as source:
        cold = asked(source, batches(4), *requests)
    assert inner.rows == {"wide": 96, "cnn": 96}
    assert vars(source.passes["cnn"]) == {"asked": 96, "read": 0, "computed": 96, "written": 96, "other_pixels": 0}
    with stored(tmp_path / "store", teacher, other, encoding=encoding) as source:
        warm = asked(source, batches(4), *requests)
    assert vars(source.passes["cnn"]) == {"asked": 96, "read": 96, "computed": 0, "written": 0, "other_pixels": 0}
    assert the_same(cold, warm)
    direct = asked(Counting(teacher, other), batches(4), *requests)
    assert the_same(cold, direct) == (encoding == "float32")
    assert cold[0][1].version == direct[0][1].version


def test_what_is_missing_is_asked_and_nothing_else(tmp_path):
    teacher, other = save_teacher(tmp_path), save_teacher(tmp_path, "cnn", NETS["tiny_cnn"])
    first, second = batches(2)
    with stored(tmp_path / "store", teacher, inner=Counting(teacher)) as source:
        asked(source, [replace(first)], replace(TeacherRequest("wide"), rows=(1, 3, 5, 20)))
    inner = Counting(teacher, other)
    with stored(tmp_path / "store", teacher, other, inner=inner) as source:
        asked(source, [first, second], TeacherRequest("wide"), TeacherRequest("cnn"))
    of_wide = [one.rows for one in inner.requests if one.teacher == "wide"]
    assert of_wide == [tuple(row for row in range(24) if row not in (1, 3, 5, 20)), None]
    inner = Counting(teacher, other)
    with stored(tmp_path / "store", teacher, other, inner=inner) as source:
        got = asked(source, [first], TeacherRequest("wide"), TeacherRequest("cnn", True, ("tap",)))
    assert inner.requests == [TeacherRequest("cnn", False, ("tap",))], "one new tap"
    assert the_same(
        got, asked(Counting(teacher, other), [first], TeacherRequest("wide"), TeacherRequest("cnn", True, ("tap",)))
    )


def test_a_row_that_is_under_way_or_twice_in_a_batch_is_not_asked_again(tmp_path):
    teacher, (batch,) = save_teacher(tmp_path), batches(1)
    rows = [0, 1, 1, 2, 0, 3]
    twice = replace(
        batch,
        ids=batch.ids[rows],
        views=batch.views[rows],
        inputs={"image": batch.inputs["image"][rows]},
        labels=batch.labels[rows],
    )
    inner = Counting(teacher)
    with stored(tmp_path / "store", teacher, inner=inner) as source:
        got = asked(source, [twice, batch, twice], TeacherRequest("wide"))
        assert inner.rows == {"wide": 24} and inner.requests[0].rows == (0, 1, 3, 5)
    assert torch.equal(got[0][0].logits, got[1][0].logits[rows]) and torch.equal(got[2][0].logits, got[0][0].logits)
    assert vars(source.passes["wide"]) == {"asked": 36, "read": 12, "computed": 24, "written": 24, "other_pixels": 0}


def test_other_pixels_are_a_miss_that_is_counted_and_then_both_are_known(tmp_path):
    teacher, (batch,) = save_teacher(tmp_path), batches(1)
    images = batch.inputs["image"].clone()
    images[5, 0, 0, 0] ^= 1
    edited = replace(batch, inputs={"image": images})
    inner = Counting(teacher)
    with stored(tmp_path / "store", teacher, inner=inner) as source:
        asked(source, [batch], TeacherRequest("wide"))
        (got,) = asked(source, [edited], TeacherRequest("wide"))
    assert inner.requests[1].rows == (5,) and source.passes["wide"].other_pixels == 1
    assert torch.equal(got[0].logits, asked(Counting(teacher), [edited], TeacherRequest("wide"))[0][0].logits)
    with stored(tmp_path / "store", teacher) as source:
        both = asked(source, [batch, edited], TeacherRequest("wide"))
    assert torch.equal(both[1][0].logits, got[0].logits) and not torch.equal(both[0][0].logits, got[0].logits)


def test_what_is_under_way_for_other_pixels_is_no_answer_for_these(tmp_path):
    teacher, (batch,) = save_teacher(tmp_path), batches(1)
    edited = replace(batch, inputs={"image": batch.inputs["image"] ^ 1})
    with stored(tmp_path / "store", teacher, inner=Counting(teacher)) as source:
        (first,), (second,) = asked(source, [batch, edited], TeacherRequest("wide"))
    alone = [asked(Counting(teacher), [one], TeacherRequest("wide"))[0][0].logits for one in (batch, edited)]
    assert torch.equal(first.logits, alone[0]) and torch.equal(second.logits, alone[1])


def test_a_teacher_that_judged_other_pixels_is_refused_and_nothing_of_it_is_kept(tmp_path):
    teacher, (batch,) = save_teacher(tmp_path), batches(1)

    class Elsewhere(Counting):
        """Builds its own pixels, and says which."""

        def ask(self, batch, request):
            knowledge = super().ask(batch, request).result()
            return Given([replace(one, digests=batch.digests + np.uint64(1)) for one in knowledge])

    with (
        stored(tmp_path / "store", teacher, inner=Elsewhere(teacher)) as source,
        pytest.raises(KnowledgeError, match=r"^teacher 'wide' judged other pixels than the student sees"),
    ):
        asked(source, [batch], TeacherRequest("wide"))
    assert source.passes["wide"].written == 0 and not list((tmp_path / "store").rglob("*.arrow"))


def test_where_nobody_can_be_asked_what_is_missing_is_named(tmp_path):
    teacher, other = save_teacher(tmp_path), save_teacher(tmp_path, "cnn", NETS["tiny_cnn"])
    with stored(tmp_path / "store", teacher, other, inner=Counting(teacher, other)) as source:
        asked(source, batches(1), TeacherRequest("wide"))
    with stored(tmp_path / "store", teacher, other) as source, pytest.raises(NotStoredError, match="cnn") as raised:
        asked(source, batches(1), TeacherRequest("wide"), TeacherRequest("cnn"))
    assert raised.value.teachers == ("cnn",)


def test_a_number_that_the_encoding_cannot_hold_is_refused_by_name(tmp_path):
    teacher = save_teacher(tmp_path, spec=replace(NETS["mlp"], input=InputSpec(std=(1e-7,))))
    source = stored(tmp_path / "store", teacher, inner=Counting(teacher), encoding="float16")
    said = r"teacher 'wide', 'logits': store: float16 ends at 65504.*store\.encodings"
    with source, pytest.raises(KnowledgeError, match=said):
        asked(source, batches(1), TeacherRequest("wide"))
    assert source.passes["wide"].written == 0


def test_other_weights_than_the_store_was_told_of_are_refused(tmp_path):
    teacher = save_teacher(tmp_path)
    (tmp_path / "later").mkdir()
    later = Counting(save_teacher(tmp_path / "later", seed=1))
    with (
        stored(tmp_path / "store", teacher, inner=later) as source,
        pytest.raises(KnowledgeError, match="its file has changed"),
    ):
        asked(source, batches(1), TeacherRequest("wide"))


HITS = {
    "another place of the weights": lambda t: replace(t, weights=t.weights),
    "more replicas": lambda t: replace(t, replicas=3, actor="together", may_be_dropped=True),
}
MISSES = {
    "other kwargs": lambda t: replace(
        t, model=replace(t.model, model=ImportSpec(t.model.model.target, {**t.model.model.kwargs, "num_classes": 10}))
    ),
    "another input": lambda t: replace(t, model=replace(t.model, input=InputSpec(mean=(0.1,)))),
    "another precision": lambda t: replace(t, precision="bf16"),
    "another chunk": lambda t: replace(t, chunk=64),
    "other classes": lambda t: replace(t, class_map=tuple(range(9, -1, -1))),
}


@pytest.mark.parametrize("change", HITS)
def test_what_knowledge_does_not_depend_on_hits(tmp_path, change):
    teacher = save_teacher(tmp_path)
    with stored(tmp_path / "store", teacher, inner=Counting(teacher)) as source:
        asked(source, batches(2), TeacherRequest("wide"))
    (tmp_path / "elsewhere").mkdir()
    changed = HITS[change](save_teacher(tmp_path / "elsewhere"))
    with stored(tmp_path / "store", changed) as source:
        asked(source, batches(2), TeacherRequest("wide"))


@pytest.mark.parametrize("change", MISSES)
def test_what_a_teacher_depends_on_misses(tmp_path, change):
    teacher = save_teacher(tmp_path)
    with stored(tmp_path / "store", teacher, inner=Counting(teacher)) as source:
        asked(source, batches(1), TeacherRequest("wide"))
    changed = MISSES[change](teacher)
    inner = Counting(changed)
    with stored(tmp_path / "store", changed, inner=inner) as source:
        asked(source, batches(1), TeacherRequest("wide"))
    assert inner.rows == {"wide": 24}


def test_students_are_the_same_with_and_without_whatever_the_store_holds(tmp_path):
    teacher = save_teacher(tmp_path)
    spec = student([teacher], [SOFT], epochs=3)
    plain = trained(spec, tmp_path / "plain")
    for start in ("empty", "half", "full"):
        inner = Counting(teacher)
        if start == "half":
            with stored(tmp_path / "half", teacher, inner=Counting(teacher)) as source:
                asked(source, batches(2), TeacherRequest("wide"))
        with stored(tmp_path / ("empty" if start == "full" else start), teacher, inner=inner) as source:
            assert trained(spec, tmp_path / f"run-{start}", source) == plain, start
        assert inner.rows["wide"] == {"empty": 192, "half": 144, "full": 0}[start], "three epochs, two views"
