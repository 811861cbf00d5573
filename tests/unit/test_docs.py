"""The pages under docs/ are as the code is, and what they show works as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors import ensemble, losses
from orchestrator import methods
from orchestrator.cli import app
from orchestrator.config import ExperimentConfig
from scripts.make_docs import pages

ROOT = Path(__file__).parents[2]
CONFIG_PAGE = (ROOT / "docs" / "config.md").read_text()
PATHS = re.findall(r"^\| `([^`]+)` \|", CONFIG_PAGE, re.MULTILINE)
KEPT_TOGETHER = ("target", "kwargs")


def keys_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from keys_of(part)
    if isinstance(schema, list):
        for part in schema:
            yield from keys_of(part)


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of a config; what stands under an import is one path."""
    if not isinstance(value, dict) or "target" in value:
        yield path
        return
    for key, below in value.items():
        yield from paths_of(below, f"{path}.{key}" if path else key)


def as_pattern(path: str) -> str:
    """A path of the page as a pattern for paths of configs."""
    return re.escape(path).replace("<name>", r"[^.]+") + r"(\.[^.]+)?"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_page_is_fresh(page):
    assert page.read_text() == pages()[page], f"{page.name} is not as the code is; run: make docs"


def test_every_key_of_the_schema_is_on_the_page():
    shown = {part for path in PATHS for part in path.split(".")}
    assert set(keys_of(ExperimentConfig.json_schema())) - {*KEPT_TOGETHER, *shown} == set()
    assert all(f"`{key}`" in CONFIG_PAGE for key in KEPT_TOGETHER)


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("orchestrator/recipes/*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_recipe_is_on_the_page(recipe):
    for path in paths_of(ExperimentConfig.from_yaml(recipe).model_dump()):
        own = path.partition(".losses.")[2] if path.startswith("assistants.") and ".losses." in path else ""
        found = f"losses.{own}" if own else path
        assert any(re.fullmatch(as_pattern(known), found) for known in PATHS), path


def test_defaults_and_types_read_well():
    rows = {line.split("`")[1]: line for line in CONFIG_PAGE.splitlines() if line.startswith("| `")}
    assert "| integer >= 1 | `32` |" in rows["teachers.<name>.chunk"]
    assert "| number >= 0, < 1 | `0.0` |" in rows["teachers.<name>.train.label_smoothing"]
    assert "| `pool` or `local` | `pool` |" in rows["source"]
    assert "| [integer >= 0, ...] or `null` | `null` |" in rows["teachers.<name>.class_map"]
    assert "| import | required |" in rows["student.optimizer"]
    assert "| integer >= 1 | the student's |" in rows["assistants.<name>.epochs"]
    assert all(line.count(" | ") == 3 for line in rows.values())


def test_methods_lists_every_loss_and_rule():
    listed = {method.name: method for method in (*methods.losses(), *methods.rules())}
    named = {name for name in losses.__all__ if name.endswith("_loss")}
    assert set(listed) == named | set(ensemble.RULES)
    assert listed["dkd_loss"].needs == ("logits", "labels")
    assert listed["dkd_loss"].arguments == ("alpha=1.0", "beta=8.0", "temperature=4.0")
    assert listed["hint_loss"].needs == ("a tap",) and listed["hint_loss"].arguments == ()
    assert listed["cross_entropy_loss"].needs == ("labels, no teacher",)
    assert not listed["dist_loss"].per_sample and listed["kd_loss"].per_sample


@pytest.mark.parametrize("method", [*methods.losses(), *methods.rules()], ids=lambda method: method.name)
def test_the_first_line_of_a_docstring_stands_alone(method):
    assert method.about and not method.about.endswith((",", ".", "the", "as")) and "arXiv" not in method.about
    assert method.group in methods.GROUPS


def test_the_command_is_readable_in_80_columns(monkeypatch):
    monkeypatch.setattr("orchestrator.cli.WIDTH_OF_FILES", 80)
    shown = CliRunner().invoke(app, ["methods"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("kd_loss ") and "Softened class probabilities" in line for line in lines)
    assert any("needs logits; per sample; temperature=4.0" in line for line in lines)


def test_the_command_prints_the_page():
    shown = CliRunner().invoke(app, ["methods", "--markdown"])
    assert shown.exit_code == 0 and shown.output == (ROOT / "docs" / "methods.md").read_text()
