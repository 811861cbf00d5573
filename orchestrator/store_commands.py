"""`collegium store`: build, list, verify and prune what teachers have said. Imports no torch and no Ray by itself."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from orchestrator.terminal import Address, Overrides, terminal

store = typer.Typer(help="What teachers have said, kept: build ahead, list, verify, prune.", no_args_is_help=True)
INTERRUPTED = 130
SECONDS_OF_A_DAY = 86_400
BYTES_OF_A_GB = 1_000_000_000

Config = Annotated[str, typer.Argument(help="The experiment, a YAML file.")]
Place = Annotated[str, typer.Argument(help="A store's folder, or an experiment, a YAML file.", metavar="STORE|CONFIG")]


@store.command()
def build(config: Config, overrides: Overrides = None, address: Address = None) -> None:
    """Fill the store with all that a run would ask of its teachers; the same command goes on after an interruption."""
    from orchestrator.building import build_store
    from orchestrator.experiment import Experiment
    from orchestrator.live import LiveView
    from orchestrator.store_reports import print_filled

    console = terminal()
    experiment = Experiment.from_yaml(config, overrides or [])
    try:
        filled = build_store(experiment, address=address, view=LiveView(console))
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on with what is missing")
        raise typer.Exit(INTERRUPTED) from None
    print_filled(filled, console)


@store.command()
def ls(place: Place, overrides: Overrides = None) -> None:
    """List what is there: for which teachers, how complete, how large. With CONFIG, what it needs as well."""
    from orchestrator.store_reports import coverage_of, print_coverage, print_shelves, shelves

    folder, experiment = _opened(place, overrides)
    print_shelves(folder, shelves(folder), terminal())
    if experiment is not None:
        print_coverage(coverage_of(experiment), terminal())


@store.command()
def verify(
    place: Place,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(help="How many rows of each piece are computed again.", min=1)] = 256,
) -> None:
    """Check every file; with CONFIG, compute a random sample again and compare. Ends with 1 where something differs."""
    from orchestrator.store_reports import print_torn, print_verified, shelves, verified_by

    folder, experiment = _opened(place, overrides)
    torn = print_torn(shelves(folder), terminal())
    differs = experiment is not None and print_verified(verified_by(experiment, samples), terminal())
    if torn or differs:
        raise typer.Exit(1)


@store.command()
def prune(
    place: Place,
    teacher: Annotated[str | None, typer.Option(help="The beginning of its weights' hash, as ls shows it.")] = None,
    older_than: Annotated[float | None, typer.Option(help="Days since it was last written into.", min=0)] = None,
    to_size: Annotated[float | None, typer.Option(help="GB that may stay; the oldest go first.", min=0)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
) -> None:
    """Remove what all given conditions say; never what a run reads now."""
    if teacher is None and older_than is None and to_size is None:
        raise ValueError("store prune: expected --teacher, --older-than or --to-size; without one nothing is removed")
    from actors.store.upkeep import prune as pruned
    from orchestrator.store_reports import print_pruned

    folder, _ = _opened(place, None)
    done = pruned(
        folder,
        teacher=teacher,
        older_than_s=None if older_than is None else older_than * SECONDS_OF_A_DAY,
        to_bytes=None if to_size is None else int(to_size * BYTES_OF_A_GB),
        dry=dry_run,
    )
    print_pruned(done, dry_run, terminal())


def _opened(place: str, overrides: list[str] | None):  # noqa: ANN202 - a Folder and an Experiment, imported late
    """The store's folder; and the experiment, where one was given."""
    from actors.storage import Folder, is_uri

    if is_uri(place) or os.path.isdir(place):
        if overrides:
            raise ValueError(f"store: {place} is a folder, changes to a config would be ignored; leave them out")
        return Folder.found_at(place), None
    if not os.path.isfile(place):
        raise ValueError(f"store: expected a store's folder or an experiment's YAML file, found nothing at {place!r}")
    from orchestrator.experiment import Experiment
    from orchestrator.storing import refuse_storeless, store_folder

    experiment = Experiment.from_yaml(place, overrides or [])
    refuse_storeless(experiment.config)
    return store_folder(experiment.config), experiment
