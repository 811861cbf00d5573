"""How fast a student trains beside three teachers: in its own process, in a pool on the same cores, or elsewhere.

Two tables of images a second. On the cores of this machine: a student without teachers (on constant targets), with
three teachers in its process (a plain PyTorch loop; torchdistill), with the same three in Collegium's pool. Teachers
elsewhere: they wait instead of computing, so that they take no cores; students of several sizes, on one thread and on
two, beside the same students without teachers. The criterion is the same everywhere. All take turns in one run, which
takes less than ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import ceil, isclose
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from actors.pool.client import PoolClient
from actors.pool.members import PoolHandle
from actors.specs import TeacherSpec
from benchmarks import in_process
from benchmarks.calibration import usual_seconds, width_for
from benchmarks.fashion import BATCH, Fashion, batches, first_epoch, first_rows
from benchmarks.pools import bare_model, computing_teacher, in_its_own_process, pool_of
from benchmarks.sidebyside import Goal, Ratio, alternate, keep, per_second, say_whether_idle, show, show_goals
from benchmarks.students import SEED, TAPS, Constant, distilled, student_model, student_spec
from benchmarks.waiting import waiting_teacher

SETTLE_S = 0.4
SAME_LOSS = 1e-4
HAS_TORCHDISTILL = find_spec("torchdistill") is not None
THREADS = (1, 2)
GOAL_STEP_MS = 30
KINDS = {"logits": False, "logits and two maps": True}
FAMILIES = {
    "residual": ("actors.models:small_resnet", {"width": 24, "stem_stride": 2}),
    "plain": ("actors.models:plain_cnn", {"width": 48}),
    "mobile": ("actors.models:mobile_cnn", {"width": 16}),
}
WARM_S = 2.0
WAITING = ("first", "second", "third")
MAPS = {"stage1": (64, 14, 14), "stage2": (128, 7, 7)}
THIN_MAPS = {tap: (1, *space) for tap, (_, *space) in MAPS.items()}
"""Of one channel: what is made of a map at its teacher is as large, and what making it takes is the teacher's."""
ALONE, POOL = "no teacher", "in Collegium's pool"
PLAIN, TORCHDISTILL = "in its process, plain PyTorch", "in its process, torchdistill"

Found = dict[str, list[float]]


@dataclass(frozen=True)
class Way:
    """A student's endless steps, and the threads of its process."""

    steps: Iterator[float]
    threads: int

    def images_per_s(self, seconds: float) -> float:
        torch.set_num_threads(self.threads)
        return BATCH * per_second(lambda: next(self.steps), seconds, SETTLE_S)


def turns(ways: Mapping[str, Way], arguments: argparse.Namespace) -> Found:
    """Images a second, by way and round, once every way has found its pace: windows grow, memory is taken."""
    for way in ways.values():
        way.images_per_s(WARM_S)
    taken = {name: lambda way=way: way.images_per_s(arguments.seconds) for name, way in ways.items()}
    return alternate(taken, arguments.rounds)


def on_these_cores(
    width: int, teachers: Sequence[TeacherSpec], pool: PoolHandle, arguments: argparse.Namespace
) -> dict[str, Found]:
    """By kind of knowledge."""
    dataset = Fashion()
    constant = Constant(teachers, next(batches(dataset)))
    found = {}
    for kind, maps in KINDS.items():
        spec = student_spec(width, teachers, maps=maps, reduce=reduced(arguments))
        ways = {
            ALONE: Way(distilled(spec, batches(dataset), constant, 0), 1),
            **in_this_process(width, teachers, dataset, maps),
            POOL: Way(distilled(spec, batches(dataset), PoolClient(pool), None), 1),
        }
        refuse_different_losses({name: next(way.steps) for name, way in ways.items()})
        found[kind] = turns(ways, arguments)
    return found


