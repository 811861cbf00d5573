"""The parts of the benchmark of stores: TinyViT's format, what arithmetic allows, errors of a loss, others' rows."""

import numpy as np
import pytest
import torch

from actors.inputs import prepare
from actors.specs import ImportSpec, InputSpec, ModelSpec, TeacherSpec
from actors.weights import weights_as_bytes
from benchmarks.encodings import Case, Measured, formats, relative_errors, smallest_error, synthetic
from benchmarks.in_process import normalised
from benchmarks.peers import Adapted, order_of
from benchmarks.tinyvit import SMALLEST, TinyVit
from benchmarks.whole_runs import first_allowed, second_allowed


def test_the_bytes_of_tinyvit():
    assert TinyVit(1000).bytes_per_row == 404
    assert TinyVit(100).bytes_per_row == 404
    assert TinyVit(10).bytes_per_row == 44


def test_tinyvit_keeps_the_largest_and_spreads_the_rest_evenly(monkeypatch):
    monkeypatch.setattr("benchmarks.tinyvit.K", 2)
    probabilities = torch.tensor([[0.125, 0.5, 0.0625, 0.25, 0.0625]])
    tinyvit = TinyVit(5)

    values, classes = tinyvit.encode(probabilities.log())
    decoded = tinyvit.decode(values, classes)

    assert (values.dtype, classes.dtype) == (torch.float16, torch.int16)
    assert classes.tolist() == [[1, 3]] and values.tolist() == [[0.5, 0.25]]
    assert decoded.exp()[0].tolist() == pytest.approx([0.25 / 3, 0.5, 0.25 / 3, 0.25, 0.25 / 3])


def test_tinyvit_of_all_classes_keeps_them_all_and_never_gives_infinity():
    tinyvit = TinyVit(3)
    decoded = tinyvit.decode(*tinyvit.encode(torch.tensor([[100.0, 0.0, -100.0], [1.0, 1.0, 1.0]])))

    assert decoded[0].exp().tolist() == pytest.approx([1.0, SMALLEST, SMALLEST])
    assert decoded[1].exp().tolist() == pytest.approx([1 / 3] * 3, rel=1e-3)


def test_what_arithmetic_allows():
    assert first_allowed(9.0, 1.0, epochs=20, num_views=4) == 200 / 56
    assert first_allowed(9.0, 1.0, epochs=3, num_views=4) == 1, "no view is seen twice"
    assert second_allowed(9.0, 1.0) == 10


def test_an_error_is_a_part_of_the_mean_loss():
    teacher, student = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.zeros(2, 2)
    case = Case("by hand", teacher, student)

    assert relative_errors(case, teacher) == {1.0: 0.0, 2.0: 0.0, 4.0: 0.0}
    assert relative_errors(case, teacher + 5) == pytest.approx({1.0: 0.0, 2.0: 0.0, 4.0: 0.0}, abs=1e-12)
    assert relative_errors(case, student) == pytest.approx({1.0: 1.0, 2.0: 1.0, 4.0: 1.0}), "no loss is left"


def test_only_encodings_with_fewer_bytes_count():
    case = Case("by hand", torch.zeros(1, 10), torch.zeros(1, 10))
    theirs, *ours = [
        Measured("by hand", 10, name, size, None, {1.0: error})
        for name, size, error in (("theirs", 44, 0.1), ("small", 36, 0.3), ("smaller", 34, 0.2), ("large", 56, 0.0))
    ]
    goal = smallest_error(case, ours, theirs, 1.0)

    assert goal.ratio.of_medians == pytest.approx(2.0) and not goal.met
    assert "smaller, 34 bytes" in goal.what
    assert not any(one.beats(theirs, 1.0) for one in ours)


def test_the_bytes_of_our_encodings_are_those_of_the_files():
    case = synthetic("synthetic, peaked", 100, 64)
    by_name = {one.name: one for one in formats(100)}

    assert by_name["float16"].bytes_per_row(case.teacher) == 16 + 200
    assert by_name["int8"].bytes_per_row(case.teacher) == 16 + 100 + 4
    assert by_name["int16"].bytes_per_row(case.teacher) == 16 + 200 + 4
    assert by_name["top 8, float16"].bytes_per_row(case.teacher) == 3 * 16 + 16 + 16 + 2, "three files"
    for one in formats(100):
        in_file = one.bytes_in_files(case.teacher, 20_000)
        assert one.bytes_per_row(case.teacher) == pytest.approx(in_file, abs=1), one.name
    assert torch.equal(by_name["float32"].decoded(case.teacher), case.teacher)


def test_synthetic_logits_are_as_peaked_as_their_name():
    peaked, flat = (synthetic(f"synthetic, {how}", 1000, 64).teacher for how in ("peaked", "flat"))
    largest = [float(one.softmax(dim=1).amax(dim=1).mean()) for one in (peaked, flat)]
    assert largest[0] > 1.5 * largest[1]


class SomeViews:
    """A demo of four samples, in two views."""

    num_views = 2

    class Seen:
        def __init__(self, ids, view):
            self.ids, self.views = np.array(ids), np.full(len(ids), view, dtype=np.int32)

    def batches(self, epoch):
        return [self.Seen([3, 0], epoch % 2), self.Seen([1, 2], epoch % 2)]


def test_others_see_the_rows_that_a_student_sees():
    assert order_of(SomeViews(), 3) == [6, 0, 2, 4, 7, 1, 3, 5, 6, 0, 2, 4]


def test_others_give_a_teacher_the_pixels_that_it_wants(tmp_path):
    model = ImportSpec("actors.models:plain_cnn", {"width": 4, "channels": 3})
    given = InputSpec(size=32, channels=3, mean=(0.286,), std=(0.353,))
    built, file = model.build(), tmp_path / "weights.safetensors"
    file.write_bytes(weights_as_bytes(built))
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    expected = built.eval()(prepare({"image": images}, given))

    adapted = Adapted(TeacherSpec("plain", ModelSpec(model, given), str(file)))

    assert torch.allclose(adapted(normalised(images)), expected, atol=1e-5)
