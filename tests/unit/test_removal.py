"""Which pairs of runs make a fair check by removal, on real folders."""

import shlex

import pytest

from orchestrator import document as yaml
from orchestrator.config import ExperimentConfig
from orchestrator.reporting.recorded import finished_beside, read_run
from orchestrator.reporting.removal import heard, removal_command, removals
from tests.unit.sample_run import document, write_run

TWO = ("residual", "plain")
WEIGHTED = {"target": "mean_probabilities", "kwargs": {"weights": {"residual": 2, "transformer": 3}}}


def losses(*, soft=None, attention=None, **more):
    base = document()["losses"]
    base["soft"] |= {"teachers": soft, **more}
    if attention:
        base["attention"] = {"loss": "actors.losses:kd_loss", "on": "logits", "teachers": attention}
    return base


def pair(tmp_path, less, whole=None, **other):
    runs = [
        write_run(tmp_path / "whole", config=whole or document()),
        write_run(tmp_path / "less", config=less, **other),
    ]
    return removals([read_run(str(run)) for run in runs])


def test_a_run_without_one_teacher_is_a_check(tmp_path):
    [found] = pair(tmp_path, document(heard=TWO))
    assert (found.teacher, found.whole.label, found.less.label) == ("transformer", "whole", "less")
    difference = found.less.student["accuracy"] - found.whole.student["accuracy"]
    assert found.paired.points == pytest.approx(100 * difference) and found.paired.gained > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"storage": "elsewhere"},
        {"source": "local"},
        {"student": {**document()["student"], "window": 5, "alone": False}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_where_and_how_fast_it_ran_does_not_count(tmp_path, changes):
    assert len(pair(tmp_path, document(heard=TWO, **changes))) == 1


def test_a_teacher_taken_out_of_the_config_is_a_check(tmp_path):
    assert [one.teacher for one in pair(tmp_path, document(teachers=TWO))] == ["transformer"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"data": {**document()["data"], "seed": 1}},
        {"data": {**document()["data"], "batch_size": 64}},
        {"student": {**document()["student"], "epochs": 49}},
        {"student": {**document()["student"], "num_workers": 2}},
        {"losses": losses(soft=list(TWO), weight=0.5)},
        {"losses": losses(soft=list(TWO), kwargs={"temperature": 2.0})},
        {"losses": losses(soft=list(TWO), ensemble="mean_logits")},
        {"losses": losses(soft=["residual"])},
        {"losses": losses(soft=list(TWO), attention=["plain"])},
    ],
    ids=["seed", "data seed", "batch", "epochs", "workers", "weight", "kwargs", "rule", "two removed", "another loss"],
)
def test_runs_that_differ_in_more_are_not_compared(tmp_path, changes):
    less = {**document(heard=TWO), **changes}
    assert pair(tmp_path, less) == []


def test_other_weights_of_a_teacher_are_not_compared(tmp_path):
    assert pair(tmp_path, document(heard=TWO), salt="trained anew") == []


def test_other_test_samples_are_not_compared(tmp_path):
    assert pair(tmp_path, document(heard=TWO), samples=399) == []


def test_another_input_of_a_shared_teacher_is_not_compared(tmp_path):
    less = document(heard=TWO)
    less["teachers"]["plain"] = {**less["teachers"]["plain"], "input": {"size": 32}}
    assert pair(tmp_path, less) == []


def test_every_loss_must_lose_the_teacher(tmp_path):
    whole = document(losses=losses(attention=["plain", "transformer"]))
    half = document(losses=losses(soft=list(TWO), attention=["plain", "transformer"]))
    assert pair(tmp_path / "half", half, whole) == []
    both = document(losses=losses(soft=list(TWO), attention=["plain"]))
    assert len(pair(tmp_path / "both", both, whole)) == 1


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "at weight 0"])
def test_a_loss_that_heard_the_removed_one_alone_goes_too(tmp_path, gone):
    whole = document(losses=losses(attention=["transformer"]))
    less = document(losses=losses(soft=list(TWO), attention=None if gone else ["transformer"]))
    if not gone:
        less["losses"]["attention"]["weight"] = 0
    assert len(pair(tmp_path, less, whole)) == 1


