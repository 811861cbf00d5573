"""Experiments end to end on a real cluster: through the Python API, as the README shows it."""

import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from actors.models import mlp
from actors.weights import weights_as_bytes
from orchestrator.cli import app
from orchestrator.experiment import Experiment
from orchestrator.live import LiveView
from orchestrator.tracking.tracker import tracking_uri
from tests.cluster.runs import sha256
from tests.cluster.stores import runs_of

DIGITS = "orchestrator/recipes/digits.yaml"
QUICK = ("teachers.wide.train.epochs=2", "teachers.convolutional.train.epochs=1", "student.epochs=2")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def ran(recipe: str, storage: Path, *overrides: str, **how):
    with open(storage / "log.txt", "a+") as log:
        start = log.tell()
        view = LiveView(Console(file=log, width=200))
        result = Experiment.from_yaml(recipe, [f"storage={storage}", *overrides]).run(view=view, **how)
        log.seek(start)
        return result, log.read()


def test_a_run_writes_its_result_its_config_and_a_student_that_loads_without_ray(cluster, storage):
    result, _ = ran(DIGITS, storage, *QUICK)

    written = json.loads(Path(result.result_file).read_text())
    assert [model["role"] for model in written["models"]] == ["teacher", "teacher", "ensemble", "alone", "student"]
    assert all(0 < model["accuracy"] <= 1 and model["samples"] == 400 for model in written["models"])
    rung = next(rung for rung in written["rungs"] if rung["name"] == "student")
    assert rung["bytes_per_sample"] == 2 * 10 * 4
    assert {"data", "wait", "forward", "backward"} <= set(rung["shares"])
    assert sum(rung["shares"].values()) == pytest.approx(1)

    model = mlp(width=32, depth=1)
    model.load_state_dict(load_file(result.student_file))
    assert result.model("student").parameters == sum(p.numel() for p in model.parameters())


def test_the_config_beside_a_run_runs_again_and_finds_its_teachers(cluster, storage):
    first, _ = ran(DIGITS, storage, *QUICK, "name=again")

    second, said = ran(str(Path(first.folder) / "config.yaml"), storage)

    assert sha256(Path(second.student_file)) == sha256(Path(first.student_file))
    assert {rung.name: rung.reused for rung in second.rungs} == {
        "wide": True,
        "convolutional": True,
        "alone": True,
        "student": False,
    }
    assert re.search(r"wide +found trained", said)


def test_a_changed_recipe_trains_its_teacher_anew(cluster, storage):
    ran(DIGITS, storage, *QUICK, "student.alone=false")

    result, _ = ran(DIGITS, storage, *QUICK, "student.alone=false", "teachers.wide.train.epochs=3")

    assert {rung.name: rung.reused for rung in result.rungs if rung.role == "teacher"} == {
        "wide": False,
        "convolutional": True,
    }


def test_another_seed_of_the_student_uses_the_same_teachers(cluster, storage):
    first, _ = ran(DIGITS, storage, *QUICK, "student.alone=false")
    other, _ = ran(DIGITS, storage, *QUICK, "student.alone=false", "seed=7")
    assert all(rung.reused for rung in other.rungs if rung.role == "teacher")
    assert sha256(Path(other.student_file)) != sha256(Path(first.student_file))


def test_two_workers_give_the_same_student_from_a_pool_as_in_process_and_nearly_that_of_one(cluster, storage):
    students = {}
    for num_workers in (1, 2):
        quick = (*QUICK, "student.alone=false", f"student.num_workers={num_workers}")
        local, _ = ran(DIGITS, storage, *quick, "source=local")
        students[num_workers] = load_file(local.student_file)
    pooled, _ = ran(DIGITS, storage, *quick, "source=pool", "teachers.wide.replicas=2")
    assert sha256(Path(pooled.student_file)) == sha256(Path(local.student_file))

    # Without BatchNorm and dropout, workers only share out a step; rows without labels lie unevenly among them.
    for name, weights in students[1].items():
        torch.testing.assert_close(students[2][name], weights, rtol=1e-3, atol=1e-4)


