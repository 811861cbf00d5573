"""The pool as a student worker sees it: a `TeacherSource`."""

from __future__ import annotations

import time

from actors.knowledge import Batch, Knowledge, KnowledgeRequest, TeacherRequest, unpack
from actors.policies.prefetching import CallSize
from actors.pool.dispatch import Dispatch
from actors.pool.errand import Errand
from actors.pool.members import PoolHandle
from actors.pool.parcel import Parcel
from actors.serving import ServingLog

NO_WAIT_S = 0.0005


class PoolClient:
    """Makes calls of requests: one for each host, with several batches in one where the student is fast. For one
    thread."""

    def __init__(self, handle: PoolHandle, rank: int = 0) -> None:
        self.log = ServingLog()
        self._handle = handle
        self._dispatch = Dispatch(handle, rank)
        self._open: dict[str, Errand] = {}
        self._calls = CallSize()
        self._asked = 0
        self._parcel = Parcel()

    @property
    def likes_ahead(self) -> int:
        return self._calls.liked

    def ask(self, batch: Batch, request: KnowledgeRequest) -> PoolAnswer:
        self._dispatch.look_round()
        by_host: dict[str, tuple[TeacherRequest, ...]] = {}
        for one in request:
            host = self._handle.hosts[one.teacher]
            by_host[host] = (*by_host.get(host, ()), one)
        self._asked += 1
        self._calls.asked(len(by_host), max(map(self._dispatch.replicas, by_host), default=1))
        parcel, number = self._packed(batch) if by_host else (None, 0)
        places: dict[str, Place] = {}
        for host, requests in by_host.items():
            errand = self._open.setdefault(host, Errand(host, self._asked))
            place = errand.add(batch, requests, parcel, number)
            places |= {one.teacher: (errand, place, number) for number, one in enumerate(requests)}
        for host, errand in list(self._open.items()):
            if self._asked - errand.opened + 1 >= self._calls.batches:
                self._dispatch.send(self._open.pop(host))
        return PoolAnswer(self, [places[one.teacher] for one in request])

    def _packed(self, batch: Batch) -> tuple[Parcel | None, int]:
        """The parcel with the batch's pixels, and their place in it; None where they are not sent."""
        if self._handle.inputs == "derived":
            return None, 0
        if self._parcel.is_sent:
            self._parcel = Parcel()
        return self._parcel, self._parcel.add({name: tensor.numpy() for name, tensor in batch.inputs.items()})

    def use(self, places: list[Place]) -> list[Knowledge]:
        """The answers, waited for if need be, at the moment when they are trained on.

        Raises:
            KnowledgeError: a teacher sent what cannot be learned from.
            TeacherLostError: a teacher's own code failed, or no replica is left and none comes.
        """
        nobody_joins = self._calls.used(time.monotonic())
        for host in list(self._open):
            if nobody_joins or any(errand is self._open[host] for errand, _, _ in places):
                self._dispatch.send(self._open.pop(host))
        for errand in dict.fromkeys(errand for errand, _, _ in places):
            self._await(errand)
            while errand.served:
                self.log.answer(errand.served.pop(0))
        return [unpack(errand.reply[0].answers[place][number]) for errand, place, number in places]

    def _await(self, errand: Errand) -> None:
        if errand.reply:
            return
        began, start = time.time(), time.perf_counter()
        reply = self._dispatch.finish(errand)
        waited_s = time.perf_counter() - start
        if waited_s > NO_WAIT_S:
            self.log.waited(reply.slowest, began, waited_s)


Place = tuple[Errand, int, int]
"""Of the answer to one request: its errand, the batch's place in it and the request's number among the batch's."""


class PoolAnswer:
    """The answers of several teachers to one batch."""

    def __init__(self, client: PoolClient, places: list[Place]) -> None:
        self._client = client
        self._places = places

    def result(self) -> list[Knowledge]:
        return self._client.use(self._places)
