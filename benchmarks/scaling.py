"""How throughput grows with replicas: teachers that wait 50 ms a batch, asked as fast as student workers can.

A table of images a second for 1, 2, 4 ... 32 replicas and 1, 2, 4 student workers, processes of their own, beside the
ideal line: so many times what one replica could give at most. It is to hold until this machine's cores are busy; the
first row where they are is marked. At the end, what the router takes to choose one of 256 replicas, without Ray. Takes
less than ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray

from actors.knowledge import TeacherRequest
from actors.policies.balance import REMEMBERED, Router
from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.sources import prefetched
from benchmarks.fashion import BATCH, Fashion, batches
from benchmarks.pools import SPARE_CPUS, pool_of
from benchmarks.sidebyside import Goal, Ratio, alternate, keep, say_whether_idle, show, show_goals
from benchmarks.waiting import waiting_teacher
from orchestrator.cluster import connected

TEACHER = "waiting"
SETTLE_S = 3.0
BUSY_PERCENT = 90.0
GOAL = 0.9
DIFFERENT_BATCHES = 8
MANY_REPLICAS, REQUESTS = 256, 1000


class Asking:
    """A student worker that does nothing but ask, always for the same few batches."""

    def __init__(self, window: int | None) -> None:
        self._batches = list(itertools.islice(batches(Fashion()), DIFFERENT_BATCHES))
        self._window = window

    def answered(self, pool: PoolHandle, rank: int, begin_s: float, end_s: float) -> int:
        """Batches between two wall-clock times. Asks from now on, until then, and waits for the rest."""
        asked = itertools.takewhile(lambda _: time.time() < end_s, itertools.cycle(self._batches))
        request = (TeacherRequest(TEACHER),)
        stream = prefetched(PoolClient(pool, rank), asked, lambda _: request, self._window)
        return sum(begin_s <= time.time() < end_s for _ in stream)


def throughput(pool: PoolHandle, workers: Sequence[Any], seconds: float) -> tuple[float, float]:
    """Images a second, and how busy the cores are meanwhile in %."""
    begin_s = time.time() + SETTLE_S
    end_s = begin_s + seconds
    counts = [worker.answered.remote(pool, rank, begin_s, end_s) for rank, worker in enumerate(workers)]
    time.sleep(max(0.0, begin_s - time.time()))
    psutil.cpu_percent()
    time.sleep(max(0.0, end_s - time.time()))
    busy_percent = psutil.cpu_percent()
    return BATCH * sum(ray.get(counts)) / seconds, busy_percent


def scaled(dataset: Fashion, folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """For each number of replicas and of workers."""
    asking: Any = ray.remote(Asking)
    workers = [asking.options(num_cpus=0).remote(arguments.window) for _ in range(max(arguments.workers))]
    ray.get([worker.__ray_ready__.remote() for worker in workers])
    answer_s = arguments.answer_ms / 1000
    rows = []
    for replicas in arguments.replicas:
        teacher = waiting_teacher(TEACHER, folder, answer_s=answer_s, rows=BATCH, replicas=replicas)
        with pool_of([teacher], dataset, arguments.inputs) as pool:
            ways = {count: partial(throughput, pool, workers[:count], arguments.seconds) for count in arguments.workers}
            found = alternate(ways, arguments.rounds)
        ideal = replicas * BATCH / answer_s
        rows += [Row(replicas, count, ideal, *map(list, zip(*turns, strict=True))) for count, turns in found.items()]
    return rows


@dataclass(frozen=True)
class Row:
    """Images a second and how busy the cores were, by round. `ideal`: what so many replicas could give at most."""

    replicas: int
    workers: int
    ideal: float
    images_per_s: list[float]
    busy_percent: list[float]

    @property
    def share(self) -> Ratio:
        return Ratio.of(self.images_per_s, [self.ideal] * len(self.images_per_s))

    @property
    def busy(self) -> bool:
        return median(self.busy_percent) >= BUSY_PERCENT


def show_scaled(rows: Sequence[Row]) -> list[Goal]:
    """The goal holds for the rows before the cores are busy, and so for the worst of these."""
    lines, counted = [], []
    for _, group in itertools.groupby(sorted(rows, key=lambda row: row.workers), key=lambda row: row.workers):
        met_busy = False
        for row in group:
            mark = "cores busy from here on" if row.busy and not met_busy else ""
            met_busy = met_busy or row.busy
            counted += [] if met_busy else [row]
            numbers = (f"{median(row.images_per_s):.0f}", f"{row.ideal:.0f}", str(row.share))
            lines.append((str(row.workers), str(row.replicas), *numbers, f"{median(row.busy_percent):.0f}%", mark))
    headings = ("workers", "replicas", "images/s", "ideal", "share of it", "cores busy", "")
    show(f"Replicas that wait, batches of {BATCH}", headings, lines)
    worst = sorted(counted, key=lambda row: row.share.of_medians)[:1]
    return [
        Goal(f"the worst of these, workers {row.workers}, replicas {row.replicas}", row.share, GOAL) for row in worst
    ]


def router_us() -> float:
    """Microseconds of a core that the router takes for a request and its answer, all replicas having work."""
    router = Router()
    router.keep(range(MANY_REPLICAS))
    under_way = deque(number for number in range(MANY_REPLICAS) for _ in range(2))
    for number in under_way:
        router.sent(number, 1)
    for number in [*under_way] * REMEMBERED:
        router.sent(number, 1)
        router.answered(number, 1, 0.05, 1)

    def request() -> None:
        number = router.choose(1) or 0
        router.slow_s(number)
        router.sent(number, 1)
        under_way.append(number)
        router.answered(under_way.popleft(), 1, 0.05, 1)

    seconds = timeit.repeat(request, timer=time.process_time, number=REQUESTS)
    return 1e6 * median(seconds) / REQUESTS


def main() -> None:
    arguments = parsed()
    say_whether_idle()
    with tempfile.TemporaryDirectory() as name, connected(None, {"CPU": max(arguments.replicas) + SPARE_CPUS}):
        rows = scaled(Fashion(), Path(name), arguments)
    goals = show_scaled(rows)
    microseconds = router_us()
    print(f"the router's own cost of a request among {MANY_REPLICAS} replicas: {microseconds:.0f} microseconds")
    show_goals(goals)
    keep("scaling", vars(arguments), rows=rows, goals=goals, router_us=microseconds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each number of workers")
    parser.add_argument("--seconds", type=float, default=4.0, help="on the clock, per turn")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="of the teacher")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="processes that ask")
    parser.add_argument("--answer-ms", type=float, default=50.0, help="a teacher's time for a batch of 128")
    parser.add_argument(
        "--window", type=int, help="batches that each worker has under way; left out: as many as it takes"
    )
    parser.add_argument("--inputs", choices=("sent", "derived"), default="sent", help="who makes the teachers' pixels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
