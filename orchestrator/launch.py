"""Trains one rung on the cluster, or fills the store for it: as Ray tasks, or as a Ray Train group that starts again
after a worker died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayTaskError

from actors.knowledge import KnowledgeRequest
from actors.policies.failure import MOST_RESTARTS, may_restart
from actors.store.filling import FillJob, fill_task
from actors.training import RungError, TrainJob, train_loop, train_task

logger = logging.getLogger(__name__)


def train_rung(job: TrainJob) -> None:
    """Blocks until the rung is trained; raises what ended it."""
    if job.spec.num_workers == 1:
        _train_in_task(job)
    else:
        _train_in_group(job)


def fill_rung(job: TrainJob, requests: Mapping[int, KnowledgeRequest]) -> None:
    """Blocks until the store has all that a rung asks: as many tasks as it has workers share the rows."""
    count = job.spec.num_workers
    task = _as_task(fill_task, job)
    _awaited([task.remote(FillJob(job, requests, rank, count)) for rank in range(count)])


def _train_in_task(job: TrainJob) -> None:
    _awaited([_as_task(train_task, job).remote(job)])


def _as_task(function: Callable[..., None], job: TrainJob) -> Any:
    """With a worker's resources; started again where its process dies."""
    resources = job.spec.resources
    remote: Any = ray.remote(function)
    return remote.options(
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        resources=dict(resources.custom),
        max_retries=MOST_RESTARTS,
    )


def _awaited(tasks: list[ray.ObjectRef]) -> None:
    try:
        ray.get(tasks)
    except RayTaskError as error:
        raise error.cause from error


def _train_in_group(job: TrainJob) -> None:
    from ray.train import WorkerGroupError

    restarts = 0
    while True:
        try:
            _trainer(job).fit()
            return
        except WorkerGroupError as error:
            causes = [cause for cause in error.worker_failures.values() if isinstance(cause, RungError)]
            killed = len(error.worker_failures) - len(causes)
            if not may_restart(killed, all(cause.may_be_echo for cause in causes), restarts):
                first = min(causes, key=lambda cause: cause.may_be_echo, default=None)
                raise (first.cause if first else error) from error
            restarts += 1
            logger.warning("%s: a worker died, restart %d from the last checkpoint", job.spec.name, restarts)


def _trainer(job: TrainJob):  # noqa: ANN202 - TorchTrainer, imported late: it takes seconds
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = job.spec.resources
    storage_path, filesystem = job.folder.arrow()
    per_worker: Mapping[str, float] = {
        "CPU": resources.num_cpus,
        "GPU": resources.num_gpus,
        **resources.custom,
    }
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.spec.num_workers,
            use_gpu=resources.num_gpus > 0,
            resources_per_worker={name: amount for name, amount in per_worker.items() if amount},
        ),
        run_config=RunConfig(
            name="ray-train",
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=0),
        ),
    )
