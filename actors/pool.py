"""Teachers in Ray actors, the only callers of `.remote` on them.

`TeacherActor` is one replica, a thin shell around `Teacher`; `PoolController` knows who is in the pool; `TeacherPool`
is a client, a `TeacherSource` that can be pickled into student workers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from actors.data import SharedDataset, training_rows
from actors.errors import TeacherLostError
from actors.knowledge import (
    Batch,
    Knowledge,
    KnowledgeRequest,
    TeacherRequest,
    at_rows,
    pack,
    row_digests,
    unpack,
)
from actors.policies import Decision, Failure, after_failure, choose_replica
from actors.specs import DataSpec, Resources, TeacherSpec
from actors.teacher import Teacher

logger = logging.getLogger(__name__)

CALLS_AT_ONCE = 2
PATIENCE_S = 30


@dataclass(frozen=True)
class Members:
    """Who is in the pool: replicas by teacher and number."""

    replicas: dict[str, dict[int, Any]]

    def without(self, teacher: str, replica: int) -> Members:
        left = {number: actor for number, actor in self.replicas[teacher].items() if number != replica}
        return Members({**self.replicas, teacher: left})


class TeacherActor:
    """One replica: builds the pixels of (ids, views) from its node's dataset and lets the teacher judge them.

    Of two calls at once one builds pixels while the other judges: neither the user's dataset nor the user's module
    need be safe for threads.
    """

    def __init__(self, spec: TeacherSpec, dataset: SharedDataset, data: DataSpec) -> None:
        self._teacher = Teacher(spec, device_for(spec.resources))
        self._rows = training_rows(dataset.open(), data)
        self._building, self._judging = Lock(), Lock()

    def version(self) -> str:
        return self._teacher.version

    def pid(self) -> int:
        return os.getpid()

    @torch.no_grad()
    def answer(self, ids: np.ndarray, views: np.ndarray, request: TeacherRequest) -> dict[str, Any]:
        with self._building:
            inputs, _ = self._rows.build(ids, views)
        digests = row_digests(inputs)
        with self._judging:
            knowledge = self._teacher.answer(inputs, request, digests)
        return pack(knowledge.to(torch.device("cpu")))


class PoolController:
    """Knows the members and why others were lost; who is lost to one client is lost to all."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._causes: dict[str, list[str]] = {}

    def lost(self, teacher: str, replica: int, cause: str) -> tuple[Members, list[str]]:
        if actor := self._members.replicas[teacher].get(replica):
            ray.kill(actor)
            self._members = self._members.without(teacher, replica)
            self._causes.setdefault(teacher, []).append(f"replica {replica}: {cause}")
        return self._members, self._causes[teacher]


