"""The parts of the benchmarks: teachers that wait, widths that take a given time, what a process has in memory."""

import mmap

import psutil
import pytest
import torch

from actors.knowledge import LOGITS, TeacherRequest
from actors.teacher import Teacher
from benchmarks.calibration import usual_seconds, width_for
from benchmarks.soak import changes, own_bytes
from benchmarks.waiting import waiting_teacher

MAPS = {"first": (4, 3, 3), "second": (8, 2, 2)}


def answer(spec, rows: int):
    inputs = {"image": torch.zeros(rows, 1, 8, 8, dtype=torch.uint8)}
    return Teacher(spec).answer(inputs, TeacherRequest(spec.name, taps=tuple(MAPS)))


def test_a_waiting_teacher_waits_once_for_a_batch(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("benchmarks.waiting.time.sleep", waits.append)
    spec = waiting_teacher("slow", tmp_path, answer_s=0.05, rows=16, num_classes=5, features=MAPS)

    knowledge = answer(spec, 16)

    assert waits == [0.05]
    assert spec.shapes == {LOGITS: (5,), **MAPS}
    assert {name: tuple(one.shape[1:]) for name, one in knowledge.tensors.items()} == spec.shapes


def test_a_waiting_teacher_says_the_same_of_all_and_other_teachers_something_else(tmp_path):
    spec = waiting_teacher("one", tmp_path, answer_s=0, rows=16, features=MAPS)
    whole, part = answer(spec, 16), answer(spec, 5)

    for name in (LOGITS, *MAPS):
        assert torch.equal(part.tensors[name], whole.tensors[name][:5]), name
        assert whole.tensors[name].std() > 0.5, "no constant, no zeros"
    other = answer(waiting_teacher("other", tmp_path, answer_s=0, rows=16, features=MAPS, seed=1), 16)
    assert not torch.equal(other.tensors[LOGITS], whole.tensors[LOGITS])


@pytest.mark.parametrize(("target_s", "width"), [(0.030, 30), (0.0301, 30), (100.0, 255), (1e-9, 3)])
def test_the_width_that_takes_a_given_time_or_comes_nearest(target_s, width):
    found = width_for(target_s, lambda width: width / 1000)
    assert abs(found / width - 1) < 0.05


def test_few_widths_are_tried():
    tried = []
    width_for(0.0777, lambda width: tried.append(width) or width / 1000)
    assert len(tried) <= 8 and len(set(tried)) == len(tried)


def test_what_a_step_takes_leaves_out_the_first_ones(monkeypatch):
    now, durations = [0.0], iter([100, 100, 3, 1, 2, 9, 2])
    monkeypatch.setattr("benchmarks.calibration.time.perf_counter", lambda: now[0])

    def step():
        now[0] += next(durations)

    assert usual_seconds(step) == 2


def test_own_memory_is_what_a_process_has_filled_and_shares_with_nobody():
    process, size = psutil.Process(), 60_000_000
    before = own_bytes(process)

    own = bytearray(b"x") * size
    assert own_bytes(process) - before == pytest.approx(size, rel=0.1)
    with mmap.mmap(-1, size) as shared:
        shared.write(own)
        assert own_bytes(process) - before == pytest.approx(size, rel=0.1), "counted once, by the object store"


def test_a_change_is_a_part_of_what_there_was():
    assert changes({"driver": 100, "replica": 200}, {"driver": 104, "replica": 150}) == pytest.approx(
        {"driver": 0.04, "replica": -0.25}
    )