def test_fixed_weights_of_those_who_stay_must_be_the_same(tmp_path):
    whole = document(losses=losses(ensemble=WEIGHTED))
    same = {**WEIGHTED, "kwargs": {"weights": {"residual": 4, "plain": 2}}}
    assert len(pair(tmp_path / "same", document(losses=losses(soft=list(TWO), ensemble=same)), whole)) == 1
    other = {**WEIGHTED, "kwargs": {"weights": {"residual": 3}}}
    assert pair(tmp_path / "other", document(losses=losses(soft=list(TWO), ensemble=other)), whole) == []


def test_of_equal_runs_the_last_is_compared(tmp_path):
    names = ("first", "second", "less")
    configs = (document(), document(), document(heard=TWO))
    runs = [write_run(tmp_path / name, config=config) for name, config in zip(names, configs, strict=True)]
    [found] = removals([read_run(str(run)) for run in runs])
    assert found.whole.label == "second"


def test_only_pairs_with_one_run_are_looked_for(tmp_path):
    configs = (document(), document(heard=TWO), document(heard=("plain", "transformer")))
    runs = [read_run(str(write_run(tmp_path / str(n), config=config))) for n, config in enumerate(configs)]
    assert [one.teacher for one in removals(runs)] == ["residual", "transformer"]
    assert [one.teacher for one in removals(runs, about=runs[0])] == ["residual", "transformer"]
    assert [one.teacher for one in removals(runs, about=runs[2])] == ["residual"]


def test_each_seed_is_a_check_of_its_own(tmp_path):
    configs = [document(heard=names, seed=seed) for seed in (1, 0) for names in (None, TWO)]
    runs = [read_run(str(write_run(tmp_path / str(n), config=config))) for n, config in enumerate(configs)]
    assert [one.whole.result["seed"] for one in removals(runs)] == [0, 1]


def test_the_command_makes_the_fair_run(tmp_path):
    rule = {"target": "mean_probabilities", "kwargs": {"weights": {"residual": 2, "transformer": 3}}}
    whole = document(losses=losses(attention=["transformer"], ensemble=rule))
    run = read_run(str(write_run(tmp_path / "whole", config=whole)))
    command = removal_command(run, "transformer")
    assert command == (
        f"collegium run {tmp_path}/whole/config.yaml 'losses.soft.teachers=[residual,plain]' "
        "'losses.soft.ensemble.kwargs.weights={\"residual\": 2}' losses.attention.weight=0 "
        f"storage={tmp_path.parent}"
    )
    less = ExperimentConfig.from_yaml(tmp_path / "whole" / "config.yaml", shlex.split(command)[3:])
    assert heard(less) == TWO
    folder = write_run(tmp_path / "less", config=yaml.load(less.to_yaml(), "less"))
    assert [one.teacher for one in removals([run, read_run(str(folder))])] == ["transformer"]


def test_the_command_takes_a_specialists_route_along_and_registers_nothing(tmp_path):
    routes = {"residual": [0, 1], "plain": [2], "transformer": [3]}
    rule = {"target": "label_routing", "kwargs": {"routes": routes}}
    whole = document(losses=losses(ensemble=rule), tracking={"registered_as": "small", "alias": "champion"})
    run = read_run(str(write_run(tmp_path / "whole", config=whole)))
    command = removal_command(run, "transformer")
    less = ExperimentConfig.from_yaml(tmp_path / "whole" / "config.yaml", shlex.split(command)[3:])
    assert less.losses["soft"].ensemble.kwargs["routes"] == {"residual": [0, 1], "plain": [2]}
    assert less.tracking.registered_as is None and less.tracking.alias is None
    folder = write_run(tmp_path / "less", config=yaml.load(less.to_yaml(), "less"))
    assert [one.teacher for one in removals([run, read_run(str(folder))])] == ["transformer"]


def test_only_finished_runs_stand_beside_one(tmp_path):
    run = read_run(str(write_run(tmp_path / "b")))
    write_run(tmp_path / "a")
    (tmp_path / "c").mkdir()
    (tmp_path / "models").mkdir()
    old = write_run(tmp_path / "old")
    (old / "predictions.parquet").unlink()
    assert [one.label for one in finished_beside(run)] == ["a"]
