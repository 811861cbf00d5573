"""Does memory grow while a student learns from a pool?

Trains a student, in a Ray task as runs do, from three teachers in a pool, on logits and features, so that answers go
through shared memory. At two steps it looks at what every process has resident that is its own (psutil's `rss` without
`shared`; shared memory is counted once, as the bytes used of Ray's object store): medians over the steps just before,
each time when the teachers have answered what they were asked. What is no leak is held still: the window is fixed, and
before a look the student slows down until each call carries one batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import ray
import torch
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from actors.data import SharedDataset
from actors.datasets import Digits
from actors.policies.prefetching import REMEMBERED_STEPS
from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.probe import probe_shapes
from actors.specs import ImportSpec, LossSpec, StudentSpec, TapPair, TeacherSpec
from benchmarks.chaos import DATA, OUT, pool_of, student, teachers, trained
from benchmarks.interposed import Interposed
from benchmarks.pools import in_its_own_process
from orchestrator.cluster import connected

BATCH = 100
TAP = "hidden"
TAPS = {"wide": "pool", "plain": "stage1", "transformer": "blocks"}
WINDOW = 16
STEPS_SEEN = 8
STEPS_SLOW = STEPS_SEEN + WINDOW + REMEMBERED_STEPS
SLOW_STEP_S = 0.2
SETTLES_IN_S = 1.0
MOST_CHANGE = 0.05
STORE = "shared memory"
Memory = dict[str, int]


def tapped(teacher: TeacherSpec) -> TeacherSpec:
    """The same teacher with a feature that is larger than what Ray sends beside an answer."""
    model = replace(teacher.model, taps={TAP: TAPS[teacher.name]})
    size = model.input.size or 8
    shapes = probe_shapes(model.model.build(), model.taps, torch.zeros(1, 1, size, size), teacher.name)
    return replace(teacher, model=model, shapes=shapes)


def listening(specs: Sequence[TeacherSpec], steps: int) -> StudentSpec:
    """A student that hears logits and features of all of them."""
    plain = student(specs, epochs=steps * BATCH // DATA.slices["student"])
    pair = TapPair("middle", TAP)
    losses = (
        *plain.losses,
        LossSpec("hint", ImportSpec("actors.losses:hint_loss"), pair, teachers=("plain",)),
        LossSpec(
            "alike", ImportSpec("actors.losses:similarity_preserving_loss"), pair, teachers=("wide", "transformer")
        ),
    )
    recipe = replace(plain.recipe, batch_size=BATCH)
    model = replace(plain.model, taps={"middle": "2"})
    return replace(plain, model=model, losses=losses, recipe=recipe, window=WINDOW)


class Watch:
    """Looks, step by step, at how much memory is in use: at the steps up to each of `at`, more slowly."""

    def __init__(self, pids: Mapping[str, int], at: Sequence[int]) -> None:
        self.seen: dict[int, list[Memory]] = {step: [] for step in at}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    def __call__(self, now: int) -> None:
        for step, seen in self.seen.items():
            if step - STEPS_SEEN < now <= step:
                time.sleep(SETTLES_IN_S)
                seen.append({name: own_bytes(process) for name, process in self._processes.items()} | {STORE: stored()})
            elif step - STEPS_SLOW < now <= step:
                time.sleep(SLOW_STEP_S)


def own_bytes(process: psutil.Process) -> int:
    """Resident memory that is neither a file's nor shared."""
    memory = process.memory_info()
    return memory.rss - memory.shared


def stored() -> int:
    """Bytes used of the object store of this node. What `ray.available_resources` lacks of it leaves out what a reader
    still holds of an answer that its asker has dropped, which is what would leak."""
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return get_memory_info_reply(state).store_stats.object_store_bytes_used


def soaked(spec: StudentSpec, handle: PoolHandle, pids: Mapping[str, int], at: Sequence[int]) -> dict[int, Memory]:
    """Trains; what was in use at each of these steps."""
    watch = Watch({**pids, "student worker": os.getpid()}, at)
    trained(spec, Interposed(PoolClient(handle), watch))
    return {
        step: {name: int(median(one[name] for one in seen)) for name in seen[0]} for step, seen in watch.seen.items()
    }


def soak(folder: Path, early: int, late: int) -> dict[int, Memory]:
    """On a cluster that is there."""
    specs = tuple(map(tapped, teachers(folder, replicas=1)))
    with pool_of(specs, ray.put(SharedDataset.of(Digits()))) as pool:
        replicas = {f"replica {host} {number}": pid for (host, number), pid in pool.pids().items()}
        pids = {"driver": os.getpid(), "controller": pool.controller_pid(), **replicas}
        return in_its_own_process(soaked, listening(specs, late), pool.handle, pids, (early, late))


def changes(early: Memory, late: Memory) -> dict[str, float]:
    """By which part each has grown."""
    return {name: late[name] / early[name] - 1 for name in early}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--early", type=int, default=200, help="the step that is compared")
    parser.add_argument("--late", type=int, default=2000, help="with this one, the last")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with connected(None, {}), tempfile.TemporaryDirectory() as folder:
        first, last = soak(Path(folder), arguments.early, arguments.late).values()
    grown = changes(first, last)
    report = {**vars(arguments), "bytes": {"early": first, "late": last}, "change": grown}
    (OUT / "soak.json").write_text(json.dumps(report, indent=1))
    print(f"{'MB at step':<24}{arguments.early:>10}{arguments.late:>10}{'change':>10}")
    for name, change in grown.items():
        print(f"{name:<24}{first[name] / 1e6:>10.1f}{last[name] / 1e6:>10.1f}{change:>10.1%}")
    sys.exit(any(abs(change) >= MOST_CHANGE for change in grown.values()))


if __name__ == "__main__":
    main()
