"""The parts of a comparison of several runs: rows, what differs between their configs, pairs, figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.reporting import plots
from orchestrator.reporting.figures import Figure, Look, as_svg, canvas, numbered
from orchestrator.reporting.paired import Paired
from orchestrator.reporting.recorded import RecordedRun

_ABSENT = "\N{EN DASH}"


def labels(runs: Sequence[RecordedRun]) -> list[str]:
    """A name for each run that no other has: its folder's, with the experiment's where they differ."""
    one_name = len({run.result["name"] for run in runs}) == 1
    found = [run.label if one_name else f"{run.result['name']}/{run.label}" for run in runs]
    counts = Counter(found)
    return [name if counts[name] == 1 else run.folder.path for name, run in zip(found, runs, strict=True)]


def look_of(number: int) -> Look:
    """The first run has the accent colour."""
    return Look("student") if number == 0 else numbered(number - 1)


def rows(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "label": name,
            "run": run,
            "look": look_of(number),
            "student": run.student,
            "alone": run.model("alone"),
            "ensemble": run.model("ensemble"),
        }
        for number, (name, run) in enumerate(zip(names, runs, strict=True))
    ]


def differences(runs: Sequence[RecordedRun]) -> list[tuple[str, list[str]]]:
    """The dotted paths whose values differ, and the value that each run has there."""
    flat = [dict(_leaves(run.document)) for run in runs]
    paths = list(dict.fromkeys(path for one in flat for path in one))
    values = [(path, [one.get(path, _ABSENT) for one in flat]) for path in paths]
    return [(path, each) for path, each in values if len(set(each)) > 1]


def pairs(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[tuple[str, Paired | None]]:
    """Every student against the first run's; None where the test samples are others."""
    first = runs[0]
    return [(name, _paired(first, run)) for name, run in zip(names[1:], runs[1:], strict=True)]


def figures(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[Figure]:
    look = {name: look_of(number) for number, name in enumerate(names)}
    students = [{**run.student_rung, "name": name} for name, run in zip(names, runs, strict=True)]
    curves = plots.accuracy(students, look, "Validation accuracy of the students")
    timed = [run for run in runs if any(model["latency_ms"] for model in run.models)]
    return [curves, _against_latency(runs, names, look)] if timed else [curves]


def _against_latency(runs: Sequence[RecordedRun], names: Sequence[str], look: Mapping[str, Look]) -> Figure:
    with canvas(2.9) as (drawing, [panel]):
        panel.set_xscale("log")
        for where, (name, role) in _places(runs, names).items():
            plots.dot(panel, *where, look[name], role)
        spoken = [f"{name} {run.student['accuracy']:.1%}" for name, run in zip(names, runs, strict=True)]
        plots.label_log(panel.xaxis, plots.milliseconds)
        panel.set_ylabel("test accuracy, %")
        panel.set_xlabel("latency of one image, one CPU thread")
        svg = as_svg(drawing, "all-latency", f"Test accuracy against latency; students: {', '.join(spoken)}")
    reading = "Up and to the left is better. Filled: students; crosses: students alone; hollow: teachers and ensembles."
    return Figure("Accuracy against latency of all models", reading, svg, list(look.items()))


def _places(runs: Sequence[RecordedRun], names: Sequence[str]) -> dict[tuple[float, float], tuple[str, str]]:
    """Latency and accuracy in percent -> run and role; a teacher whom several runs have stands once."""
    found: dict[tuple[float, float], tuple[str, str]] = {}
    for name, run in zip(names, runs, strict=True):
        for model in (model for model in run.models if model["latency_ms"]):
            found.setdefault((model["latency_ms"]["1"], 100 * model["accuracy"]), (name, model["role"]))
    return found


def _paired(first: RecordedRun, second: RecordedRun) -> Paired | None:
    ours, theirs = (run.predictions["label"] for run in (first, second))
    if len(ours) != len(theirs) or not (ours == theirs).all():
        return None
    return Paired.of(first.right("student"), second.right("student"))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node if isinstance(node, str) else json.dumps(node, default=str)
