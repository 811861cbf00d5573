"""Plans and results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from orchestrator.plan import Plan, PlannedRung
from orchestrator.result import ExperimentResult
from orchestrator.targets import where_looked


def print_plan(plan: Plan, console: Console) -> None:
    table = Table(title=f"{plan.name}: the plan", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("rung", "trained", "parameters", "workers", "taught by", "each step sends", "takes"):
        table.add_column(heading, overflow="fold")
    for planned in plan.rungs:
        table.add_row(*_plan_row(planned))
    console.print(table)
    for target in plan.elsewhere:
        hint = where_looked(target.partition(": ")[2])
        console.print(f"checked on the cluster: {target}; {hint}", highlight=False, markup=False, soft_wrap=True)


def print_cluster(resources: Mapping[str, float], console: Console) -> None:
    console.print(f"the cluster has {amounts_text(resources)}", highlight=False)


def print_result(result: ExperimentResult, console: Console) -> None:
    table = Table(
        title=f"{result.name}: on the test set",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for heading in ("model", "accuracy", "cross-entropy", "parameters"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in result.models:
        name = model.name if model.role in ("ensemble", model.name) else f"{model.role} {model.name}"
        style = "bold" if model.role == "student" else ""
        table.add_row(name, f"{model.accuracy:.2%}", f"{model.cross_entropy:.4f}", f"{model.parameters:,}", style=style)
    console.print(table)
    console.print(f"\nresult   {result.result_file}\nstudent  {result.student_file}", highlight=False, soft_wrap=True)


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def amounts_text(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(amounts.items())) or "nothing"


def _plan_row(planned: PlannedRung) -> tuple[str, ...]:
    rung = planned.rung
    rows = f"{rung.labelled}" + (f" + {rung.unlabelled}" if rung.unlabelled else "")
    sent = [f"{one.teacher}: {', '.join(one.outputs)} {bytes_text(one.bytes_per_step)}" for one in planned.teaching]
    return (
        rung.name if rung.role in ("student", "alone") else f"{rung.role} {rung.name}",
        f"{rung.recipe.epochs} x {planned.steps_per_epoch or '?'} steps on {rows}",
        f"{planned.parameters:,}" if planned.parameters else "?",
        str(rung.num_workers),
        ", ".join(rung.teachers) or "labels",
        "\n".join(sent) or "-",
        amounts_text(planned.need.amounts),
    )
