"""Plans and results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.result import ExperimentResult
from orchestrator.targets import not_here
from orchestrator.tracking.delivery import without_password

if TYPE_CHECKING:
    from actors.pool.controller import PoolStatus
    from orchestrator.plan import Plan, PlannedRung, Teaching

PIXELS = {
    "sent": "pixels are sent to the teachers (inputs: sent)",
    "derived": "teachers build the pixels from ids and views (inputs: derived)",
}
PASSES = ("asked", "read", "computed", "written")
COUNTS = ("serving", "wanted", "students waited")
STORED = ("samples", "views", "complete", "files", "size", "there", "needed", "compared", "other pixels", "differ")
NUMBERS = (*PASSES, *STORED, *COUNTS, "parameters", "each sample", "each step", "accuracy", "cross-entropy")


def print_plan(plan: Plan, console: Console) -> None:
    rungs = table_of(f"{plan.name}: the plan", "rung", "parameters", "trained", "takes")
    taught = table_of("", "taught", "by", "knowledge", "each sample", "each step")
    for planned in plan.rungs:
        add_row(rungs, *_rung_row(planned))
        for one in planned.teaching:
            sent = (_per_sample(one), "?" if one.bytes_per_step is None else bytes_text(one.bytes_per_step))
            add_row(taught, planned.rung.name, one.teacher, ", ".join(one.outputs), *sent)
    console.print(rungs)
    console.print()
    console.print(taught)
    if plan.inputs is not None:
        console.print(PIXELS[plan.inputs], highlight=False, markup=False, soft_wrap=True)
    for rung, num_bytes in plan.stored.items():
        console.print(f"the store will keep {bytes_text(num_bytes)} for {rung}", highlight=False, markup=False)
    for name in plan.unheard:
        console.print(f"nobody listens to {name}: it is scored, not asked", highlight=False, markup=False)
    for line in plan.elsewhere:
        console.print(f"checked on the cluster: {not_here(line)}", highlight=False, markup=False, soft_wrap=True)


def print_cluster(resources: Mapping[str, float], console: Console) -> None:
    console.print(f"the cluster has {amounts_text(resources)}", highlight=False)


def print_result(result: ExperimentResult, console: Console, tracked: str = "") -> None:
    """`tracked`: the store that MLflow keeps the run in."""
    table = table_of(f"{result.name}: on the test set", "model", "accuracy", "cross-entropy", "parameters")
    for model in result.models:
        name = model.name if model.role in ("ensemble", model.name) else f"{model.role} {model.name}"
        style = "bold" if model.role == "student" else ""
        numbers = (f"{model.accuracy:.2%}", f"{model.cross_entropy:.4f}", f"{model.parameters:,}")
        add_row(table, name, *numbers, style=style)
    console.print(table)
    _print_passes(result, console)
    places = {"result": result.result_file, "student": result.student_file, "report": result.report_file}
    if tracked:
        local = tracked.startswith("sqlite:")
        places["mlflow"] = f"mlflow ui --backend-store-uri {tracked}" if local else without_password(tracked)
    console.print()
    for name, place in places.items():
        console.print(f"{name:<8} {place}", highlight=False, markup=False, soft_wrap=True)


def _print_passes(result: ExperimentResult, console: Console) -> None:
    print_passes({rung.name: rung.passes for rung in result.rungs}, console)
    for rung in result.rungs:
        if rung.unwritten:
            text = f"{rung.name}: the store was not written to the end: {rung.unwritten}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_passes(rungs: Mapping[str, Mapping[str, Mapping[str, int]]], console: Console) -> None:
    """How often teachers were asked, and how often they had to compute; by rung and teacher."""
    table = table_of("teacher passes, in samples", "rung", "teacher", *PASSES)
    for rung, teachers in rungs.items():
        for teacher, passes in teachers.items():
            add_row(table, rung, teacher, *(f"{passes[name]:,}" for name in PASSES))
    if table.row_count:
        console.print()
        console.print(table)
    for rung, teachers in rungs.items():
        for teacher, passes in teachers.items():
            if passes["other_pixels"]:
                text = (
                    f"{rung}: the store knew {passes['other_pixels']:,} samples of {teacher} from other pixels: the "
                    "data, the view or a package has changed; they were computed again"
                )
                console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_pools(pools: Mapping[str, PoolStatus], free: Mapping[str, float], console: Console) -> None:
    """By rung; `free`: what the cluster has left."""
    table = table_of("", "rung", "teacher", *COUNTS)
    lines = []
    for rung, pool in pools.items():
        for name, host in pool.hosts.items():
            called = name if host.teachers == (name,) else f"{name} ({', '.join(host.teachers)})"
            add_row(table, rung, called, str(host.serving), str(host.wanted), f"{host.waited:.0%}")
            if host.trouble and name not in pool.failed:
                lines.append(f"{rung}: {name}: a new replica could not be started, tried again: {host.trouble}")
        lines += [f"{rung}: {lost.host} replica {lost.number} was lost: {cause}" for lost, cause in pool.lost.items()]
        lines += [f"{rung}: {host}: {cause}" for host, cause in pool.failed.items()]
    if any(host.serving < host.wanted for pool in pools.values() for host in pool.hosts.values()):
        lines.append(f"who is wanted and does not serve yet loads, or waits for a place; free: {amounts_text(free)}")
    console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def amounts_text(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(amounts.items())) or "nothing"


def table_of(title: str, *headings: str) -> Table:
    """Numbers stand on the right."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in NUMBERS else "left")
    return table


def add_row(table: Table, *cells: str, style: str = "") -> None:
    """Cells are text, not markup."""
    table.add_row(*map(escape, cells), style=style)


def _per_sample(taught: Teaching) -> str:
    """Bytes, and beside them what they would be if nothing were reduced at the teacher, where that differs."""
    if taught.bytes_per_sample is None or taught.unreduced is None:
        return "?"
    differs = taught.unreduced != taught.bytes_per_sample
    return bytes_text(taught.bytes_per_sample) + f" (unreduced {bytes_text(taught.unreduced)})" * differs


def _rung_row(planned: PlannedRung) -> tuple[str, ...]:
    rung = planned.rung
    slices = rung.labelled + (f" + {rung.unlabelled}" if rung.unlabelled else "")
    workers = f", {rung.num_workers} workers" if rung.num_workers > 1 else ""
    return (
        rung.name if rung.role in ("student", "alone") else f"{rung.role} {rung.name}",
        f"{planned.parameters:,}" if planned.parameters else "?",
        f"{rung.recipe.epochs} x {planned.steps_per_epoch or '?'} steps on {slices}{workers}",
        amounts_text(planned.need.amounts),
    )
