"""What serving costs: a pool against the same forward in process, and one request against a bare Ray actor call.

Two tables. Images a second of one teacher, on one thread, in this process and as the one replica of a pool; teachers of
several sizes. Then the time of a request, one at a time, to a teacher that answers at once with a given number of
bytes, beside a call of an actor that does nothing but return as many: whole, and less the seconds that the teacher's
own forward took, as the replica measured them. All take turns in one run, which takes less than ten minutes on two idle
cores.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from actors.knowledge import Batch, TeacherRequest
from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.sources import LocalTeachers, TeacherSource, prefetched
from actors.specs import TeacherSpec
from benchmarks.calibration import usual_seconds, width_for
from benchmarks.fashion import BATCH, Fashion, first_rows
from benchmarks.pools import computing_teacher, in_its_own_process, pool_of
from benchmarks.sidebyside import Goal, Ratio, alternate, keep, per_second, repeat, say_whether_idle, show, show_goals
from benchmarks.waiting import waiting_teacher

SETTLE_S = 0.3
GOAL_FORWARD_MS = 50
SIZES = {"4 KB": 4_000, "400 KB": 400_000, "16 MB": 16_000_000, "100 MB": 100_000_000}
HERE, BARE, POOL, OVERHEAD = "in process", "bare actor", "pool", "pool, less the forward"

Found = dict[str, list[float]]


def forwards(teachers: Mapping[int, TeacherSpec], pool: PoolHandle, arguments: argparse.Namespace) -> dict[int, Found]:
    """Images a second in process and from a pool, by the ms that a forward takes."""
    batch = first_rows(Fashion(), BATCH)
    here = LocalTeachers.load(list(teachers.values()))
    found = {}
    for ms, teacher in teachers.items():
        ways = {
            HERE: images_per_s(here, 0, batch, teacher.name, arguments.seconds),
            POOL: images_per_s(PoolClient(pool), None, batch, teacher.name, arguments.seconds),
        }
        found[ms] = alternate(ways, arguments.rounds)
    return found


def teacher_that_takes(ms: int, folder: Path, batch: Batch) -> TeacherSpec:
    """A convolutional net of a width at which a batch takes about `ms` in process, on one thread."""

    def built(width: int) -> TeacherSpec:
        return computing_teacher(f"forward-{ms}-{width}", folder, "actors.models:plain_cnn", width=width)

    def seconds_at(width: int) -> float:
        teacher = built(width)
        local = LocalTeachers.load([teacher])
        return usual_seconds(lambda: local.ask(batch, (TeacherRequest(teacher.name),)).result())

    return built(width_for(ms / 1000, seconds_at))


def images_per_s(
    source: TeacherSource, window: int | None, batch: Batch, teacher: str, seconds: float
) -> Callable[[], float]:
    """A turn of one teacher, asked about the same batch again and again."""
    request = (TeacherRequest(teacher),)
    stream = prefetched(source, itertools.repeat(batch), lambda _: request, window)
    return lambda: BATCH * per_second(lambda: next(stream), seconds, SETTLE_S)


def show_forwards(found: Mapping[int, Found]) -> list[Goal]:
    rows, goals = [], []
    for ms, by_way in found.items():
        here, pooled = by_way[HERE], by_way[POOL]
        ratio = Ratio.of(pooled, here)
        forward_ms = 1000 * BATCH / median(here)
        rows.append((f"{forward_ms:.1f}", f"{median(here):.0f}", f"{median(pooled):.0f}", str(ratio)))
        if ms >= GOAL_FORWARD_MS:
            goals.append(Goal(f"pool against in process, a forward of {forward_ms:.0f} ms", ratio, 0.95))
    show(f"One teacher, one thread, batches of {BATCH}", ("forward, ms", "in process, images/s", "pool", "ratio"), rows)
    return goals


@dataclass(frozen=True)
class Times:
    """Of the calls of one turn, in ms."""

    median: float
    p99: float
    count: int


class Bare:
    """The cheapest actor that answers with as many bytes."""

    def __init__(self) -> None:
        self._answers = {what: {"logits": np.ones(size // 4, dtype=np.float32)} for what, size in SIZES.items()}

    def answer(self, what: str) -> dict[str, np.ndarray]:
        return self._answers[what]


def quick_teachers(folder: Path) -> dict[str, TeacherSpec]:
    """They answer at once, of one row, so that what is timed is the request and not pixels."""
    return {
        what: waiting_teacher(what.replace(" ", "-"), folder, answer_s=0, rows=1, num_classes=size // 4)
        for what, size in SIZES.items()
    }


def requests(
    teachers: Mapping[str, TeacherSpec], pool: PoolHandle, arguments: argparse.Namespace
) -> dict[str, dict[str, list[Times]]]:
    """By size and way."""
    batch, client = first_rows(Fashion(), 1), PoolClient(pool)
    bare: Any = ray.remote(Bare).options(num_cpus=0).remote()
    found = {}
    for what, teacher in teachers.items():
        request = (TeacherRequest(teacher.name),)
        calls = {
            BARE: lambda what=what: ray.get(bare.answer.remote(what)),
            POOL: lambda request=request: client.ask(batch, request).result(),
        }
        forward_s = partial(last_forward_s, client, teacher.name)
        found[what] = alternate(
            {
                BARE: partial(times_of, calls[BARE], arguments.seconds),
                POOL: partial(times_of, calls[POOL], arguments.seconds),
                OVERHEAD: partial(times_of, calls[POOL], arguments.seconds, forward_s),
            },
            arguments.rounds,
        )
    return found


def last_forward_s(client: PoolClient, teacher: str) -> float:
    return client.log.summary(1.0)[teacher]["service_ms"]["median"] / 1000


def times_of(call: Callable[[], object], seconds: float, less_s: Callable[[], float] = lambda: 0.0) -> Times:
    taken: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        call()
        whole_s = time.perf_counter() - start
        taken.append(1000 * (whole_s - less_s()))

    repeat(call, SETTLE_S)
    less_s()
    repeat(timed, seconds)
    return Times(median(taken), float(np.percentile(taken, 99)), len(taken))


def show_requests(found: Mapping[str, Mapping[str, Sequence[Times]]]) -> list[Goal]:
    rows, goals = [], []
    for what, by_way in found.items():
        for statistic in ("median", "p99"):
            bare, whole, overhead = (
                [getattr(turn, statistic) for turn in by_way[way]] for way in (BARE, POOL, OVERHEAD)
            )
            ratio = Ratio.of(overhead, bare)
            times = [f"{median(times):.2f}" for times in (bare, whole, overhead)]
            rows.append((what, statistic, *times, str(Ratio.of(whole, bare)), str(ratio)))
            goals.append(Goal(f"a request for {what}, {statistic}, less its forward", ratio, 1.2, at_least=False))
    headings = ("knowledge", "", "bare, ms", "pool", "less its forward", "pool / bare", "less its forward / bare")
    show("One request at a time, beside a bare Ray actor call that returns as many bytes", headings, rows)
    return goals


def main() -> None:
    arguments = parsed()
    say_whether_idle()
    torch.set_num_threads(1)
    dataset = Fashion()
    with tempfile.TemporaryDirectory() as name:
        batch, folder = first_rows(dataset, BATCH), Path(name)
        computing = {ms: teacher_that_takes(ms, folder, batch) for ms in arguments.forwards_ms}
        with pool_of(list(computing.values()), dataset, arguments.inputs) as pool:
            by_forward = in_its_own_process(forwards, computing, pool, arguments)
        goals = show_forwards(by_forward)
        quick = quick_teachers(folder)
        with pool_of(list(quick.values()), dataset, arguments.inputs) as pool:
            by_size = in_its_own_process(requests, quick, pool, arguments)
        goals += show_requests(by_size)
    show_goals(goals)
    keep("serving", vars(arguments), forwards=by_forward, requests=by_size, goals=goals)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=2.0, help="on the clock, per turn")
    parser.add_argument("--forwards-ms", type=int, nargs="+", default=[10, 50, 100], help="what the teachers take")
    parser.add_argument("--inputs", choices=("sent", "derived"), default="sent", help="who makes the teachers' pixels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
