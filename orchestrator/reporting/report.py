"""The report of one run, or the comparison of several: HTML pages that need nothing but themselves.

Made from the runs' folders alone: imports no torch and no Ray. Words are in `verdict`, drawings in `plots` and
`compared`, the pages in `pages/`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.storage import file_at
from orchestrator.document import dump
from orchestrator.live import duration
from orchestrator.printing import bytes_text
from orchestrator.reporting import compared, lanes, plots, serving, verdict
from orchestrator.reporting.figures import Figure, Look, looks
from orchestrator.reporting.recorded import RecordedRun, Values, finished_beside, read_run
from orchestrator.reporting.removal import removals
from orchestrator.result import REPORT_FILE, STUDENT_FILE

MOST_CALIBRATED = 3
PAGES = Path(__file__).parent / "pages"


def write_report(folder: str, to: str | None = None) -> str:
    """Writes the report of a finished run beside it, or to a file; gives its path. Raises ValueError for a folder
    that is no finished run."""
    run = read_run(folder)
    return _write(to or run.folder.file(REPORT_FILE), "report.html.jinja", _of_one(run))


def write_comparison(folders: Sequence[str], to: str) -> str:
    """Writes a comparison of several finished runs to a file; gives its path."""
    runs = [read_run(folder) for folder in folders]
    return _write(to, "comparison.html.jinja", _of_several(runs))


def _write(path: str, template: str, content: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    words = {"percent": verdict.percent, "share": serving.share_text, "bytes": bytes_text}
    pages.filters |= {**words, "time": serving.time_text, "duration": duration, "count": _count}
    folder, name = file_at(path)
    folder.write(name, pages.get_template(template).render(content).encode())
    return folder.file(name)


def _of_one(run: RecordedRun) -> dict[str, Any]:
    look = looks([*run.models, *({"name": name, "role": "teacher"} for name in run.lost)])
    checks = removals([*finished_beside(run), run], about=run)
    untried = verdict.unchecked(run, checks)
    return {
        "run": run,
        "look": look,
        "student": run.student,
        "alone": run.model("alone"),
        "ensemble": run.model("ensemble"),
        "gain": verdict.gain_over_alone(run),
        "dropped_said": verdict.dropped_sentences(run),
        "gain_said": verdict.gain_sentences(run),
        "teachers_said": verdict.teacher_sentences(run),
        "removals_said": verdict.removal_sentences(checks),
        "untried": untried,
        "commands": verdict.commands(run, untried) if untried else (),
        "most": verdict.helped_most(run.result["contributions"]),
        "least": verdict.helped_least(run.result["contributions"]),
        "weights": plots.teacher_weights(run.student_rung["history"], look),
        "figures": _figures(run, look),
        "pictures": [{**one, "data": _picture(run, one["image"])} for one in run.result["disagreements"]],
        "servings": [one for one in (_served(run, rung, look) for rung in reversed(run.rungs)) if one],
        "config": dump(run.document),
        "loading": _loading(run),
    }


def _figures(run: RecordedRun, look: Mapping[str, Look]) -> list[Figure]:
    trained = [rung for rung in run.rungs if rung["history"]]
    taught = sorted((rung for rung in trained if rung["role"] != "teacher"), key=lambda rung: rung["role"] == "student")
    teachers = [rung for rung in trained if rung["role"] == "teacher"]
    models = [*(m for m in run.models if m["role"] != "student"), run.student]
    teaching = [model for model in models if model["role"] == "teacher"]
    alone, matrix = run.model("alone"), run.result["agreement"]
    found = [
        plots.accuracy(taught, look, "Validation accuracy"),
        plots.losses(taught, look, "Losses"),
        plots.accuracy_against(models, look, "size"),
        *([plots.accuracy_against(models, look, "latency")] if any(model["latency_ms"] for model in models) else []),
        plots.reliability([m for m in models if m["role"] != "teacher" or len(teaching) <= MOST_CALIBRATED], look),
        plots.agreement(matrix["names"], matrix["shares"]),
        *([plots.gain_per_class(run.result["classes"], run.student, alone, look)] if alone else []),
        plots.times([*reversed(taught), *teachers]),
    ]
    if teachers:
        found += [
            plots.accuracy(teachers, look, "Teachers' accuracy"),
            plots.losses(teachers, look, "Teachers' losses"),
        ]
    return found


def _served(run: RecordedRun, rung: Values, look: Mapping[str, Look]) -> dict[str, Any]:
    """How its teachers served a rung; empty where nothing says."""
    pool, workers, timelines = rung.get("pool"), serving.by_worker(rung["history"]), run.timelines(rung["name"])
    if not pool and not any(workers) and not timelines:
        return {}
    spared = serving.passes_sentence(rung.get("passes", {}))
    over_time = lanes.replicas(rung["name"], pool, sum(rung["seconds"].values()), look) if pool else None
    return {
        "rung": rung["name"],
        "said": serving.sentences(rung["name"], workers, pool) + ([spared] if spared else []),
        "rows": serving.rows(workers, pool),
        "replicas": over_time,
        "events": pool["events"] if pool else [],
        "figures": lanes.epoch_figures(rung["name"], timelines, look),
    }


def _of_several(runs: Sequence[RecordedRun]) -> dict[str, Any]:
    labels, checks = compared.labels(runs), removals(runs)
    whole = [
        (label, run) for label, run in zip(labels, runs, strict=True) if all(run is not one.less for one in checks)
    ]
    untried = [(label, run, verdict.unchecked(run, checks)) for label, run in whole]
    return {
        "rows": compared.rows(runs, labels),
        "labels": labels,
        "differences": compared.differences(runs),
        "figures": compared.figures(runs, labels),
        "pairs": compared.pairs(runs, labels),
        "removals_said": verdict.removal_sentences(checks),
        "untried": [(label, name, verdict.commands(run, name)) for label, run, name in untried if name],
    }


def _picture(run: RecordedRun, name: str) -> str:
    """The image as a data URL; empty where the file is gone or lies outside the run."""
    *folders, file = name.split("/")
    try:
        folder = run.folder / "/".join(folders) if folders else run.folder
        path = Path(folder.path, file)
        if not folder.has(file) or not (folder.is_remote or Path(run.folder.path) in path.resolve().parents):
            return ""
    except ValueError:
        return ""
    return "data:image/png;base64," + base64.b64encode(folder.read(file)).decode()


def _loading(run: RecordedRun) -> str:
    """Python that loads the student."""
    model = run.config.student.model
    module, _, attribute = model.target.partition(":")
    arguments = ", ".join(f"{name}={value!r}" for name, value in model.kwargs.items())
    first = attribute.split(".")[0]
    file, imported = repr(run.folder.file(STUDENT_FILE)), ""
    if run.folder.is_remote:
        file, imported = f"local_file({file})", "from actors.storage import local_file\n"
    return (
        f"from {module} import {first}\n{imported}from safetensors.torch import load_file\n\n"
        f"student = {attribute}({arguments})\n"
        f"student.load_state_dict(load_file({file}))\nstudent.eval()"
    )


def _count(value: float | None) -> str:
    """A large number for people: 14.5 k, 1.2 M."""
    if value is None:
        return "\N{EN DASH}"
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"
