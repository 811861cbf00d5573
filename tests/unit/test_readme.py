"""What the README shows works as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from orchestrator import document
from orchestrator.cli import app
from orchestrator.config import ExperimentConfig
from tests.unit.digits_setup import digits

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^collegium (check orchestrator.*?|check --schema)(?: +[#>].*)?$", README, re.MULTILINE)


def block(language: str, holding: str) -> str:
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in text]
    return found


def test_the_experiment_is_one():
    config = ExperimentConfig.from_document(document.load(block("yaml", "teachers:"), "README"))
    assert list(config.teachers) == ["residual", "mine"] and config.losses["soft"].kwargs == {"temperature": 2.0}


def test_the_view_is_one():
    names: dict = {}
    exec(block("python", "def brighter"), names)
    pixels, label = names["brighter"](digits(), 3, np.random.default_rng(0))
    assert pixels.shape == (1, 8, 8) and pixels.dtype == np.uint8 and label == digits()[3][1]


def test_the_loss_is_one():
    names: dict = {}
    exec(block("python", "def reverse_kd_loss"), names)
    student, teacher = torch.randn(2, 5, 10)
    values = names["reverse_kd_loss"](student, teacher, temperature=3.0, reduction="none")
    assert values.shape == (5,) and names["reverse_kd_loss"](student, student) == pytest.approx(0, abs=1e-6)
    assert names["reverse_kd_loss"](student, teacher, temperature=3.0) == pytest.approx(values.mean().item())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_that_check_run(command):
    shown = CliRunner().invoke(app, shlex.split(command))
    assert shown.exit_code == 0, shown.output


def test_there_are_such_commands():
    assert len(COMMANDS) == 2
