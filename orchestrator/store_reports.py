"""What `collegium store` says: tables of what lies in a store, what a config lacks, what was verified and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from actors.data import training_rows
from actors.storage import Folder
from actors.store.upkeep import Pruned, ShelfReport, listed
from actors.store.verifying import Verified, verified
from orchestrator.experiment import Experiment
from orchestrator.ladder import Rung, ladder
from orchestrator.ladder_run import Filled
from orchestrator.live import duration
from orchestrator.printing import add_row, bytes_text, print_passes, table_of
from orchestrator.storing import Covered, coverage, judged_by, requests_by_view, store_of
from orchestrator.trained import found_trained

HASH_SHOWN = 12
SHOWN = ("teacher", "model", "output", "kept as", "samples", "views", "complete", "files", "size", "written")


def shelves(folder: Folder) -> list[ShelfReport]:
    """Raises ValueError where there is no store."""
    found = listed(folder)
    if not found:
        raise ValueError(f"store: nothing is kept in {folder}; fill it with: collegium store build CONFIG, or by a run")
    return found


def print_shelves(folder: Folder, found: Sequence[ShelfReport], console: Console) -> None:
    table = table_of(
        str(folder), "teacher", "model", "output", "kept as", "samples", "views", "complete", "files", "size", "written"
    )
    for one in found:
        add_row(
            table,
            one.teacher[:HASH_SHOWN],
            str(one.identity["teacher"]["model"]["target"]),
            output_text(one),
            one.identity["encoding"]["name"],
            f"{one.samples:,}",
            str(one.views),
            f"{one.share:.0%}",
            str(one.shards),
            bytes_text(one.num_bytes),
            f"{duration(max(0.0, time.time() - one.changed_s))} ago",
        )
    console.print(table)
    console.print(f"{bytes_text(sum(one.num_bytes for one in found))} in all", highlight=False)
    print_torn(found, console)


def output_text(one: ShelfReport) -> str:
    if "output" in one.identity:
        return str(one.identity["output"])
    made, part = str(one.identity["reduction"]).partition(":")[2], str(one.identity["part"])
    return f"{made}({', '.join(one.identity['of'])}){part}"


def print_torn(found: Sequence[ShelfReport], console: Console) -> bool:
    """Whether files were torn."""
    torn = [f"{one.key}/{name}" for one in found for name in one.put_aside]
    for name in torn:
        console.print(f"torn or altered, set aside: {name}", highlight=False, markup=False, soft_wrap=True)
    if not torn:
        console.print(f"{sum(one.shards for one in found):,} files are whole", highlight=False)
    return bool(torn)


def coverage_of(experiment: Experiment) -> dict[str, list[Covered]]:
    """By rung, how much of what it needs is there."""
    return {rung.name: coverage(spec, store, length) for rung, spec, store, length, _ in _taught(experiment)}


def _taught(experiment: Experiment):  # noqa: ANN202 - the parts of each rung that is taught
    config, findings = experiment.config, experiment.findings
    data = config.data.spec()
    dataset = data.train.build()
    store = store_of(config, dataset)
    assert store is not None
    teachers = found_trained(config, findings, dataset, store)
    for rung in ladder(config):
        if rung.teachers:
            spec = rung.spec(data, config.data.validation, findings.num_classes, teachers)
            yield rung, spec, judged_by(store, spec.teachers), len(dataset), dataset


def print_coverage(found: Mapping[str, Sequence[Covered]], console: Console) -> None:
    table = table_of("what this config needs", "rung", "teacher", "piece", "there", "needed", "complete")
    for rung, covered in found.items():
        for one in covered:
            piece = one.piece.partition(":")[2] or one.piece
            add_row(
                table, rung, one.teacher, piece, f"{one.there:,}", f"{one.needed:,}", f"{one.there / one.needed:.0%}"
            )
    console.print()
    console.print(table)


def verified_by(experiment: Experiment, samples: int) -> Iterator[tuple[Rung, Verified]]:
    """Computes rows of each piece again."""
    for rung, spec, store, _, dataset in _taught(experiment):
        requests = requests_by_view(spec, [teacher.name for teacher in spec.teachers])
        asked = dict.fromkeys(one for request in requests.values() for one in request)
        for one in verified(spec, store, tuple(asked), training_rows(dataset, spec.data), samples):
            yield rung, one


def print_verified(found: Iterator[tuple[Rung, Verified]], console: Console) -> bool:
    """Whether anything differs."""
    headings = ("rung", "teacher", "piece", "compared", "other pixels", "differ", "by at most")
    table, differs = table_of("computed again", *headings), False
    for rung, one in found:
        piece = one.piece.partition(":")[2] or one.piece
        numbers = (f"{one.compared:,}", f"{one.other_pixels:,}", f"{one.differing:,}", f"{one.largest:.3g}")
        add_row(table, rung.name, one.teacher, piece, *numbers)
        differs |= bool(one.differing)
    console.print(table)
    return differs


def print_filled(filled: Mapping[str, Filled], console: Console) -> None:
    print_passes({name: one.passes for name, one in filled.items()}, console)
    for name, one in filled.items():
        console.print(f"{name}: complete, in {one.store.folder}", highlight=False, markup=False, soft_wrap=True)


def print_pruned(done: Pruned, dry: bool, console: Console) -> None:
    said = "would be removed" if dry else "removed"
    for one in done.removed:
        text = f"{said}: {one.teacher[:HASH_SHOWN]} {output_text(one)}, {one.rows:,} rows, {bytes_text(one.num_bytes)}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for one in done.read_now:
        text = f"kept, somebody reads it now: {one.teacher[:HASH_SHOWN]} {output_text(one)}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{bytes_text(sum(one.num_bytes for one in done.removed))} {said}", highlight=False)
