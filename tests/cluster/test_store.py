"""Runs with a store: what teachers said is computed once, whoever asks, and the student does not notice."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from actors.fingerprints import ROWS_SAMPLED
from actors.storage import Folder
from actors.store.upkeep import listed
from actors.views import crop_and_flip
from orchestrator.cli import app
from orchestrator.experiment import Experiment
from orchestrator.live import LiveView
from tests.cluster.runs import sha256

DIGITS = "orchestrator/recipes/digits.yaml"
SAMPLES, VIEWS = 600, 2
TEACHERS = ("wide", "convolutional")
QUICK = (
    "teachers.wide.train.epochs=2",
    "teachers.convolutional.train.epochs=1",
    "student.alone=false",
    "student.epochs=5",
    f"data.num_views={VIEWS}",
    "tracking.send=false",
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def settings(storage: Path, *overrides: str) -> list[str]:
    return [f"storage={storage}", *QUICK, *overrides]


def ran(storage: Path, *overrides: str):
    with open(storage / "log.txt", "a+") as log:
        start_of_log = log.tell()
        view = LiveView(Console(file=log, width=200))
        result = Experiment.from_yaml(DIGITS, settings(storage, *overrides)).run(view=view)
        log.seek(start_of_log)
        return result, log.read()


def student_of(result):
    rung = next(rung for rung in result.rungs if rung.name == "student")
    return rung, sha256(Path(result.student_file))


def passes(asked, computed):
    return {"asked": asked, "read": asked - computed, "computed": computed, "written": computed, "other_pixels": 0}


def test_workers_compute_each_row_once_though_they_ask_for_what_others_have_under_way(cluster, storage):
    """With one view, an epoch's first steps ask for what another worker had in the last steps of the epoch before."""
    result, _ = ran(storage, "store=true", "student.num_workers=2", "data.num_views=1", "name=two")
    rung, _ = student_of(result)
    assert rung.passes == {name: passes(5 * SAMPLES, SAMPLES) for name in TEACHERS} and rung.pool is not None


def test_in_process_teachers_are_loaded_for_what_is_missing_alone(cluster, storage):
    local = ("source=local", f"store={{folder: {storage / 'own'}}}")
    first, _ = ran(storage, *local, "losses.soft.teachers=[wide]", "name=local")
    second, _ = ran(storage, *local, "name=local2")
    assert student_of(first)[0].passes == {"wide": passes(5 * SAMPLES, SAMPLES * VIEWS)}
    assert student_of(second)[0].passes == {
        "wide": passes(5 * SAMPLES, 0),
        "convolutional": passes(5 * SAMPLES, SAMPLES * VIEWS),
    }


def test_where_pixels_have_changed_teachers_are_started_after_all(cluster, storage):
    """What the view adds to samples that no fingerprint looks at stands in a file: the store seems full."""
    shift = storage / "shift.txt"
    changing = (f"data.views={{target: 'tests.cluster.test_store:shifted', kwargs: {{file: {shift}}}}}", "store=true")
    shift.write_text("0")
    before, _ = ran(storage, *changing, "name=before")
    shift.write_text("1")
    after, said = ran(storage, *changing, "name=after")
    first, second = student_of(before)[0].passes["wide"], student_of(after)[0].passes["wide"]
    assert first == passes(5 * SAMPLES, SAMPLES * VIEWS) and "need not be started" in said
    assert SAMPLES * VIEWS > second["computed"] == second["other_pixels"] == second["written"] > SAMPLES
    assert student_of(after)[0].pool is not None


def shifted(dataset, sample_id, generator, *, file):
    pixels, label = crop_and_flip(dataset, sample_id, generator, padding=1)
    looked_at = np.linspace(0, len(dataset) - 1, ROWS_SAMPLED).astype(np.int64)
    shift = 0 if sample_id in looked_at else int(Path(file).read_text())
    return pixels + np.uint8(shift), label


def test_a_store_is_built_ahead_and_then_no_teacher_is_started(cluster, storage):
    config, place, runner = storage / "built.yaml", storage / "built", CliRunner()
    overrides = settings(storage, "name=built", f"store={{folder: {place}, encoding: float32}}")
    config.write_text(Experiment.from_yaml(DIGITS, overrides).config.to_yaml())

    built = runner.invoke(app, ["store", "build", str(config)])
    assert built.exit_code == 0 and "store for student: complete" in built.output, built.output
    shelves = listed(Folder(str(place)))
    assert [(one.rows, one.samples, one.views, one.share) for one in shelves] == [(1200, 600, 2, 1.0)] * 2
    again = runner.invoke(app, ["store", "build", str(config)])
    assert again.exit_code == 0 and "images/s" not in again.output, "nothing was left to do"

    result, said = ran(storage, "name=built", f"store={{folder: {place}, encoding: float32}}")
    rung, student = student_of(result)
    assert rung.passes == {name: passes(5 * SAMPLES, 0) for name in TEACHERS} and rung.pool is None
    assert "student  is taught from the store by wide, convolutional, who need not be started" in said
    assert json.loads(Path(result.result_file).read_text())["store"]["encoding"] == "float32"
    plain, _ = ran(storage, "name=plain", "source=local")
    assert student_of(plain)[1] == student
    assert student_of(plain)[0].passes == {name: {**passes(3000, 3000), "written": 0} for name in TEACHERS}

    seen = runner.invoke(app, ["store", "ls", str(config)])
    assert seen.exit_code == 0 and seen.output.count("100%") == 4 and "files are whole" in seen.output
    sound = runner.invoke(app, ["store", "verify", str(config), "--samples", "50"])
    assert sound.exit_code == 0 and "computed again" in sound.output
    pruned = runner.invoke(app, ["store", "prune", str(place), "--to-size", "0"])
    assert pruned.exit_code == 0 and listed(Folder(str(place))) == []
