"""The pool on a real cluster: the same student as with teachers in its process, whatever happens to replicas."""

import os
import signal
from dataclasses import replace

import numpy as np
import psutil
import pytest
import ray
import torch

from actors.checkpoints import Checkpoints
from actors.data import BatchSampler, SharedDataset, training_rows
from actors.datasets import Digits
from actors.errors import KnowledgeError, TeacherLostError
from actors.knowledge import LOGITS, Position, TeacherRequest
from actors.models import mlp, tiny_cnn
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.sources import LocalTeachers, prefetched
from actors.specs import (
    DataSpec,
    ImportSpec,
    InputSpec,
    LossSpec,
    ModelSpec,
    RecipeSpec,
    StudentSpec,
    TapPair,
    TeacherSpec,
)
from actors.storage import Folder
from actors.student import StudentTrainer
from actors.weights import weights_as_bytes
from tests.cluster.nets import SeekingDigits, Stateful
from tests.cluster.runs import wait_for

DATA = DataSpec(
    train=ImportSpec("actors.datasets:Digits"),
    test=ImportSpec("actors.datasets:Digits", {"train": False}),
    slices={"student": 240, "validation": 100},
    views=ImportSpec("actors.views:crop_and_flip", {"padding": 1}),
    num_views=2,
)

LARGE_BYTES = 400_000_000


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two teachers of two families and sizes, as they were drawn."""
    folder = Folder(str(tmp_path_factory.mktemp("teachers")))
    torch.manual_seed(1)
    folder.write("mlp.safetensors", weights_as_bytes(mlp(width=32, depth=2)))
    folder.write("cnn.safetensors", weights_as_bytes(tiny_cnn(channels=3, width=8)))
    specs = {
        "mlp": ModelSpec(ImportSpec("actors.models:mlp", {"width": 32, "depth": 2}), taps={"hidden": "stem"}),
        "cnn": ModelSpec(
            ImportSpec("actors.models:tiny_cnn", {"channels": 3, "width": 8}),
            InputSpec(size=16, channels=3, mean=(0.3,), std=(0.4,)),
            taps={"hidden": "stage2"},
        ),
    }
    shapes = {"mlp": {LOGITS: (10,), "hidden": (32,)}, "cnn": {LOGITS: (10,), "hidden": (16, 4, 4)}}
    return tuple(
        TeacherSpec(name, model, folder.file(f"{name}.safetensors"), shapes[name]) for name, model in specs.items()
    )


@pytest.fixture(scope="module")
def dataset(cluster):
    return ray.put(SharedDataset.of(Digits()))


@pytest.fixture
def start(dataset):
    """Starts pools that are gone after the test."""
    pools = []

    def started(specs, inputs="sent", answer_timeout_s=60.0, dataset=dataset, data=DATA) -> TeacherPool:
        pools.append(TeacherPool.start(specs, dataset, data, PoolSettings(inputs, answer_timeout_s)))
        return pools[-1]

    yield started
    for pool in pools:
        pool.stop()


def student(teachers) -> StudentSpec:
    names = tuple(teacher.name for teacher in teachers)
    losses = (
        LossSpec("soft", ImportSpec("actors.losses:kd_loss"), "logits", teachers=names),
        LossSpec("hint", ImportSpec("actors.losses:hint_loss"), TapPair("middle", "hidden"), teachers=("cnn",)),
    )
    return StudentSpec(
        name="student",
        model=ModelSpec(ImportSpec("tests.cluster.nets:restless"), taps={"middle": "2"}),
        recipe=RecipeSpec(3, 40, 0, ImportSpec("torch.optim:SGD", {"lr": 0.05, "momentum": 0.9})),
        data=DATA,
        labelled="student",
        unlabelled=None,
        validation="validation",
        num_classes=10,
        losses=losses,
        teachers=teachers,
    )


def trained(teachers, source, folder) -> bytes:
    trainer = StudentTrainer(student(teachers), Digits(), source, Checkpoints(Folder(str(folder))))
    trainer.run()
    return trainer.exported()


def own_bytes(pid: int) -> int:
    """Memory of a process that it shares with no other."""
    return psutil.Process(pid).memory_full_info().uss


def pids(pool: TeacherPool, teacher: str) -> list[int]:
    return [ray.get(actor.pid.remote()) for actor in pool.members.replicas[teacher].values()]


def test_the_pool_gives_the_same_student_as_teachers_in_the_process(teachers, start, tmp_path):
    replicated = tuple(replace(teacher, replicas=2) for teacher in teachers)

    pooled = trained(teachers, start(replicated), tmp_path / "pooled")

    assert pooled == trained(teachers, LocalTeachers.load(teachers), tmp_path / "local")


def test_knowledge_is_bit_equal_to_the_teachers_own(teachers, start):
    batch = sampler().batch(training_rows(Digits(), DATA), Position(1, 2))
    request = tuple(TeacherRequest(teacher.name, taps=("hidden",)) for teacher in teachers)

    sent = start(teachers).ask(batch, request).result()

    for one, own in zip(sent, LocalTeachers.load(teachers).ask(batch, request).result(), strict=True):
        assert one.teacher == own.teacher and one.version == own.version
        assert np.array_equal(one.digests, batch.digests)
        assert torch.equal(one.logits, own.logits) and torch.equal(one.features["hidden"], own.features["hidden"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_replica_that_dies_or_hangs_changes_nothing(teachers, start, tmp_path, number):
    replicated = tuple(replace(teacher, replicas=2) for teacher in teachers)
    pool = start(replicated, answer_timeout_s=60.0 if number == signal.SIGKILL else 3.0)
    struck = Striking(pool, at_batch=5, pid=pids(pool, "cnn")[0], number=number)

    survived = trained(teachers, struck, tmp_path / "struck")

    assert struck.done
    wait_for(lambda: not psutil.pid_exists(struck.pid) or psutil.Process(struck.pid).status() == psutil.STATUS_ZOMBIE)
    assert len(pool.members.replicas["cnn"]) == 1 and len(pool.members.replicas["mlp"]) == 2
    assert survived == trained(teachers, LocalTeachers.load(teachers), tmp_path / "local")


def test_a_teacher_without_replicas_ends_the_run_with_its_cause(teachers, start, tmp_path):
    pool = start(teachers)
    struck = Striking(pool, at_batch=5, pid=pids(pool, "mlp")[0], number=signal.SIGKILL)

    with pytest.raises(TeacherLostError, match=r"'mlp' has 0 replicas left; replica 0: .*died"):
        trained(teachers, struck, tmp_path)


def test_bad_knowledge_names_teacher_ids_and_tap(teachers, start, tmp_path):
    model = mlp(width=32, depth=2)
    torch.nn.init.constant_(model.head.weight, float("nan"))
    Folder(str(tmp_path)).write("nan.safetensors", weights_as_bytes(model))
    broken = (replace(teachers[0], weights=str(tmp_path / "nan.safetensors")), teachers[1])

    with pytest.raises(KnowledgeError, match=r"'mlp' sent NaN or infinite values, tap 'logits', sample ids \d+, \d+"):
        trained(teachers, start(broken), tmp_path / "run")


def test_a_view_that_is_not_pure_is_caught_by_its_digests(teachers, dataset):
    impure = replace(DATA, views=ImportSpec("tests.cluster.nets:impure_view"))
    pool = TeacherPool.start(teachers[:1], dataset, impure, answer_timeout_s=60.0)
    batches = [sampler().batch(training_rows(Digits(), impure), Position())]

    with pytest.raises(KnowledgeError, match=r"judged other pixels than the student sees, sample ids \d+"):
        list(prefetched(pool, batches, lambda batch: (TeacherRequest("mlp"),), window=1))
    pool.stop()


def test_neither_a_teacher_nor_a_dataset_need_be_safe_for_threads(start, tmp_path):
    torch.manual_seed(0)
    Folder(str(tmp_path)).write("stateful.safetensors", weights_as_bytes(Stateful()))
    spec = ModelSpec(ImportSpec("tests.cluster.nets:Stateful"))
    teacher = TeacherSpec("stateful", spec, str(tmp_path / "stateful.safetensors"), {LOGITS: (10,)})
    pool = start((teacher,), dataset=ray.put(SharedDataset.of(SeekingDigits())))
    batches = [sampler().batch(training_rows(Digits(), DATA), Position(0, step)) for step in range(6)]
    request = (TeacherRequest("stateful"),)

    sent = list(prefetched(pool, batches, lambda batch: request, window=6))

    local = LocalTeachers.load((teacher,))
    for batch, [knowledge] in sent:
        assert torch.equal(knowledge.logits, local.ask(batch, request).result()[0].logits)


def test_errors_of_a_teacher_reach_the_student_with_their_text(teachers, start):
    batch = sampler().batch(training_rows(Digits(), DATA), Position())
    with pytest.raises(TeacherLostError, match="no tap is called 'nowhere'"):
        start(teachers[:1]).ask(batch, (TeacherRequest("mlp", taps=("nowhere",)),)).result()


def test_replicas_of_a_node_share_one_dataset(teachers, start):
    large = Digits()
    large.ballast = np.ones(LARGE_BYTES, dtype=np.uint8)
    spec = (replace(teachers[0], replicas=2),)

    small = [own_bytes(pid) for pid in pids(start(spec), "mlp")]
    shared = [own_bytes(pid) for pid in pids(start(spec, dataset=ray.put(SharedDataset.of(large))), "mlp")]

    assert max(shared) < min(small) + LARGE_BYTES / 2


class Striking:
    """A pool one of whose processes is sent a signal just before a batch is asked for."""

    def __init__(self, pool: TeacherPool, at_batch: int, pid: int, number: int) -> None:
        self._pool, self._at_batch, self.pid, self._number = pool, at_batch, pid, number
        self._asked = 0
        self.done = False

    def ask(self, batch, request):
        self._asked += 1
        if self._asked == self._at_batch:
            os.kill(self.pid, self._number)
            self.done = True
        return self._pool.ask(batch, request)


def sampler() -> BatchSampler:
    return BatchSampler(np.arange(240), np.zeros(0, dtype=np.int64), 40, 0, 2)
