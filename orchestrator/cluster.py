"""A Ray cluster to run on: one that is there already, one at an address, or one started here for as long as it is
needed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil

import ray

from actors.specs import ImportSpec

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

SPARE_CPUS = 16
"""For replicas that are added while a run goes on."""


@contextmanager
def connected(address: str | None, wanted: Mapping[str, float]) -> Iterator[dict[str, float]]:
    """The resources of the cluster. Started here, it has as many logical CPUs as `wanted`: few cores are shared, not
    refused.
    """
    if ray.is_initialized():
        yield cluster_resources()
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with _own_sigterm():
        _join(address, wanted)
    try:
        yield cluster_resources()
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray's handler, which ends the process without a word, does not replace one of ours. Handlers belong to the main
    thread."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _join(address: str | None, wanted: Mapping[str, float]) -> None:
    if address is None:
        cores = max(os.cpu_count() or 1, ceil(wanted.get("CPU", 1))) + SPARE_CPUS
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(
                f"--address: no Ray cluster answers at {address!r}: {error}; start one, or leave it out"
            ) from error


def cluster_resources() -> dict[str, float]:
    """What the whole cluster has, by resource, without Ray's own bookkeeping."""
    own = ("node:", "memory", "object_store_memory", "accelerator_type:")
    return {name: amount for name, amount in ray.cluster_resources().items() if not name.startswith(own)}


def imports_there(targets: Sequence[str]) -> None:
    """Imports `key: module:attribute` lines in a process of the cluster; raises ValueError for those that fail there
    too.
    """
    problems = ray.get(ray.remote(_import_problems).remote(targets))
    if problems:
        raise ValueError("\n".join(problems))


def _import_problems(targets: Sequence[str]) -> list[str]:
    problems = []
    for line in targets:
        where, _, target = line.partition(": ")
        try:
            ImportSpec(target).resolve()
        except Exception as error:
            problems.append(f"{where}: {target} cannot be imported on the cluster: {type(error).__name__}: {error}")
    return problems
