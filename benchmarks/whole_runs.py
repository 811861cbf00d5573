"""A whole run that begins with an empty store, and one more on the same store, beside runs without Collegium. All in
one process, on the same threads.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from math import isclose
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from torch import nn

from actors.checkpoints import Checkpoints
from actors.knowledge import TeacherRequest
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, StoreSpec, StudentSpec, TeacherSpec, WeightSpec
from benchmarks.demo import Demo, wider
from benchmarks.peers import LOOPS, PLAIN, Adapted, Same, order_of, pass_of, whole_run
from benchmarks.sidebyside import Goal, Ratio, alternate, show
from benchmarks.stores import Epochs, from_store, locally, store_of, trained
from benchmarks.students import Constant

FIRST, SECOND = "Collegium, an empty store", "Collegium, the same store, other temperature and weights"
T, S = "T: teachers, a pass over the student's data", "S: the student, an epoch"
OWN_T, OWN_S = "Collegium's own T", "Collegium's own S"
OTHER_TEMPERATURE, OTHER_WEIGHT = 2.0, 0.5
MEASURING_EPOCHS = 4
SAME_LOSS = 1e-2
"""The store keeps logits in half precision."""
AT_LEAST = 0.9

Found = dict[str, list[float]]


def first_allowed(teachers_s: float, student_s: float, epochs: int, num_views: int) -> float:
    """How much faster a run can be that asks teachers once about each view, than one that asks in each epoch."""
    asked = min(epochs, num_views)
    return epochs * (teachers_s + student_s) / (asked * teachers_s + epochs * student_s)


def second_allowed(teachers_s: float, student_s: float) -> float:
    """The same of a run that asks nobody."""
    return (teachers_s + student_s) / student_s


@dataclass(frozen=True)
class Setting:
    """`teachers` for Collegium; the same, `bare`, for the others. `order`: of the rows of a whole run."""

    demo: Demo
    teachers: Sequence[TeacherSpec]
    bare: Sequence[nn.Module]
    epochs: int
    order: Sequence[int]
    folder: str

    @property
    def spec(self) -> StudentSpec:
        return self.demo.spec(self.teachers, self.epochs)


def with_other_numbers(spec: StudentSpec) -> StudentSpec:
    kwargs, weight = {"temperature": OTHER_TEMPERATURE}, WeightSpec(OTHER_WEIGHT, OTHER_WEIGHT)
    losses = [
        replace(one, weight=weight, loss=ImportSpec(one.loss.target, kwargs if one.on == "logits" else {}))
        for one in spec.losses
    ]
    return replace(spec, losses=tuple(losses))


def seconds_of(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def ways_of(setting: Setting) -> dict[str, Callable[[], float]]:
    """Seconds of each. The second run reads what the latest first one has kept."""
    demo, spec = setting.demo, setting.spec
    folders = (f"{setting.folder}/{number}" for number in count())
    stores = deque([store_of(setting.folder, demo, setting.teachers)], maxlen=1)

    def first() -> None:
        stores.append(replace(stores[-1], folder=next(folders)))
        from_empty(setting, stores[-1])

    ours = {FIRST: first, SECOND: lambda: from_store(with_other_numbers(spec), demo, stores[-1], Checkpoints)}
    peers = {
        loop: lambda loop=loop: whole_run(loop, setting.bare, demo, setting.order, setting.epochs) for loop in LOOPS
    }
    whole = {name: lambda run=run: seconds_of(run) for name, run in {**peers, **ours}.items()}
    return {**measured_parts(setting), **whole}


def from_empty(setting: Setting, store: StoreSpec) -> Epochs:
    with locally(store, setting.teachers) as source:
        return trained(setting.spec, setting.demo, source, Checkpoints)


def measured_parts(setting: Setting) -> dict[str, Callable[[], float]]:
    """What T and S take, without Collegium and in it."""
    demo, epochs = setting.demo, min(MEASURING_EPOCHS, setting.epochs)
    batches = list(demo.batches(0))
    images = [batch.inputs["image"] for batch in batches]
    order = setting.order[: len(setting.order) * epochs // setting.epochs]
    local = LocalTeachers.load(setting.teachers)
    request = tuple(TeacherRequest(teacher.name) for teacher in setting.teachers)
    constant, spec = Constant(setting.teachers, batches[0]), demo.spec(setting.teachers, epochs)

    def ask_all() -> None:
        for batch in batches:
            local.ask(batch, request).result()

    return {
        T: lambda: pass_of(setting.bare, images),
        OWN_T: lambda: seconds_of(ask_all),
        S: lambda: seconds_of(lambda: whole_run(PLAIN, [Same(10)], demo, order, epochs)) / epochs,
        OWN_S: lambda: trained(spec, demo, constant, Checkpoints).seconds / epochs,
    }


def refuse_different_losses(setting: Setting) -> None:
    """All compute the same: the mean losses of the first epoch say so."""
    store = store_of(f"{setting.folder}/checked", setting.demo, setting.teachers)
    terms = from_empty(replace(setting, epochs=1), store).first_terms
    ours = sum(loss.weight.end * terms[loss.name] for loss in setting.spec.losses)
    order = setting.order[: len(setting.order) // setting.epochs]
    for loop in LOOPS:
        theirs = mean(whole_run(loop, setting.bare, setting.demo, order, 1))
        if not isclose(theirs, ours, rel_tol=SAME_LOSS):
            raise RuntimeError(f"Collegium and {loop} do not compute the same: mean losses of {ours} and {theirs}")


def measure(demo: Demo, arguments: argparse.Namespace) -> tuple[dict[str, Found], list[Goal]]:
    """By kind of teachers."""
    found, goals = {}, []
    teachers = demo.judging(arguments.threads, arguments.chunk)
    order = order_of(demo, arguments.epochs)
    with TemporaryDirectory(dir=arguments.folder) as name:
        heavy = [wider(teacher, Path(name), arguments.heavier) for teacher in teachers]
        several = {
            "the demo's teachers": (teachers, arguments.run_rounds),
            f"teachers {arguments.heavier} times as wide": (heavy, arguments.heavy_rounds),
        }
        for number, (what, (specs, rounds)) in enumerate(several.items()):
            if rounds:
                bare = [Adapted(spec) for spec in specs]
                setting = Setting(demo, specs, bare, arguments.epochs, order, f"{name}/{number}")
                refuse_different_losses(setting)
                found[what] = alternate(ways_of(setting), rounds)
                goals += show_runs(what, found[what], arguments.epochs, demo.num_views)
    return found, goals


def show_runs(what: str, found: Found, epochs: int, num_views: int) -> list[Goal]:
    rows = [(way, f"{median(seconds):.3f}") for way, seconds in found.items()]
    show(f"(b) {epochs} epochs, {num_views} views, {what}", ("", "seconds"), rows)
    shares, goals = [], []
    for run, bound in ((FIRST, partial(first_allowed, epochs=epochs, num_views=num_views)), (SECOND, second_allowed)):
        own = list(map(bound, found[OWN_T], found[OWN_S]))
        for loop in LOOPS:
            reached = [theirs / ours for theirs, ours in zip(found[loop], found[run], strict=True)]
            allowed = list(map(bound, found[T], found[S]))
            share, of_own = Ratio.of(reached, allowed), Ratio.of(reached, own)
            times = str(Ratio.of(found[loop], found[run]))
            shares.append((run, loop, times, f"{median(allowed):.2f}", str(share), f"{median(own):.2f}", str(of_own)))
            if loop == PLAIN:
                goals.append(Goal(f"(b) {run}, {what}: of what T and S allow", share, AT_LEAST))
                goals.append(Goal(f"(b) {run}, {what}: of what Collegium's own T and S allow", of_own, AT_LEAST))
    headings = ("run", "against", "times as fast", "T and S allow", "share", "own T and S allow", "share")
    show(f"Of what arithmetic allows, {what}", headings, shares)
    return goals
