"""`prefetched`, the only place that knows about order, and what it refuses of a source."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.errors import KnowledgeError
from actors.knowledge import Knowledge, TeacherRequest
from actors.sources import Given, LocalTeachers, prefetched
from actors.teacher import Teacher
from tests.unit.digits_setup import batches, model, save_teacher

LOGITS = (TeacherRequest("wide"),)


class Recording:
    """Writes down who asks and who waits for which batch, by its step."""

    likes_ahead = 1

    def __init__(self) -> None:
        self.events: list[str] = []

    def ask(self, batch, request):
        step = batch.position.step
        self.events.append(f"ask {step}")
        knowledge = [Knowledge(one.teacher, torch.full((len(batch), 2), float(step))) for one in request]
        return Later(self.events, step, knowledge)


class Later(Given):
    def __init__(self, events, step, knowledge) -> None:
        super().__init__(knowledge)
        self.events, self.step = events, step

    def result(self):
        self.events.append(f"result {self.step}")
        return super().result()


class Saying:
    """Answers every batch by what a function makes of it."""

    likes_ahead = 1

    def __init__(self, answer) -> None:
        self.answer = answer

    def ask(self, batch, request):
        return Given([self.answer(batch)])


class Broken:
    """A teacher with two bad rows."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def answer(self, inputs, request):
        knowledge = self.teacher.answer(inputs, request)
        knowledge.logits[[1, 5], 3] = float("inf")
        return knowledge


def steps(source, count, window):
    return [
        (batch.position.step, int(known[0].logits[0, 0]))
        for batch, known in prefetched(source, batches(count), lambda batch: LOGITS, window)
    ]


@pytest.mark.parametrize("window", [0, 1, 2, 3, 9])
def test_every_batch_comes_once_in_order_with_its_own_knowledge(window):
    assert steps(Recording(), 4, window) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert steps(Recording(), 0, window) == []


def test_exactly_the_window_is_under_way_while_a_batch_is_worked_on():
    source = Recording()
    stream = prefetched(source, batches(4), lambda batch: LOGITS, 2)
    assert source.events == [], "nothing is asked before it is wanted"
    next(stream)
    assert source.events == ["ask 0", "ask 1", "ask 2", "result 0"]
    next(stream)
    assert source.events[4:] == ["ask 3", "result 1"]
    next(stream)
    assert source.events[6:] == ["result 2"]
    assert [batch.position.step for batch, _ in stream] == [3] and source.events[7:] == ["result 3"]


def test_a_window_of_0_asks_one_at_a_time():
    source = Recording()
    for batch, _ in prefetched(source, batches(3), lambda batch: LOGITS, 0):
        source.events.append(f"step {batch.position.step}")
    assert source.events == [f"{what} {step}" for step in range(3) for what in ("ask", "result", "step")]


def test_each_batch_is_asked_about_what_it_needs():
    wanted = {0: LOGITS, 1: (), 2: (TeacherRequest("wide", False, ("pool",)),)}
    asked = {}

    class Noting(Recording):
        def ask(self, batch, request):
            asked[batch.position.step] = request
            return super().ask(batch, request)

    list(prefetched(Noting(), batches(3), lambda batch: wanted[batch.position.step], 1))
    assert asked == wanted


def test_a_teacher_that_is_asked_about_some_rows_answers_about_these(tmp_path):
    source = LocalTeachers.load([save_teacher(tmp_path)])
    some = TeacherRequest("wide", rows=(20, 3))
    ((batch, [whole]),) = prefetched(source, batches(1), lambda batch: LOGITS, 0)
    ((_, [part]),) = prefetched(source, batches(1), lambda batch: (some,), 0)
    assert whole.rows is None and part.rows == (20, 3)
    torch.testing.assert_close(part.logits, whole.logits[[20, 3]])

    mistaken = Saying(lambda batch: replace(whole, logits=whole.logits[:2], digests=batch.digests[:2]))
    with pytest.raises(KnowledgeError, match=f"sample ids {batch.ids[20]}, {batch.ids[3]} in view"):
        list(prefetched(mistaken, batches(1), lambda batch: (some,), 0))


def test_time_is_told_apart_into_data_asking_and_waiting():
    shares = []

    @contextmanager
    def measure(share):
        shares.append(share)
        yield

    list(prefetched(Recording(), batches(1), lambda batch: LOGITS, 0, measure))
    assert shares == ["data", "ask", "wait", "data"]


def test_values_that_are_not_finite_name_teacher_and_ids(tmp_path):
    spec = save_teacher(tmp_path)
    teacher = Teacher(spec)
    broken = LocalTeachers({"wide": Broken(teacher)})
    (batch,) = batches(1)
    with pytest.raises(KnowledgeError, match=f"'wide' sent NaN or infinite values, .* {batch.ids[1]}, {batch.ids[5]};"):
        list(prefetched(broken, [batch], lambda batch: LOGITS, 0))


@pytest.mark.parametrize("shape", [(24,), (24, 1), (24, 2, 3, 4)])
def test_a_feature_may_have_any_rank(shape):
    source = Saying(lambda batch: Knowledge("wide", None, {"tap": torch.zeros(shape)}))
    assert len(list(prefetched(source, batches(2), lambda batch: LOGITS, 1))) == 2


def test_other_pixels_than_the_students_name_the_ids_that_differ():
    (batch,) = batches(1)
    digests = batch.digests.copy()
    digests[[0, 7]] += np.uint64(1)
    with pytest.raises(KnowledgeError) as refusal:
        source = Saying(lambda batch: Knowledge("wide", torch.zeros(24, 10), digests=digests))
        list(prefetched(source, [batch], lambda batch: LOGITS, 2))
    assert str(refusal.value) == (
        f"teacher 'wide' judged other pixels than the student sees, sample ids {batch.ids[0]}, {batch.ids[7]} in "
        "view 0; data.views must depend on nothing but its dataset, id and generator"
    )


def test_local_teachers_answer_in_the_order_of_the_request(tmp_path):
    specs = [
        save_teacher(tmp_path, name, model(width=8, taps={"pool": "pool"}), seed=i) for i, name in enumerate("abc")
    ]
    teachers = LocalTeachers.load(specs)
    (batch,) = batches(1)
    request = (TeacherRequest("c", False, ("pool",)), TeacherRequest("a"))
    first, second = teachers.ask(batch, request).result()
    assert (first.teacher, first.logits, list(first.features)) == ("c", None, ["pool"])
    assert second.teacher == "a" and second.logits is not None and second.features == {}
    assert first.version != second.version
    assert teachers.ask(batch, ()).result() == []