def test_rungs_that_do_not_need_each_other_train_at_the_same_time(cluster, storage, tmp_path):
    meeting = f"{{target: 'tests.cluster.nets:sgd_after_meeting', kwargs: {{folder: {tmp_path}, parties: 3}}}}"
    rungs = ("teachers.wide.train", "teachers.convolutional.train", "student")

    result, _ = ran(DIGITS, storage, *QUICK, *(f"{rung}.optimizer={meeting}" for rung in rungs))

    assert not any(rung.reused for rung in result.rungs)


def test_an_assistant_stands_between(cluster, storage):
    recipe = "orchestrator/recipes/digits_assistant.yaml"
    result, _ = ran(recipe, storage, "teachers.convolutional.train.epochs=2", "student.epochs=6", "student.alone=false")

    by_name = {rung.name: rung for rung in result.rungs}
    assert set(by_name["middle"].teachers) == {"convolutional"}
    assert set(by_name["student"].teachers) == {"middle"}
    assert by_name["student"].history[-1]["terms"]["relations"] > 0


def test_a_teacher_with_half_of_the_classes_in_another_order(cluster, storage, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "half.safetensors").write_bytes(weights_as_bytes(mlp(num_classes=3, width=16)))
    model = "{target: 'actors.models:mlp', kwargs: {num_classes: 3, width: 16}}"
    half = f"{{model: {model}, class_map: [7, 2, 5], checkpoint: {tmp_path / 'half.safetensors'}}}"
    overrides = (*QUICK, f"teachers.half={half}", "losses.soft.ensemble=mean_losses", "student.alone=false")

    result, _ = ran(DIGITS, storage, *overrides)

    known = next(model for model in result.models if model.name == "half")
    assert 0 < known.samples < 400


def test_an_experiment_larger_than_the_cluster_is_refused_with_numbers(cluster, storage):
    needed = r"placement: student needs 4 GPU \(2 for 1 student worker \+ 2 for 2 x teacher wide\), the cluster has 0"
    with pytest.raises(ValueError, match=needed):
        ran(
            DIGITS,
            storage,
            "teachers.wide.resources={num_gpus: 1}",
            "teachers.wide.replicas=2",
            "student.resources={num_gpus: 2}",
        )


def test_what_ends_a_rung_reaches_the_user_with_its_cause(cluster, storage):
    steep = "{target: 'torch.optim:SGD', kwargs: {lr: 1.0e+12}}"
    with pytest.raises(ValueError, match=r"losses.(hard|soft) is (nan|inf) in epoch"):
        ran(DIGITS, storage, *QUICK, "name=steep", "student.alone=false", f"student.optimizer={steep}")

    [run] = (storage / "steep").iterdir()
    told = runs_of(run, tracking_uri(None, str(storage)))
    assert {name: one.info.status for name, one in told.items()} == {
        run.name: "FAILED",
        "student": "FAILED",
        "wide": "FINISHED",
        "convolutional": "FINISHED",
    }


def test_a_registered_student_teaches_the_next(cluster, storage):
    registered = ("tracking.registered_as=small", "tracking.alias=champion", "student.alone=false")
    first, said = ran(DIGITS, storage, *QUICK, "name=first", *registered)
    assert "a new version of the registered model small, the alias champion moves to it" in said
    model = "{target: 'actors.models:mlp', kwargs: {width: 32, depth: 1}}"
    small = f"teachers.small={{model: {model}, checkpoint: 'models:/small@champion'}}"

    second, _ = ran(
        DIGITS, storage, *QUICK, "name=second", "student.alone=false", small, "losses.soft.teachers=[small]"
    )

    run = Path(second.folder)
    parent = runs_of(run, tracking_uri(None, str(storage)))[run.name]
    assert parent.data.tags["teachers.small.registered"] == "models:/small/1"
    [fetched] = (storage / "models" / "registered").iterdir()
    assert sha256(fetched) == sha256(Path(first.student_file))
    assert next(rung for rung in second.rungs if rung.name == "student").teachers.keys() == {"small"}


def test_check_with_an_address_says_what_the_cluster_has(cluster):
    shown = CliRunner().invoke(app, ["check", DIGITS, "--address", "auto"])
    assert shown.exit_code == 0, shown.output
    assert "the cluster has 8 CPU" in shown.output