def reduced(arguments: argparse.Namespace) -> Literal["teacher", "student"]:
    return "student" if arguments.whole_maps else "teacher"


def in_this_process(width: int, teachers: Sequence[TeacherSpec], dataset: Fashion, maps: bool) -> dict[str, Way]:
    """Without Collegium: all cores work at each forward."""
    loops = {PLAIN: in_process.plain}
    if HAS_TORCHDISTILL:
        loops[TORCHDISTILL] = in_process.torchdistill
    order, ways = first_epoch(dataset), {}
    for name, loop in loops.items():
        torch.manual_seed(SEED)
        student = student_model(width).model.build()
        models = [bare_model(teacher) for teacher in teachers]
        ways[name] = Way(loop(student, models, dataset, order, maps=maps), os.cpu_count() or 1)
    return ways


def refuse_different_losses(first: Mapping[str, float]) -> None:
    """All ways compute the same: the losses of their first steps say so."""
    if not all(isclose(loss, first[ALONE], rel_tol=SAME_LOSS) for loss in first.values()):
        raise RuntimeError(f"the ways do not compute the same, the losses of their first steps: {first}")


def show_these_cores(found: Mapping[str, Found], step_ms: int) -> list[Goal]:
    goals = []
    for kind, by_way in found.items():
        rows = [(way, f"{median(values):.0f}", str(Ratio.of(values, by_way[ALONE]))) for way, values in by_way.items()]
        title = f"On these cores: three teachers, a student whose own step takes about {step_ms} ms; {kind}"
        show(title, ("teachers", "images/s", "of no teacher"), rows)
        faster = max(by_way.keys() - {ALONE, POOL}, key=lambda way: median(by_way[way]))
        goals.append(Goal(f"{POOL} against {faster}, {kind}", Ratio.of(by_way[POOL], by_way[faster]), 1.0))
    return goals


def computing_teachers(folder: Path) -> list[TeacherSpec]:
    """Whole batches at once, as the peers do it."""
    teachers = [computing_teacher(name, folder, target, TAPS, **kwargs) for name, (target, kwargs) in FAMILIES.items()]
    return [replace(teacher, chunk=BATCH) for teacher in teachers]


def enough_replicas(step_ms: int, arguments: argparse.Namespace) -> int:
    """One more than answer as fast as a student with such a step asks."""
    return arguments.replicas or ceil(arguments.answer_ms / step_ms) + 1


def waiting_teachers(folder: Path, step_ms: int, arguments: argparse.Namespace) -> list[TeacherSpec]:
    return [
        waiting_teacher(
            name,
            folder,
            answer_s=arguments.answer_ms / 1000,
            rows=BATCH,
            features=MAPS if arguments.whole_maps else THIN_MAPS,
            seed=number,
            replicas=enough_replicas(step_ms, arguments),
            actor="together" if arguments.together else None,
        )
        for number, name in enumerate(WAITING)
    ]


def student_widths(teachers: Sequence[TeacherSpec], steps_ms: Sequence[int]) -> dict[int, int]:
    """The width of the student whose own step, on one thread, takes about so many ms: by the ms."""
    batch = first_rows(Fashion(), BATCH)
    constant = Constant(teachers, batch)
    torch.set_num_threads(1)

    def seconds_at(width: int) -> float:
        spec = student_spec(width, teachers, maps=False, reduce="teacher")
        steps = distilled(spec, itertools.repeat(batch), constant, 0)
        return usual_seconds(lambda: next(steps))

    return {ms: width_for(ms / 1000, seconds_at) for ms in steps_ms}


