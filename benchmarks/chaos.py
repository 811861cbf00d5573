"""The same student, whatever happens to its teachers?

Trains a student from three teachers in a pool, once undisturbed and once while replicas are killed (SIGKILL), stopped
(SIGSTOP) for a while, slowed, added and retired; compares the SHA-256 of its weights, and looks for what is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import ray
import torch
from torch import nn

from actors.checkpoints import Checkpoints
from actors.data import SharedDataset
from actors.datasets import Digits
from actors.knowledge import LOGITS
from actors.pool.client import PoolClient
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.sources import TeacherSource
from actors.specs import DataSpec, ImportSpec, InputSpec, LossSpec, ModelSpec, RecipeSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.student import StudentTrainer
from actors.weights import weights_as_bytes
from benchmarks.faults import Faults, alive
from benchmarks.interposed import Interposed
from orchestrator.cluster import connected

OUT = Path("benchmarks/out")
STEPS_PER_EPOCH = 25
BATCH = 40
GONE_WITHIN_S, NOTICED_WITHIN_S = 30.0, 10.0
DATA = DataSpec(
    train=ImportSpec("actors.datasets:Digits"),
    test=ImportSpec("actors.datasets:Digits", {"train": False}),
    slices={"student": STEPS_PER_EPOCH * BATCH, "validation": 100},
    views=ImportSpec("actors.views:crop_and_flip", {"padding": 1}),
    num_views=4,
)
MODELS = {
    "wide": ModelSpec(ImportSpec("actors.models:mlp", {"width": 256, "depth": 3})),
    "plain": ModelSpec(ImportSpec("actors.models:tiny_cnn", {"width": 32}), InputSpec(size=16)),
    "transformer": ModelSpec(ImportSpec("actors.models:small_vit", {"size": 8, "width": 64, "depth": 2})),
}


def restless() -> nn.Module:
    """A student with what makes runs differ where randomness or state is lost: dropout and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10)
    )


def teachers(folder: Path, replicas: int) -> tuple[TeacherSpec, ...]:
    """Three teachers as they were drawn."""
    specs = []
    for seed, (name, model) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        Folder(str(folder)).write(f"{name}.safetensors", weights_as_bytes(model.model.build()))
        file = str(folder / f"{name}.safetensors")
        specs.append(TeacherSpec(name, model, file, {LOGITS: (10,)}, replicas=replicas))
    return tuple(specs)


def student(specs: Sequence[TeacherSpec], epochs: int) -> StudentSpec:
    """A small one."""
    names = tuple(spec.name for spec in specs)
    return StudentSpec(
        name="student",
        model=ModelSpec(ImportSpec("benchmarks.chaos:restless")),
        recipe=RecipeSpec(epochs, BATCH, 0, ImportSpec("torch.optim:SGD", {"lr": 0.05, "momentum": 0.9})),
        data=DATA,
        labelled="student",
        unlabelled=None,
        validation="validation",
        num_classes=10,
        losses=(LossSpec("soft", ImportSpec("actors.losses:kd_loss"), "logits", teachers=names),),
        teachers=tuple(specs),
    )


def trained(spec: StudentSpec, source: TeacherSource) -> str:
    """The SHA-256 of the student's weights."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = StudentTrainer(spec, Digits(), source, Checkpoints(Folder(folder)))
        trainer.run()
        return hashlib.sha256(trainer.exported()).hexdigest()


def gone(pids: set[int]) -> bool:
    """Whether all these processes end within a while."""
    return within(GONE_WITHIN_S, lambda: not any(map(alive, pids)))


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes true in so many seconds."""
    end_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.2)
    return condition()


@dataclass(frozen=True)
class Outcome:
    """`same`: whether the student is that of the undisturbed run; `left`: processes of replicas that did not end."""

    same: bool
    sha256: str
    faults: dict[str, int]
    restarts: int
    retries: int
    left: bool
    seconds: dict[str, float]


def survive(folder: Path, *, faults: int, every: int, gap_s: float, seed: int = 0, replicas: int = 2) -> Outcome:
    """Trains undisturbed and under faults, on a cluster that is there. `every`: steps from fault to fault."""
    specs = teachers(folder, replicas)
    spec = student(specs, epochs=-(-(faults + 1) * every // STEPS_PER_EPOCH))
    dataset = ray.put(SharedDataset.of(Digits()))
    start = time.monotonic()
    with pool_of(specs, dataset) as pool:
        undisturbed = trained(spec, PoolClient(pool.handle))
    calm_s = time.monotonic() - start
    with pool_of(specs, dataset) as pool:
        client, struck = PoolClient(pool.handle), Faults(pool, seed, gap_s)

        def strike(step: int) -> None:
            if step % every == 0 and step <= every * faults:
                struck.strike()

        sha256 = trained(spec, Interposed(client, strike))
        struck.over()
        within(NOTICED_WITHIN_S, lambda: restarts(pool) >= struck.struck["kill"])
        pids = struck.pids | set(pool.pids().values())
    return Outcome(
        same=sha256 == undisturbed,
        sha256=sha256,
        faults=dict(struck.struck),
        restarts=restarts(pool),
        retries=client.log.retries,
        left=not gone(pids),
        seconds={"undisturbed": calm_s, "under faults": time.monotonic() - start - calm_s},
    )


def restarts(pool: TeacherPool) -> int:
    return sum(pool.chronicle.record()["restarts"].values())


@contextmanager
def pool_of(specs: Sequence[TeacherSpec], dataset: ray.ObjectRef) -> Iterator[TeacherPool]:
    pool = TeacherPool.start(specs, dataset, DATA, PoolSettings("sent"))
    try:
        yield pool
    finally:
        pool.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=32)
    parser.add_argument("--every", type=int, default=20, help="steps from one fault to the next")
    parser.add_argument("--gap", type=float, default=3.0, help="seconds that pass between two faults at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    children = set(psutil.Process().children(recursive=True))
    with connected(None, {"CPU": 16}), tempfile.TemporaryDirectory() as folder:
        found = survive(
            Path(folder), faults=arguments.faults, every=arguments.every, gap_s=arguments.gap, seed=arguments.seed
        )
    left = [child.pid for child in psutil.Process().children(recursive=True) if child not in children]
    report = {**asdict(found), "processes left": left}
    (OUT / "chaos.json").write_text(json.dumps(report, indent=1))
    for name, value in report.items():
        print(f"{name:<16} {value}")
    sys.exit(not found.same or found.left or bool(left))


if __name__ == "__main__":
    main()