class TeacherPool:
    """A client of the pool. Pickled into a worker it starts with its own queue counts and its own turn."""

    def __init__(self, controller: Any, members: Members, answer_timeout_s: float, turn: int = 0) -> None:
        self._controller = controller
        self.members = members
        self._answer_timeout_s = answer_timeout_s
        self._turn = turn
        self._outstanding: dict[str, dict[int, int]] = {teacher: {} for teacher in members.replicas}

    @classmethod
    def start(
        cls,
        specs: Sequence[TeacherSpec],
        dataset: ray.ObjectRef,
        data: DataSpec,
        *,
        answer_timeout_s: float,
    ) -> TeacherPool:
        """Starts every replica and waits until each has loaded its teacher."""
        replicas = {spec.name: _start_replicas(spec, dataset, data) for spec in specs}
        members = Members(replicas)
        controller = ray.remote(PoolController).options(num_cpus=0).remote(members)
        for name, group in replicas.items():
            _wait_until_loaded(name, list(group.values()))
        logger.info("pool: %s", ", ".join(f"{name} x{len(group)}" for name, group in replicas.items()))
        return cls(controller, members, answer_timeout_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return TeacherPool, (self._controller, self.members, self._answer_timeout_s, self._turn)

    def for_worker(self, rank: int) -> TeacherPool:
        return TeacherPool(self._controller, self.members, self._answer_timeout_s, rank)

    def ask(self, batch: Batch, request: KnowledgeRequest) -> PoolAnswer:
        return PoolAnswer(self, [self.send(batch, one) for one in request])

    def send(self, batch: Batch, request: TeacherRequest) -> Sent:
        group = self.members.replicas[request.teacher]
        outstanding = self._outstanding[request.teacher]
        replica = choose_replica(list(group), outstanding, self._turn)
        self._turn += 1
        outstanding[replica] = outstanding.get(replica, 0) + 1
        ids, views = (at_rows(one, request.rows) for one in (batch.ids, batch.views))
        reference = group[replica].answer.remote(ids, views, request)
        return Sent(batch, request, replica, reference)

    def receive(self, sent: Sent) -> Knowledge:
        """The answer, from another replica if this one is lost.

        Raises:
            TeacherLostError: no replica is left, or the teacher's own code failed.
        """
        while True:
            try:
                return unpack(ray.get(sent.reference, timeout=self._answer_timeout_s))
            except RayActorError as error:
                failure, cause = Failure.DIED, str(error).splitlines()[0]
            except GetTimeoutError:
                failure, cause = Failure.SILENT, f"no answer within {self._answer_timeout_s:g} s"
            except RayError as error:
                failure, cause = Failure.RAISED, str(error)
            finally:
                self._outstanding[sent.request.teacher][sent.replica] -= 1
            sent = self._sent_again(sent, failure, cause)

    def _sent_again(self, sent: Sent, failure: Failure, cause: str) -> Sent:
        teacher = sent.request.teacher
        reported = self._controller.lost.remote(teacher, sent.replica, cause)
        self.members, causes = ray.get(reported)
        left = len(self.members.replicas[teacher])
        decision = after_failure(failure, left)
        logger.warning(
            "teacher %s replica %d %s, %d left: %s",
            teacher,
            sent.replica,
            failure.value,
            left,
            decision.value,
        )
        if decision is Decision.ABORT:
            raise TeacherLostError(f"teacher {teacher!r} has {left} replicas left; {'; '.join(causes)}")
        return self.send(sent.batch, sent.request)

    def stop(self) -> None:
        for group in self.members.replicas.values():
            for actor in group.values():
                ray.kill(actor)
        ray.kill(self._controller)


@dataclass(frozen=True)
class Sent:
    """A request that is under way at a replica."""

    batch: Batch
    request: TeacherRequest
    replica: int
    reference: ray.ObjectRef


class PoolAnswer:
    """The answers of several teachers to one batch."""

    def __init__(self, pool: TeacherPool, sent: list[Sent]) -> None:
        self._pool = pool
        self._sent = sent

    def result(self) -> list[Knowledge]:
        return [self._pool.receive(one) for one in self._sent]


def device_for(resources: Resources) -> torch.device:
    return torch.device("cuda" if resources.num_gpus and torch.cuda.is_available() else "cpu")


def _start_replicas(spec: TeacherSpec, dataset: ray.ObjectRef, data: DataSpec) -> dict[int, Any]:
    actor = ray.remote(TeacherActor).options(
        num_cpus=spec.resources.num_cpus,
        num_gpus=spec.resources.num_gpus,
        resources=dict(spec.resources.custom),
        max_concurrency=CALLS_AT_ONCE,
    )
    return {number: actor.remote(spec, dataset, data) for number in range(spec.replicas)}


def _wait_until_loaded(teacher: str, actors: Sequence[Any]) -> None:
    waiting = [actor.version.remote() for actor in actors]
    while waiting:
        loaded, waiting = ray.wait(waiting, timeout=PATIENCE_S)
        try:
            ray.get(loaded)
        except RayError as error:
            raise TeacherLostError(f"teacher {teacher!r} could not be loaded: {error}") from error
        if waiting and not loaded:
            free = ray.available_resources()
            logger.warning(
                "teacher %s: waiting for %d replicas to start; the cluster has %g CPU and %g GPU free",
                teacher,
                len(waiting),
                free.get("CPU", 0),
                free.get("GPU", 0),
            )
