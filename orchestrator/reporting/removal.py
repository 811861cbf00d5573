"""The check by removal: two runs that differ only in one teacher whom the second one's student does not hear.

`removals` finds such pairs among runs; `removal_command` says how to make one. Imports no torch and no Ray.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean
from typing import Any

from orchestrator.config import ExperimentConfig
from orchestrator.loss_config import LossConfig
from orchestrator.problems import ConfigError
from orchestrator.reporting.paired import Paired
from orchestrator.reporting.recorded import RecordedRun
from orchestrator.result import CONFIG_FILE

BY_TEACHER = ("weights", "routes")
"""What an ensemble rule's kwargs have by teacher."""

# None of these changes which student a seed gives.
_ELSEWHERE = {"name", "storage", "source", "answer_timeout_s", "inputs", "tracking", "teachers", "losses"}
_OF_A_STUDENT = {"resources", "window", "checkpoint_every_steps", "alone", "losses", "may_be_dropped"}
_OF_A_TEACHER = {"resources", "replicas", "actor", "train", "checkpoint", "may_be_dropped"}


@dataclass(frozen=True)
class Removal:
    """`teacher` is heard by the student of `whole` and not by that of `less`; nothing else differs."""

    teacher: str
    whole: RecordedRun
    less: RecordedRun
    paired: Paired


def removals(runs: Sequence[RecordedRun], about: RecordedRun | None = None) -> list[Removal]:
    """Every fair pair among runs, of equal ones the last; by teacher and seed. `about`: only pairs with this one."""
    found: dict[tuple[Any, ...], Removal] = {}
    for whole, less in permutations(runs, 2):
        if about is not None and about is not whole and about is not less:
            continue
        removal = _removal(whole, less)
        if removal:
            found[removal.teacher, whole.result["seed"], repr(_recipe(whole.config, None))] = removal
    return sorted(found.values(), key=lambda one: (one.teacher, one.whole.result["seed"]))


def heard(config: ExperimentConfig, rung: str = "student") -> tuple[str, ...]:
    """Those whom a rung listens to."""
    return tuple(dict.fromkeys(name for names in _listeners(config, rung).values() for name in names))


def removal_command(run: RecordedRun, teacher: str) -> str:
    """The command that trains the same student without one of its teachers."""
    changes = []
    for name, listeners in _listeners(run.config, "student").items():
        if teacher in listeners:
            changes += _without(name, run.config.losses[name], listeners, teacher)
    storage = str(run.folder.parent.parent)
    tracking = run.config.tracking
    unregistered = ["tracking.alias=null", "tracking.registered_as=null"] if tracking.registered_as else []
    return shlex.join(["collegium", "run", run.folder.file(CONFIG_FILE), *changes, f"storage={storage}", *unregistered])


def mean_over_seeds(checks: Iterable[Removal]) -> tuple[float, float, int]:
    """The mean difference in points over seeds, its standard error and the number of seeds."""
    points = [one.paired.points for one in checks]
    mean, count = fmean(points), len(points)
    spread = sum((one - mean) ** 2 for one in points) / max(count - 1, 1)
    return mean, (spread / count) ** 0.5, count


def _without(name: str, loss: LossConfig, listeners: Sequence[str], teacher: str) -> list[str]:
    rest = [one for one in listeners if one != teacher]
    if not rest:
        return [f"losses.{name}.weight=0"]
    changes = [f"losses.{name}.teachers=[{','.join(rest)}]"]
    kwargs = loss.ensemble.kwargs if loss.ensemble else {}
    for key in (key for key in BY_TEACHER if isinstance(kwargs.get(key), Mapping) and teacher in kwargs[key]):
        kept = {one: value for one, value in kwargs[key].items() if one != teacher}
        changes.append(f"losses.{name}.ensemble.kwargs.{key}={_in_a_line(kept) if kept else 'null'}")
    return changes


def _in_a_line(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping)


def _removal(whole: RecordedRun, less: RecordedRun) -> Removal | None:
    if whole.dropped or less.dropped:
        return None
    try:
        missing = [name for name in heard(whole.config) if name not in heard(less.config)]
        fair = len(missing) == 1 and _recipe(whole.config, missing[0]) == _recipe(less.config, None)
    except ConfigError:
        return None
    if not fair or not _same_teachers(whole, less) or not _same_samples(whole, less):
        return None
    return Removal(missing[0], whole, less, Paired.of(whole.right("student"), less.right("student")))


def _same_teachers(whole: RecordedRun, less: RecordedRun) -> bool:
    """Whether those whom both hear have the same weights."""
    first, second = whole.student_rung["teachers"], less.student_rung["teachers"]
    return set(second) <= set(first) and all(first[name] == second[name] for name in second)


def _same_samples(whole: RecordedRun, less: RecordedRun) -> bool:
    first, second = whole.predictions["label"], less.predictions["label"]
    return len(first) == len(second) and bool((first == second).all())


def _listeners(config: ExperimentConfig, rung: str) -> dict[str, tuple[str, ...]]:
    """Whom each loss of a rung hears; losses on labels and those whose weight is 0 are left out."""
    losses, above = config.losses_of(rung), config.teachers_of(rung)
    found = {name: loss.listeners(above) for name, loss in losses.items() if not loss.is_dropped}
    return {name: listeners for name, listeners in found.items() if listeners}


def _recipe(config: ExperimentConfig, removed: str | None) -> dict[str, Any]:
    """All that decides which student comes out, as if the student did not hear `removed`."""
    plain = config.model_dump()
    student = _losses(config, "student", removed)
    names = {name for loss in student.values() for name in loss["teachers"]} & {*config.teachers}
    return {
        **{key: value for key, value in plain.items() if key not in _ELSEWHERE},
        "student": _less(plain["student"], _OF_A_STUDENT),
        "assistants": {name: _less(section, _OF_A_STUDENT) for name, section in plain["assistants"].items()},
        "losses": student,
        "losses of assistants": {name: _losses(config, name, None) for name in config.assistants},
        "teachers": {name: _less(plain["teachers"][name], _OF_A_TEACHER) for name in sorted(names)},
    }


def _losses(config: ExperimentConfig, rung: str, removed: str | None) -> dict[str, Any]:
    listening = _listeners(config, rung)
    found = {}
    for name, loss in config.losses_of(rung).items():
        rest = sorted(one for one in listening.get(name, ()) if one != removed)
        if loss.is_dropped or (loss.on != "labels" and not rest):
            continue
        found[name] = {**loss.model_dump(), "teachers": rest, "ensemble": _rule(loss, rest)}
    return found


def _rule(loss: LossConfig, teachers: Sequence[str]) -> Any:
    """The ensemble rule; fixed weights as the shares of these teachers."""
    if loss.ensemble is None:
        return None
    rule = loss.ensemble.model_dump()
    weights = rule["kwargs"].get("weights", {})
    if weights is not None and not isinstance(weights, Mapping):
        return rule
    raw = [(weights or {}).get(name, 1.0) for name in teachers]
    shares = [round(one / sum(raw), 9) for one in raw] if sum(raw) else raw
    kwargs = _less(rule["kwargs"], {"weights"})
    if isinstance(kwargs.get("routes"), Mapping):
        kwargs["routes"] = {name: kwargs["routes"].get(name) for name in teachers}
    return {"target": rule["target"], "kwargs": kwargs, "shares": shares}


def _less(section: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
