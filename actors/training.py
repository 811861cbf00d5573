"""How a rung reaches its workers: as a Ray task (one worker) or as the train loop of Ray Train (a group of them)."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import ray
import torch

from actors.checkpoints import Checkpoints
from actors.data import SharedDataset
from actors.memory import keep_freed_memory
from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.pool.replica import device_for
from actors.progress import Report
from actors.randomness import seed_everything
from actors.serving import timeline_file
from actors.sources import LocalTeachers, TeacherSource
from actors.specs import StoreSpec, StudentSpec
from actors.storage import Folder
from actors.store.passes import PASSES, Passes
from actors.store.shared_claims import SharedClaims
from actors.store.stored import StoredTeachers
from actors.student import StudentTrainer
from actors.training_state import TrainingState
from actors.worker import Worker

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.safetensors"
OUTCOME_FILE = "outcome.json"


class RungError(Exception):
    """What the code of a rung raised in a group of workers; a worker that was killed raises none."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause

    @property
    def may_be_echo(self) -> bool:
        """Whether this may only say that another worker of the group is gone: torch says so by bare RuntimeErrors."""
        return type(self.cause) is RuntimeError or isinstance(self.cause, torch.distributed.DistError)


@dataclass(frozen=True)
class TrainJob:
    """One rung to train. `pool` None: its teachers, if any, live in the student's own process, or, if `is_stored`,
    nowhere: the store knows all that they would say. `claims`: the actor that keeps them for all workers."""

    spec: StudentSpec
    dataset: ray.ObjectRef
    folder: Folder
    pool: PoolHandle | None = None
    board: Any | None = None
    store: StoreSpec | None = None
    is_stored: bool = False
    claims: Any | None = None


def train_loop(config: dict[str, TrainJob]) -> None:
    """The entry of Ray Train: one worker of a group, in a process group that Ray Train has set up."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    try:
        train(config["job"], worker)
    except Exception as error:
        raise RungError(error) from error


def train_task(job: TrainJob) -> None:
    """The body of a Ray task: the same loop with one worker and without Ray Train."""
    train(job, Worker(device=device_for(job.spec.resources)))


def train(job: TrainJob, worker: Worker) -> None:
    """Trains the rung from its newest checkpoint; rank 0 leaves weights and outcome in the rung's folder."""
    keep_freed_memory()
    torch.set_num_threads(job.spec.resources.threads)
    seed_everything(job.spec.recipe.seed)
    shared: SharedDataset = ray.get(job.dataset)
    with source_of(job, worker) as source:
        trainer = StudentTrainer(
            job.spec,
            shared.open(),
            source,
            Checkpoints(job.folder / "checkpoints"),
            worker=worker,
            report=report_to(job.board),
            show=lambda timeline: job.folder.write(timeline_file(worker.rank), json.dumps(timeline).encode()),
        )
        state = trainer.run()
    if worker.rank == 0:
        job.folder.write(WEIGHTS_FILE, trainer.exported())
        job.folder.write(OUTCOME_FILE, json.dumps(outcome(job.spec, state, trainer), indent=1).encode())


def outcome(spec: StudentSpec, state: TrainingState, trainer: StudentTrainer) -> dict[str, Any]:
    """What training a rung took and gave; seconds and rates of rank 0, samples of all workers."""
    total = sum(state.seconds.values())
    return {
        "parameters": sum(parameter.numel() for parameter in trainer.student.parameters()),
        "history": state.history,
        "seconds": state.seconds,
        "shares": {name: seconds / total for name, seconds in state.seconds.items()},
        "images_per_s": state.rows_trained * spec.num_workers / total,
        "bytes_per_sample": state.bytes_received / max(1, state.rows_trained),
        "teachers": state.teachers,
    }


@contextmanager
def source_of(job: TrainJob, worker: Worker) -> Iterator[TeacherSource]:
    """Says in the rung's folder how often teachers were asked: with a store while it is written, else at the end."""
    tell = partial(_tell_passes, job.folder, f"{PASSES}{worker.rank}-{uuid.uuid4().hex[:8]}.json")
    inner, serves = _inner(job, worker)
    if job.store is None:
        yield inner
        tell({name: Passes(asked=rows, computed=rows) for name, rows in inner.log.rows.items()}, "")
        return
    claims = None if job.claims is None else SharedClaims(job.claims)
    with StoredTeachers(job.store, job.spec.teachers, inner, serves, claims, tell) as stored:
        yield stored


def _inner(job: TrainJob, worker: Worker) -> tuple[TeacherSource, Collection[str]]:
    """Who computes, and for whom they can be asked."""
    if job.pool is not None:
        return PoolClient(job.pool, worker.rank), list(job.pool.hosts)
    return LocalTeachers.load(job.spec.teachers, worker.device), [] if job.is_stored else job.spec.teacher_names


def _tell_passes(folder: Folder, name: str, passes: Mapping[str, Passes], ended: str) -> None:
    told = {"teachers": {teacher: asdict(one) for teacher, one in passes.items()}, "writing_ended": ended}
    try:
        folder.write(name, json.dumps(told).encode())
    except (OSError, ValueError) as error:  # a full disk ends counting, not training
        logger.warning("the passes of this process are not counted: %s", error)


def report_to(board: Any | None) -> Report:
    if board is None:
        return lambda progress: None
    return lambda progress: board.post.remote(progress)
