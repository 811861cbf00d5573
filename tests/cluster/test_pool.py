"""The pool on a real cluster: the same student as with teachers in its process, whatever happens to replicas."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import torch

import actors.pool.keeper
from actors.checkpoints import Checkpoints
from actors.data import BatchSampler, SharedDataset, training_rows
from actors.datasets import Digits
from actors.errors import KnowledgeError, TeacherLostError
from actors.knowledge import LOGITS, Position, TeacherRequest
from actors.models import mlp, tiny_cnn
from actors.pool.client import PoolClient
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
from benchmarks.chaos import survive
from benchmarks.faults import alive
from benchmarks.interposed import Interposed
from tests.cluster.nets import Fatal, SeekingDigits, Slow, Stateful
from tests.cluster.runs import ROOT, wait_for

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


@pytest.fixture(scope="module")
def undisturbed(teachers, tmp_path_factory) -> bytes:
    """The student that has its teachers in its own process."""
    return trained(teachers, LocalTeachers.load(teachers), tmp_path_factory.mktemp("local"))


def own_bytes(pid: int) -> int:
    """Memory of a process that it shares with no other."""
    return psutil.Process(pid).memory_full_info().uss


def pids_of(pool: TeacherPool, host: str) -> list[int]:
    return [pid for replica, pid in pool.pids().items() if replica.host == host]


def replicated(teachers, replicas=2, **more):
    return tuple(replace(teacher, replicas=replicas, **more) for teacher in teachers)


@pytest.mark.parametrize("how", [{"inputs": "sent"}, {"inputs": "derived"}, {"actor": "both"}], ids=str)
def test_the_pool_gives_the_same_student_as_teachers_in_the_process(teachers, start, tmp_path, undisturbed, how):
    specs = replicated(teachers, actor=how.get("actor"))
    client = PoolClient(start(specs, how.get("inputs", "sent")).handle)

    assert trained(teachers, client, tmp_path) == undisturbed


def test_knowledge_is_bit_equal_to_the_teachers_own(teachers, start):
    batch = sampler().batch(training_rows(Digits(), DATA), Position(1, 2))
    request = (TeacherRequest("mlp", taps=("hidden",)), TeacherRequest("cnn", taps=("hidden",), rows=(5, 3)))

    sent = PoolClient(start(teachers, "derived").handle).ask(batch, request).result()

    for one, own in zip(sent, LocalTeachers.load(teachers).ask(batch, request).result(), strict=True):
        assert one.teacher == own.teacher and one.version == own.version
        assert torch.equal(one.logits, own.logits) and torch.equal(one.features["hidden"], own.features["hidden"])
    assert np.array_equal(sent[0].digests, batch.digests) and np.array_equal(sent[1].digests, batch.digests[[5, 3]])


def test_whatever_happens_to_replicas_the_student_is_the_same(cluster, tmp_path):
    found = survive(tmp_path, faults=8, every=12, gap_s=1.0, seed=5)

    assert found.same and not found.left
    assert sum(found.faults.values()) == 8 and {"kill", "stop", "slow", "add"} <= set(found.faults)
    assert found.restarts >= found.faults["kill"] and found.retries > 0


def test_a_lost_replica_is_replaced_and_the_new_one_takes_up_work(teachers, start, tmp_path, undisturbed):
    pool = start(teachers)
    client = PoolClient(pool.handle)
    [killed] = pids_of(pool, "cnn")
    struck = striking(client, at_batch=5, pid=killed, number=signal.SIGKILL)

    assert trained(teachers, struck, tmp_path) == undisturbed

    [replacement] = pids_of(pool, "cnn")
    assert replacement != killed and not alive(killed)
    record = pool.chronicle.record()
    lost, serves = (text for _, host, text in record["events"][-2:])
    assert lost.startswith("replica 0 was lost: ") and serves == "replica 1 serves"
    assert record["restarts"] == {"cnn": 1} and [count for _, count in record["replicas"]["cnn"]] == [1, 0, 1]


def test_all_replicas_may_die_at_once_and_whoever_knows_only_these_finds_the_new(
    teachers, start, tmp_path, undisturbed
):
    pool = start((replace(teachers[0], replicas=4), teachers[1]))
    at_first = pool.handle
    pids = pids_of(pool, "mlp")

    def strike(batch: int) -> None:
        for pid in pids if batch == 5 else ():
            os.kill(pid, signal.SIGKILL)

    assert trained(teachers, Interposed(PoolClient(at_first), strike), tmp_path / "first") == undisturbed
    assert not set(pids) & set(pids_of(pool, "mlp"))
    assert trained(teachers, PoolClient(at_first), tmp_path / "again") == undisturbed


def test_a_replica_that_hangs_is_given_up_by_its_own_history(teachers, start, tmp_path, undisturbed):
    pool = start(teachers)
    [hanging] = pids_of(pool, "cnn")
    struck = striking(PoolClient(pool.handle), at_batch=9, pid=hanging, number=signal.SIGSTOP)

    assert trained(teachers, struck, tmp_path) == undisturbed

    assert pids_of(pool, "cnn") != [hanging]
    wait_for(lambda: not alive(hanging))


def test_a_host_that_cannot_come_back_ends_the_run_with_its_cause(teachers, start, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(Path(teachers[0].weights).read_bytes())
    pool = start((replace(teachers[0], weights=str(mine)), teachers[1]))
    struck = striking(PoolClient(pool.handle), at_batch=5, pid=pids_of(pool, "mlp")[0], number=signal.SIGKILL)
    mine.unlink()

    with pytest.raises(TeacherLostError, match=r"(?s)'mlp' has no replica left; replica 0: .*no new one .*mine"):
        trained(teachers, struck, tmp_path)


def test_a_request_that_kills_its_replicas_ends_the_run(start, tmp_path):
    Folder(str(tmp_path)).write("fatal.safetensors", weights_as_bytes(Fatal()))
    spec = ModelSpec(ImportSpec("tests.cluster.nets:Fatal"))
    pool = start((TeacherSpec("fatal", spec, str(tmp_path / "fatal.safetensors"), {LOGITS: (10,)}, replicas=2),))
    batches = [sampler().batch(training_rows(Digits(), DATA), Position(0, step)) for step in range(2)]

    with pytest.raises(TeacherLostError, match=r"'fatal': \d+ replicas were lost over one request"):
        list(prefetched(PoolClient(pool.handle), batches, lambda batch: (TeacherRequest("fatal"),), window=0))


def test_a_pool_grows_while_students_wait_and_shrinks_while_it_idles(start, tmp_path):
    Folder(str(tmp_path)).write("slow.safetensors", weights_as_bytes(Slow()))
    spec = ModelSpec(ImportSpec("tests.cluster.nets:Slow"))
    teacher = TeacherSpec("slow", spec, str(tmp_path / "slow.safetensors"), {LOGITS: (10,)}, most_replicas=2)
    pool = start((teacher,))
    rows, request = training_rows(Digits(), DATA), (TeacherRequest("slow"),)
    batches = (sampler().batch(rows, Position(0, step % 6)) for step in count())

    stream = prefetched(PoolClient(pool.handle), batches, lambda batch: request, window=None)
    wait_for(lambda: next(stream) and len(pool.members.serving["slow"]) == 2)
    wait_for(lambda: len(pool.members.serving["slow"]) == 1)

    texts = [text for _, _, text in pool.chronicle.record()["events"]]
    assert texts == ["replica 0 serves", "grows to 2", "replica 1 serves", "shrinks to 1", "replica 1 leaves"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_controller_may_die_or_hang_as_well(teachers, start, tmp_path, undisturbed, monkeypatch, number):
    pool = start(teachers)
    first, [killed] = pool.controller_pid(), pids_of(pool, "cnn")
    monkeypatch.setattr(actors.pool.keeper, "SILENT_FOR_S", 2.0)

    def strike(batch: int) -> None:
        for pid, its_number in ((first, number), (killed, signal.SIGKILL)) if batch == 5 else ():
            os.kill(pid, its_number)

    assert trained(teachers, Interposed(PoolClient(pool.handle), strike), tmp_path) == undisturbed

    assert pool.controller_pid() != first and pids_of(pool, "cnn") != [killed]
    wait_for(lambda: not alive(first))
    pool.wish("mlp", 1)
    wait_for(lambda: len(pids_of(pool, "mlp")) == 2)


def test_answers_of_another_node_are_on_their_way_before_they_are_waited_for():
    two_nodes = [sys.executable, "-m", "tests.cluster.two_nodes"]
    done = subprocess.run(two_nodes, cwd=ROOT, capture_output=True, text=True, timeout=200)
    told = "{16000000} asked twice 0 lost 0\nanother cluster False\n"
    assert done.stdout == told, done.stderr


def test_bad_knowledge_names_teacher_ids_and_tap(teachers, start, tmp_path):
    model = mlp(width=32, depth=2)
    torch.nn.init.constant_(model.head.weight, float("nan"))
    Folder(str(tmp_path)).write("nan.safetensors", weights_as_bytes(model))
    broken = (replace(teachers[0], weights=str(tmp_path / "nan.safetensors")), teachers[1])

    with pytest.raises(KnowledgeError, match=r"'mlp' sent NaN or infinite values, tap 'logits', sample ids \d+, \d+"):
        trained(teachers, PoolClient(start(broken).handle), tmp_path / "run")


def test_a_view_that_is_not_pure_is_caught_by_its_digests(teachers, start):
    impure = replace(DATA, views=ImportSpec("tests.cluster.nets:impure_view"))
    client = PoolClient(start(teachers[:1], "derived", data=impure).handle)
    batches = [sampler().batch(training_rows(Digits(), impure), Position())]

    with pytest.raises(KnowledgeError, match=r"judged other pixels than the student sees, sample ids \d+"):
        list(prefetched(client, batches, lambda batch: (TeacherRequest("mlp"),), window=1))


def test_neither_a_teacher_nor_a_dataset_need_be_safe_for_threads(start, tmp_path):
    torch.manual_seed(0)
    Folder(str(tmp_path)).write("stateful.safetensors", weights_as_bytes(Stateful()))
    spec = ModelSpec(ImportSpec("tests.cluster.nets:Stateful"))
    teacher = TeacherSpec("stateful", spec, str(tmp_path / "stateful.safetensors"), {LOGITS: (10,)})
    pool = start((teacher,), "derived", dataset=ray.put(SharedDataset.of(SeekingDigits())))
    batches = [sampler().batch(training_rows(Digits(), DATA), Position(0, step)) for step in range(6)]
    request = (TeacherRequest("stateful"),)

    sent = list(prefetched(PoolClient(pool.handle), batches, lambda batch: request, window=6))

    local = LocalTeachers.load((teacher,))
    for batch, [knowledge] in sent:
        assert torch.equal(knowledge.logits, local.ask(batch, request).result()[0].logits)


def test_errors_of_a_teacher_reach_the_student_with_their_text(teachers, start):
    batch = sampler().batch(training_rows(Digits(), DATA), Position())
    with pytest.raises(TeacherLostError, match="no tap is called 'nowhere'"):
        PoolClient(start(teachers[:1]).handle).ask(batch, (TeacherRequest("mlp", taps=("nowhere",)),)).result()


def test_replicas_of_a_node_share_one_dataset(teachers, start):
    large = Digits()
    large.ballast = np.ones(LARGE_BYTES, dtype=np.uint8)
    spec = (replace(teachers[0], replicas=2),)

    small = [own_bytes(pid) for pid in pids_of(start(spec, "derived"), "mlp")]
    shared = [
        own_bytes(pid) for pid in pids_of(start(spec, "derived", dataset=ray.put(SharedDataset.of(large))), "mlp")
    ]

    assert max(shared) < min(small) + LARGE_BYTES / 2


def striking(source: PoolClient, at_batch: int, pid: int, number: int) -> Interposed:
    """A source during which a process is sent a signal, just before a batch is asked for."""
    return Interposed(source, lambda batch: os.kill(pid, number) if batch == at_batch else None)


def sampler() -> BatchSampler:
    return BatchSampler(np.arange(240), np.zeros(0, dtype=np.int64), 40, 0, 2)
