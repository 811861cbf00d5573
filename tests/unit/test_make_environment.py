"""The script that makes the environment: what it must not touch."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_environment.py"
script = runpy.run_path(str(SCRIPT))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="mine is there and no environment"):
        script["make"](tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_an_environment_that_is_done_is_used_again(tmp_path, capsys):
    (tmp_path / ".installed").touch()
    script["make"](tmp_path)
    assert capsys.readouterr().out == ""


def test_it_installs_what_the_project_its_tests_and_its_benchmarks_need():
    wanted = [requirement.partition(">")[0] for requirement in script["requirements"]()]
    assert {"ray[default,train,tune]", "torch", "mlflow", "pytest", "ruff", "torchdistill"} <= set(wanted)
