"""A replica, as plain Python: what it answers is what its teachers say in process, however the pixels come."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.data import SharedDataset
from actors.errors import KnowledgeError
from actors.knowledge import TeacherRequest, unpack
from actors.pool.members import by_host
from actors.pool.replica import Asked, Reply, TeacherActor
from actors.sources import LocalTeachers
from actors.specs import TeacherSpec
from tests.unit.digits_setup import DATA, batches, digits, model, save_teacher


@pytest.fixture
def specs(tmp_path) -> list[TeacherSpec]:
    return [save_teacher(tmp_path, "wide"), save_teacher(tmp_path, "small", model("actors.models:tiny_cnn"), seed=1)]


def pixels_of(batch):
    return {name: tensor.numpy() for name, tensor in batch.inputs.items()}


def asked(batch, *requests) -> Asked:
    return Asked(batch.ids, batch.views, requests)


def ask(replica: TeacherActor, several: list[Asked], *parcels) -> Reply:
    return Reply(*replica.answer(pickle.dumps(several), *parcels))


REQUESTS = (TeacherRequest("small"), TeacherRequest("wide", rows=(20, 3)))


@pytest.mark.parametrize("inputs", ["sent", "derived"])
def test_one_call_about_several_batches_of_several_teachers(specs, inputs):
    replica = TeacherActor(specs, DATA, SharedDataset.of(digits()) if inputs == "derived" else None)
    several = batches(3)
    pixels = [pixels_of(batch) for batch in several]
    wanted = [replace(asked(batch, *REQUESTS), pixels=(0, place)) for place, batch in enumerate(several)]

    reply = ask(replica, wanted, *([pixels] if inputs == "sent" else []))

    local = LocalTeachers.load(specs)
    for batch, answers in zip(several, reply.answers, strict=True):
        for packed, own in zip(answers, local.ask(batch, REQUESTS).result(), strict=True):
            known = unpack(packed)
            assert known.teacher == own.teacher and known.version == own.version
            assert torch.equal(known.logits, own.logits)
        whole, part = map(unpack, answers)
        if inputs == "derived":
            assert np.array_equal(whole.digests, batch.digests)
            assert np.array_equal(part.digests, batch.digests[[20, 3]])
        else:
            assert whole.digests is None and part.digests is None, "they were the student's own pixels"


def test_small_pixels_come_as_bytes_and_large_ones_as_arrays(specs):
    replica, (small, large) = TeacherActor(specs, DATA, None), batches(2)

    several = [asked(large, *REQUESTS), replace(asked(small, *REQUESTS), pixels=(1, 0))]
    reply = ask(replica, several, [pixels_of(large)], pickle.dumps([pixels_of(small)]))

    local = LocalTeachers.load(specs)
    for batch, answers in zip((large, small), reply.answers, strict=True):
        assert torch.equal(unpack(answers[0]).logits, local.ask(batch, REQUESTS).result()[0].logits)


def test_it_says_how_long_it_took_and_how_much_it_sent(specs):
    replica = TeacherActor(specs, DATA, None)
    [batch] = batches(1)

    reply = ask(replica, [asked(batch, *REQUESTS)], [pixels_of(batch)])

    small, wide = reply.served(7, retries=2)
    assert (small.teacher, small.replica, small.rows, small.num_bytes) == ("small", "7", 24, 24 * 10 * 4)
    assert (wide.teacher, wide.rows, wide.num_bytes) == ("wide", 2, 2 * 10 * 4)
    assert (small.retries, wide.retries) == (2, 0), "the retries are of the call"
    assert 0 < reply.service_s == pytest.approx(small.service_s + wide.service_s)
    assert small.began_s + small.service_s <= wide.began_s + 0.01
    assert reply.present == 0 and replica.state() == (0, pytest.approx(reply.service_s), 1)


def test_what_cannot_be_learned_from_names_the_sample_ids(tmp_path):
    spec = save_teacher(tmp_path, spec=model("tests.unit.test_replica:Sour"))
    [batch] = batches(1)
    with pytest.raises(KnowledgeError, match=f"'wide' sent NaN .* sample ids {batch.ids[20]}, {batch.ids[3]};"):
        ask(TeacherActor([spec], DATA, None), [asked(batch, TeacherRequest("wide", rows=(20, 3)))], [pixels_of(batch)])


def test_who_asks_first_is_answered_first(specs):
    replica = TeacherActor(specs, DATA, None)
    [batch] = batches(1)

    def call(_: int) -> float:
        return ask(replica, [asked(batch, *REQUESTS)], [pixels_of(batch)]).spans[0][0][0]

    with ThreadPoolExecutor(8) as like_ray:
        began_s = list(like_ray.map(call, range(200)))
    passed_over = [sum(later < mine for later in began_s[number + 1 :]) for number, mine in enumerate(began_s)]
    assert max(passed_over) < 4, "only while threads take them up may calls swap places"


def test_a_failed_call_is_no_longer_present(specs):
    replica = TeacherActor(specs, DATA, None)
    [batch] = batches(1)
    with pytest.raises(ValueError, match="nowhere"):
        ask(replica, [asked(batch, TeacherRequest("wide", taps=("nowhere",)))], [pixels_of(batch)])
    assert replica.state()[0] == 0


def test_teachers_of_one_actor_live_together(specs):
    wide, small = specs
    together = [replace(wide, actor="both"), replace(small, actor="both"), replace(small, name="own")]
    hosts = by_host(together)
    assert {host: [spec.name for spec in group] for host, group in hosts.items()} == {
        "both": ["wide", "small"],
        "own": ["own"],
    }


class Sour(torch.nn.Module):
    """A teacher that says nothing usable."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((10,), float("nan")))

    def forward(self, inputs):
        return inputs.flatten(1)[:, :10] * self.scale
