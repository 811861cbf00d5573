"""The owner of a pool, in the driver: starts replicas, tends them in a thread of its own, and ends them all."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from actors.errors import TeacherLostError, first_line
from actors.pool.chronicle import Chronicle
from actors.pool.controller import PoolController, Told, Wish
from actors.pool.hosts import Host
from actors.pool.members import HostStatus, Inputs, Members, PoolHandle, Replica, by_host
from actors.specs import DataSpec, TeacherSpec

logger = logging.getLogger(__name__)

TICK_S = 0.25
PATIENCE_S = 30
WISHED_WITHIN_S = 10.0
SILENT_FOR_S = 60.0


@dataclass(frozen=True)
class PoolSettings:
    """`inputs`: whether students send pixels or replicas build their own; `answer_timeout_s`: the longest that an
    answer is waited for; `name`, `namespace`: by which the controller is found."""

    inputs: Inputs = "sent"
    answer_timeout_s: float = 300.0
    name: str = field(default_factory=lambda: f"pool-{uuid.uuid4().hex[:8]}")
    namespace: str = "collegium"


class TeacherPool:
    """Owns every actor of a pool: they end with it, and with the driver. Students get its `handle`."""

    def __init__(
        self, specs: Sequence[TeacherSpec], dataset: ray.ObjectRef, data: DataSpec, settings: PoolSettings
    ) -> None:
        self.chronicle = Chronicle()
        given = dataset if settings.inputs == "derived" else None
        self._hosts = {name: Host(group, data, given, self.chronicle) for name, group in by_host(specs).items()}
        self._settings = settings
        self._controller = self._new_controller()
        self._collecting, self._asked_s = self._collect()
        self.members = Members()
        self._ended = Event()
        self._tending = Thread(target=self._tend, name="pool", daemon=True)
        self._ticked_s = time.monotonic()

    @classmethod
    def start(
        cls,
        specs: Sequence[TeacherSpec],
        dataset: ray.ObjectRef,
        data: DataSpec,
        settings: PoolSettings | None = None,
    ) -> TeacherPool:
        """Waits until every first replica has loaded its teachers; raises TeacherLostError where one cannot."""
        pool = cls(specs, dataset, data, settings or PoolSettings())
        try:
            pool._await_first()
            pool._publish()
        except BaseException:
            pool.stop()
            raise
        pool._tending.start()
        return pool

    @property
    def handle(self) -> PoolHandle:
        hosts = {spec.name: host.name for host in self._hosts.values() for spec in host.specs}
        settings = self._settings
        where = settings.name, settings.namespace
        return PoolHandle(where, self.members, hosts, settings.inputs, settings.answer_timeout_s)

    def wish(self, host: str, more: int) -> None:
        """So many replicas more, or fewer."""
        ray.get(self._controller.wish.remote(Wish(host, more)), timeout=WISHED_WITHIN_S)

    def pids(self) -> dict[Replica, int]:
        """The processes of the replicas that serve."""
        return {
            Replica(name, number): kept.pid for name, host in self._hosts.items() for number, kept in host.replicas()
        }

    def controller_pid(self) -> int:
        return ray.get(self._controller.pid.remote(), timeout=WISHED_WITHIN_S)

    def stop(self) -> None:
        self._ended.set()
        if self._tending.is_alive():
            self._tending.join()
        if not ray.is_initialized():  # its actors went with the cluster
            return
        for host in self._hosts.values():
            host.stop()
        ray.kill(self._controller)

    def _await_first(self) -> None:
        for host in self._hosts.values():
            host.fill()
        said_s = time.monotonic()
        while waiting := [host for host in self._hosts.values() if host.starting or not host.serving]:
            for host in waiting:
                host.welcome(TICK_S / len(waiting))
                host.fill()
                if host.failed:
                    text = f"teacher {host.name!r} could not be loaded: {host.failures[-1]}"
                    raise TeacherLostError(text, [spec.name for spec in host.specs])
            if time.monotonic() - said_s > PATIENCE_S:
                said_s = time.monotonic()
                _say_waiting(waiting)
        logger.info("pool: %s", ", ".join(f"{host.name} x{len(host.serving)}" for host in self._hosts.values()))

    def _tend(self) -> None:
        while not self._ended.wait(TICK_S):
            if not ray.is_initialized():  # somebody has left the cluster; a call would start another
                return
            try:
                self._tick()
            except Exception:  # clients can do without for a while, not for ever
                logger.exception("pool: trying again")

    def _tick(self) -> None:
        for host in self._hosts.values():
            host.look()
            host.welcome()
            host.fill()
        if collected := self._collected():
            version, told = collected
            self._heed(told)
            self._publish(version)

    def _heed(self, told: Told) -> None:
        for gone, cause in told.lost.items():
            self._hosts[gone.host].lose(gone.number, cause)
        for wish in told.wishes:
            self._hosts[wish.host].wish(wish.change)
        since_s, self._ticked_s = self._ticked_s, time.monotonic()
        for name, host in self._hosts.items():
            host.scale(told.waited_s.get(name, 0.0) / max(1, len(told.clients)) / (self._ticked_s - since_s))
            host.fill()

    def _collected(self) -> tuple[int, Told] | None:
        """What the controller knows, once it has said so; another takes its place if it is gone, or silent for long."""
        ready, _ = ray.wait([self._collecting], timeout=0)
        if not ready and time.monotonic() - self._asked_s < SILENT_FOR_S:
            return None
        try:
            return ray.get(self._collecting, timeout=0)
        except (RayActorError, GetTimeoutError) as error:
            logger.warning("pool: a new controller, the last is lost: %s", first_line(error))
            ray.kill(self._controller)
            self._controller = self._new_controller()
            return None
        finally:
            self._collecting, self._asked_s = self._collect()

    def _collect(self) -> tuple[ray.ObjectRef, float]:
        return self._controller.collect.remote(self._status()), time.monotonic()

    def _new_controller(self) -> Any:
        controller: Any = ray.remote(PoolController)
        named = controller.options(num_cpus=0, name=self._settings.name, namespace=self._settings.namespace)
        return named.remote(self._status())

    def _status(self) -> dict[str, HostStatus]:
        return {name: host.status for name, host in self._hosts.items()}

    def _publish(self, version_there: int = 0) -> None:
        now = Members(
            self.members.version,
            {name: {number: kept.actor for number, kept in host.serving.items()} for name, host in self._hosts.items()},
            {gone: cause for host in self._hosts.values() for gone, cause in host.lost.items()},
            {name: host.failed for name, host in self._hosts.items() if host.failed},
        )
        if _who(now) != _who(self.members):
            self.members = replace(now, version=self.members.version + 1)
        if self.members.version != version_there:
            self._controller.publish.remote(self.members)


def _who(members: Members) -> tuple[object, ...]:
    serving = {host: tuple(actors) for host, actors in members.serving.items()}
    return serving, tuple(members.lost), tuple(members.failed)


def _say_waiting(hosts: Sequence[Host]) -> None:
    free = ray.available_resources()
    for host in hosts:
        count = len(host.starting)
        logger.warning(
            "teacher %s: waiting for %d replica%s to start; the cluster has %g CPU and %g GPU free",
            host.name,
            count,
            "" if count == 1 else "s",
            free.get("CPU", 0),
            free.get("GPU", 0),
        )
