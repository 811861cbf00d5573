"""The command `collegium`. What needs torch or Ray is imported when a command runs, so that `--help` is quick."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from actors.errors import KnowledgeError, TeacherLostError
from actors.storage import Folder
from orchestrator.store_commands import store
from orchestrator.terminal import Address, Overrides, terminal

app = typer.Typer(
    name="collegium",
    help="Distil several trained teachers into one small student, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
pool = typer.Typer(help="Who serves the teachers of a run under way: look, add, remove.", no_args_is_help=True)
app.add_typer(pool, name="pool")
app.add_typer(store, name="store")
errors = Console(stderr=True)
INTERRUPTED = 130
COMPARISON_FILE = "comparison.html"

Run = Annotated[str, typer.Argument(help="The folder of a run.", metavar="RUN")]
Teacher = Annotated[str, typer.Argument(help="Its name, or that of the actor it shares with others.")]
Count = Annotated[int, typer.Option(help="How many replicas.", min=1)]


@app.command()
def run(
    config: Annotated[str | None, typer.Argument(help="The experiment, a YAML file.")] = None,
    overrides: Overrides = None,
    resume: Annotated[str | None, typer.Option(help="The folder of an interrupted run; goes on with it.")] = None,
    address: Address = None,
) -> None:
    """Train teachers where needed, distil the student, score everything on the test set."""
    if (config is None) == (resume is None):
        _refuse("run: expected either CONFIG or --resume RUN; a resumed run keeps its config, without overrides")
    from orchestrator.experiment import Experiment
    from orchestrator.live import LiveView
    from orchestrator.printing import print_plan, print_result

    experiment = Experiment.of_run(resume) if resume else Experiment.from_yaml(str(config), overrides or [])
    console = terminal()
    plan = experiment.check()
    plan.refuse_if_elsewhere()
    print_plan(plan, console)
    try:
        result = experiment.run(resume=resume, address=address, view=LiveView(console))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    print_result(result, console, experiment.tracking_uri if experiment.config.tracking.send else "")


@app.command()
def check(
    config: Annotated[str | None, typer.Argument(help="The experiment, a YAML file.")] = None,
    overrides: Overrides = None,
    address: Address = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors.")] = False,
) -> None:
    """Say what a run would do and whether it could, without starting anything."""
    from orchestrator.config import ExperimentConfig

    if schema:
        typer.echo(json.dumps(ExperimentConfig.json_schema(), indent=1))
        return
    if config is None:
        _refuse("check: expected CONFIG, or --schema")
    from orchestrator.experiment import Experiment
    from orchestrator.printing import print_cluster, print_plan

    plan = Experiment.from_yaml(str(config), overrides or []).check()
    if address is None:
        refuse_misspelt(plan.elsewhere)
    print_plan(plan, terminal())
    if address is not None:
        from orchestrator.cluster import connected, imports_there

        with connected(address, {}) as resources:
            print_cluster(resources, terminal())
            plan.refuse_if_larger(resources)
            imports_there(plan.elsewhere)


@app.command()
def methods(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/methods.md.")] = False,
) -> None:
    """List the losses and ensemble rules: what each is, needs and takes, and its paper."""
    from orchestrator.methods import as_markdown, print_methods

    if markdown:
        typer.echo(as_markdown(), nl=False)
    else:
        print_methods(terminal())


@app.command()
def sync(
    folder: Run,
    uri: Annotated[str | None, typer.Option(help="Of the tracking server, where it is another one now.")] = None,
) -> None:
    """Send to MLflow what a run could not send while its server was away."""
    from orchestrator.tracking import tracker

    typer.echo(tracker.sync(folder, uri, typer.echo))


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="The folders of finished runs.", metavar="RUN [RUN ...]")],
    to: Annotated[str | None, typer.Option(help="The file to write; else RUN/report.html or comparison.html.")] = None,
) -> None:
    """Make a run's report again, or a comparison of several."""
    from orchestrator.reporting.report import write_comparison, write_report

    folders = list(dict.fromkeys(Folder.found_at(run).path for run in runs))
    written = write_report(folders[0], to) if len(folders) == 1 else write_comparison(folders, to or COMPARISON_FILE)
    typer.echo(f"report {written}")


@pool.command()
def status(folder: Run) -> None:
    """Say of each teacher how many replicas serve and are wanted, which were lost and why, and who is waited for."""
    from orchestrator.pools import pools_of
    from orchestrator.printing import print_pools

    with pools_of(folder) as pools:
        print_pools(pools.status(), pools.free(), terminal())


@pool.command()
def add(folder: Run, teacher: Teacher, count: Count = 1) -> None:
    """Let more replicas of a teacher join; they take up work as soon as they have loaded it."""
    _wish(folder, teacher, count)


@pool.command()
def remove(folder: Run, teacher: Teacher, count: Count = 1) -> None:
    """Let replicas of a teacher go once they have answered what they were asked; one is always left."""
    _wish(folder, teacher, -count)


def _wish(folder: str, teacher: str, change: int) -> None:
    from orchestrator.pools import pools_of

    with pools_of(folder) as pools:
        for line in pools.wish(teacher, change):
            typer.echo(line)


def refuse_misspelt(elsewhere: Sequence[str]) -> None:
    """What is not here may be on the cluster; what a package here nearly has the name of is a slip."""
    from orchestrator.targets import is_misspelt, not_here

    slips = [not_here(line) for line in elsewhere if is_misspelt(line)]
    if slips:
        raise ValueError("\n".join([*slips, "on a cluster that has them, check with --address"]))


def main() -> None:
    """Problems of the user's making end with a message, not with a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(prog_name="collegium")
    except (ValueError, KnowledgeError, TeacherLostError) as error:
        _refuse(str(error))


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _refuse(text: str) -> NoReturn:
    errors.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)