def elsewhere(
    ms: int, width: int, teachers: Sequence[TeacherSpec], pool: PoolHandle, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each number of threads and kind of knowledge."""
    dataset = Fashion()
    constant = Constant(teachers, next(batches(dataset)))
    rows = []
    for threads, kind in itertools.product(THREADS, KINDS):
        spec = student_spec(width, teachers, maps=KINDS[kind], reduce=reduced(arguments))
        client = PoolClient(pool)
        ways = {
            ALONE: Way(distilled(spec, batches(dataset), constant, 0), threads),
            POOL: Way(distilled(spec, batches(dataset), client, None), threads),
        }
        rows.append(
            {
                "threads": threads,
                "step_ms": ms,
                "width": width,
                "replicas": teachers[0].replicas,
                "knowledge": kind,
                "images_per_s": turns(ways, arguments),
                "bytes_per_sample": sum(one["bytes_per_sample"] for one in client.log.summary(1.0).values()),
            }
        )
    return rows


def show_elsewhere(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> list[Goal]:
    lines, goals = [], []
    for row in sorted(rows, key=lambda row: (row["threads"], row["step_ms"])):
        found: Found = row["images_per_s"]
        ratio, alone = Ratio.of(found[POOL], found[ALONE]), median(found[ALONE])
        lines.append(
            (
                f"{row['threads']} thread{'s' * (row['threads'] > 1)}, {row['step_ms']} ms",
                str(row["replicas"]),
                row["knowledge"],
                f"{row['bytes_per_sample']:.0f}",
                f"{1000 * BATCH / alone:.1f}",
                f"{alone:.0f}",
                f"{median(found[POOL]):.0f}",
                str(ratio),
            )
        )
        if (row["threads"], row["step_ms"], row["knowledge"]) == (1, GOAL_STEP_MS, "logits"):
            goals.append(Goal(f"{POOL} elsewhere against no teacher, a step of {GOAL_STEP_MS} ms", ratio, 0.95))
    together = ", in the same actors" if arguments.together else ""
    title = f"Teachers elsewhere: three{together}, each answers a batch in {arguments.answer_ms:g} ms"
    headings = (
        "student",
        "replicas of each",
        "knowledge",
        "bytes a sample",
        "step with its data, ms",
        "no teacher, images/s",
        POOL,
        "ratio",
    )
    show(title, headings, lines)
    return goals


def main() -> None:
    arguments = parsed()
    say_whether_idle()
    if not HAS_TORCHDISTILL:
        print("torchdistill is not installed: its row is left out")
    dataset = Fashion()
    with tempfile.TemporaryDirectory() as name:
        waiting = {ms: waiting_teachers(Path(name), ms, arguments) for ms in arguments.steps_ms}
        computing = computing_teachers(Path(name))
        widths = student_widths(next(iter(waiting.values())), arguments.steps_ms)
        step_ms = min(widths, key=lambda ms: abs(ms - GOAL_STEP_MS))
        with pool_of(computing, dataset, arguments.inputs) as pool:
            here = in_its_own_process(on_these_cores, widths[step_ms], computing, pool, arguments)
        goals = show_these_cores(here, step_ms)
        rows = []
        for ms, specs in waiting.items():
            with pool_of(specs, dataset, arguments.inputs) as pool:
                rows += in_its_own_process(elsewhere, ms, widths[ms], specs, pool, arguments)
        goals += show_elsewhere(rows, arguments)
    show_goals(goals)
    keep("training", vars(arguments), on_these_cores=here, elsewhere=rows, goals=goals)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=1.0, help="on the clock, per turn")
    parser.add_argument("--steps-ms", type=int, nargs="+", default=[5, 10, 30, 100], help="the students' own steps")
    parser.add_argument("--answer-ms", type=float, default=50.0, help="a waiting teacher's time for a batch of 128")
    parser.add_argument("--replicas", type=int, help="of each waiting teacher; left out: one more than keep up")
    parser.add_argument(
        "--whole-maps", action="store_true", help="maps travel whole, not as what the loss makes of them"
    )
    parser.add_argument("--together", action="store_true", help="the three waiting teachers live in the same actors")
    parser.add_argument("--inputs", choices=("sent", "derived"), default="sent", help="who makes the teachers' pixels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
