"""The pools of a run under way, as another process finds them: the run says where they are (`announced`), `pools_of`
goes there. Ray is imported late: by then the environment says how to identify oneself.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from actors.pool.controller import PoolStatus, Wish
from actors.storage import Folder
from orchestrator.locks import lock_path
from orchestrator.problems import unknown
from orchestrator.result import CONFIG_FILE, RESULT_FILE

CLUSTER_FILE = "cluster.json"
LOCK_FILE = ".lock"
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
ANSWERS_WITHIN_S = 5.0


@contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """No other process goes on with the run in this folder; raises ValueError where one does. Of a run in a bucket
    only processes of this user on this machine are seen."""
    lock = FileLock(lock_path(folder, LOCK_FILE), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"run: {folder} is under way already, in another process; wait for its end, or end it with Ctrl-C first"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def announced(folder: Folder, address: str | None) -> Iterator[str]:
    """The namespace of a run's pools. While the block lasts, a file in the run's folder says where that is; of the
    token that Ray asks for it says the place alone."""
    import ray

    far = address is not None and address.startswith("ray://")
    # A new one at each start: what a killed driver left behind takes no name away.
    namespace = f"{folder.name}-{uuid.uuid4().hex[:8]}"
    where = {
        "address": address if far else ray.get_runtime_context().gcs_address,
        "namespace": namespace,
        "environment": {name: os.environ[name] for name in AUTHENTICATION if name in os.environ},
    }
    folder.write(CLUSTER_FILE, json.dumps(where).encode())
    try:
        yield namespace
    finally:
        folder.remove(CLUSTER_FILE)


@contextmanager
def pools_of(run: str) -> Iterator[Pools]:
    """Raises ValueError where that is no run under way, or none of its rungs is being taught by a pool."""
    where = whereabouts(Folder.found_at(run))
    os.environ.update(where["environment"])
    from orchestrator.cluster import connected

    with connected(where["address"], {}):
        yield Pools(where["namespace"])


def whereabouts(run: Folder) -> dict[str, Any]:
    """What `announced` says, as long as somebody is there."""
    if not run.has(CONFIG_FILE):
        raise ValueError(f"pool: expected the folder of a run, found no {CONFIG_FILE} in {str(run)!r}")
    if not run.has(CLUSTER_FILE):
        if run.has(RESULT_FILE):
            raise ValueError(f"pool: this run is finished, its result is {run.file(RESULT_FILE)}")
        raise ValueError(f"pool: this run is not under way; go on with: collegium run --resume {shlex.quote(str(run))}")
    where = json.loads(run.read(CLUSTER_FILE))
    # Ray itself would try for two minutes.
    if not _answers(where["address"]):
        raise ValueError(
            f"pool: this run is not under way, nobody answers at {where['address']}, where its cluster was; "
            f"go on with: collegium run --resume {shlex.quote(str(run))}"
        )
    return where


def _answers(address: str) -> bool:
    place = urlsplit(address if "//" in address else f"//{address}")
    try:
        socket.create_connection((place.hostname, place.port), timeout=ANSWERS_WITHIN_S).close()
    except OSError:
        return False
    return True


class Pools:
    """The pools of a namespace of the cluster that this process has joined, by rung."""

    def __init__(self, namespace: str) -> None:
        import ray

        there: Any = ray.util.list_named_actors(all_namespaces=True)
        rungs = sorted(actor["name"] for actor in there if actor["namespace"] == namespace)
        self._controllers: dict[str, Any] = {rung: ray.get_actor(rung, namespace) for rung in rungs}
        if not rungs:
            raise ValueError(
                "pool: no rung of this run is being taught by a pool now: teachers that are trained come first, a pool "
                "starts with the rung that it teaches; or teachers are in the students' processes, or all is done"
            )

    def status(self) -> dict[str, PoolStatus]:
        asked = [controller.status.remote() for controller in self._controllers.values()]
        return dict(zip(self._controllers, _heard(asked), strict=True))

    def free(self) -> dict[str, float]:
        """CPUs and GPUs that nobody on the cluster has taken."""
        import ray

        left = ray.available_resources()
        return {name: left.get(name, 0.0) for name in ("CPU", "GPU")}

    def wish(self, teacher: str, change: int) -> list[str]:
        """For so many replicas more, or fewer, in every rung that the teacher teaches now; what is wanted then."""
        wished, said = wishes(self.status(), teacher, change)
        _heard([self._controllers[rung].wish.remote(wish) for rung, wish in wished.items()])
        return said


def _heard(asked: list[Any]) -> list[Any]:
    """What controllers answer; raises ValueError where one is gone or hangs."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    try:
        return ray.get(asked, timeout=ANSWERS_WITHIN_S)
    except (RayActorError, GetTimeoutError) as error:
        raise ValueError(
            "pool: the controller of a rung does not answer; the rung is ending, or the run puts another controller in "
            "its place within a minute; try again then"
        ) from error


def wishes(pools: Mapping[str, PoolStatus], teacher: str, change: int) -> tuple[dict[str, Wish], list[str]]:
    """By rung, and in words. Raises ValueError where nobody is called so, or nobody would be left."""
    hosts = {
        rung: (name, host.wanted)
        for rung, pool in pools.items()
        for name, host in pool.hosts.items()
        if teacher in (name, *host.teachers)
    }
    if not hosts:
        called = [(name, *host.teachers) for pool in pools.values() for name, host in pool.hosts.items()]
        known = dict.fromkeys(one for several in called for one in several)
        raise ValueError(f"pool: {unknown(teacher, known, 'teacher')}")
    for rung, (name, wanted) in hosts.items():
        if wanted + change < 1:
            most = f"remove {wanted - 1} at most" if wanted > 1 else "it is the last"
            raise ValueError(f"pool: {name} has {wanted} in {rung}, one is always left; {most}")
    said = [f"{rung}: {name}: {wanted + change} wanted" for rung, (name, wanted) in hosts.items()]
    return {rung: Wish(name, change) for rung, (name, _) in hosts.items()}, said
