"""The pages under docs/ are as the code is, and what they show works as it stands there."""

import importlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from actors import losses
from actors.specs import ENSEMBLE_RULES
from orchestrator import document, methods
from orchestrator.checking import check
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
    assert "| integer >= 1 or `auto` | `32` |" in rows["teachers.<name>.chunk"]
    assert "| number >= 0, < 1 | `0.0` |" in rows["teachers.<name>.train.label_smoothing"]
    assert "| `pool` or `local` | `pool` |" in rows["source"]
    assert "| [integer >= 0, ...] or `null` | `null` |" in rows["teachers.<name>.class_map"]
    assert "| import | required |" in rows["student.optimizer"]
    assert "| integer >= 1 | the student's |" in rows["assistants.<name>.epochs"]
    assert all(line.count(" | ") == 3 for line in rows.values())


def test_methods_lists_every_loss_and_rule():
    listed = {method.name: method for method in (*methods.losses(), *methods.rules())}
    named = {name for name in losses.__all__ if name.endswith("_loss")}
    assert set(listed) == named | set(ENSEMBLE_RULES)
    assert listed["dkd_loss"].needs == ("logits", "labels")
    assert listed["dkd_loss"].arguments == ("alpha=1.0", "beta=8.0", "temperature=4.0", "standardize=False")
    assert listed["hint_loss"].needs == ("a tap",) and listed["hint_loss"].arguments == ()
    assert listed["cross_entropy_loss"].needs == ("labels, no teacher",)
    assert not listed["dist_loss"].per_sample and listed["kd_loss"].per_sample


@pytest.mark.parametrize("method", [*methods.losses(), *methods.rules()], ids=lambda method: method.name)
def test_the_first_line_of_a_docstring_stands_alone(method):
    assert method.about and not method.about.endswith((",", ".", "the", "as")) and "arXiv" not in method.about
    assert method.group in methods.GROUPS


def test_the_command_is_readable_in_80_columns(monkeypatch):
    monkeypatch.setattr("orchestrator.terminal.WIDTH_OF_FILES", 80)
    shown = CliRunner().invoke(app, ["methods"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("kd_loss ") and "Softened class probabilities" in line for line in lines)
    assert any("needs logits; per sample; temperature=4.0" in line for line in lines)


def test_the_command_prints_the_page():
    shown = CliRunner().invoke(app, ["methods", "--markdown"])
    assert shown.exit_code == 0 and shown.output == (ROOT / "docs" / "methods.md").read_text()


EXTENDING = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", EXTENDING, re.MULTILINE | re.DOTALL))
WITH_A_CONFIG = [title for title, text in SECTIONS.items() if "```yaml" in text]
SCRIPT = "save_teacher.py"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def merged(base: dict, changes: dict) -> dict:
    """The changes laid over the base; an import is taken as a whole."""
    together = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and "target" not in value
        together[key] = merged(base[key], value) if both else value
    return together


@pytest.fixture
def my_folder(tmp_path, monkeypatch):
    """A user's folder with every file that the page shows."""
    for block in blocks(EXTENDING, "python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    modules = {path.stem for path in tmp_path.glob("my_*.py")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    runpy.run_path(SCRIPT)
    yield tmp_path
    for name in modules & set(sys.modules):
        del sys.modules[name]


@pytest.mark.parametrize("title", WITH_A_CONFIG)
def test_what_the_page_brings_is_accepted(title, my_folder):
    [changes] = blocks(SECTIONS[title], "yaml")
    base = document.read(ROOT / "orchestrator" / "recipes" / "digits.yaml")
    config = ExperimentConfig.from_document(merged(base, document.load(changes, title)))
    assert check(config).num_classes == 10


def test_every_part_that_can_be_brought_has_a_section():
    assert set(WITH_A_CONFIG) == {
        "A teacher",
        "A student",
        "A dataset",
        "A view",
        "A loss",
        "An ensemble rule",
        "A connector",
    }


def test_what_the_page_brings_does_what_it_says(my_folder):
    my_losses, my_views, my_data = map(importlib.import_module, ("my_losses", "my_views", "my_data"))
    student, teacher = torch.randn(2, 5, 10)
    values = my_losses.reverse_kd_loss(student, teacher, temperature=3.0, reduction="none")
    assert values.shape == (5,) and my_losses.reverse_kd_loss(student, student) == pytest.approx(0, abs=1e-6)
    assert my_losses.mean_norm_loss(student, student[:, :4], reduction="none").shape == (5,)
    stripes = my_data.Stripes(rows=50)
    once, again = (my_views.brighter(stripes, 3, np.random.default_rng(0), most=30) for _ in range(2))
    assert once[0].dtype == np.uint8 and once[0].shape == (1, 8, 8) and np.array_equal(once[0], again[0])
    assert {stripes[row][1] for row in range(50)} == {0, 1}
    across = np.stack([stripes[row][0] for row in range(50) if stripes[row][1] == 0]).astype(int)
    assert (across[:, 1::2].min() - across[:, ::2].max()) > 100, "rows alternate"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_comparison_counts_the_methods_that_are_there():
    groups = [method.group for method in methods.losses()]
    logits, features, relations = map(groups.count, ("response", "feature", "relation"))
    kinds = f"{logits} on logits, {features} on features, {relations} on relations"
    assert f"{logits + features + relations} losses: {kinds}" in (ROOT / "docs" / "peers.md").read_text()
