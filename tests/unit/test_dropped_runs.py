"""Dropping a teacher, as the driver sees it: what `check` refuses, and how a run says what it lost."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from actors.ensemble import LearnedWeights, combines
from actors.specs import ENSEMBLE_RULES
from actors.storage import Folder
from orchestrator.reporting.recorded import read_run
from orchestrator.reporting.removal import removals
from orchestrator.reporting.report import write_report
from orchestrator.result import DROPPED_FILE, RungResult, read_dropped, shown_cause
from tests.unit.sample_run import document, write_run
from tests.unit.sample_serving import serve
from tests.unit.test_checking import MLP, TRAIN, checked, refusal
from tests.unit.test_report import page

HERE = "tests.unit.test_dropped_runs"
WIDE = "teachers.wide.may_be_dropped=true"
THIRD = f"teachers.third={{{MLP % 'width: 8'}, {TRAIN}}}"


@combines(paper="mine", gives="weights")
class of_as_many(nn.Module):
    """A rule that learns and is at a loss with fewer teachers than it was built for."""

    def __init__(self, *, shares):
        super().__init__()
        self.scores = nn.Parameter(shares.float().log())

    def forward(self, *, logits):
        return LearnedWeights(self.scores.detach().softmax(dim=0), 0 * self.scores.sum())


@combines(paper="mine", gives="weights")
def halves(*, teachers):
    return torch.tensor([0.5] * len(teachers))


@pytest.mark.parametrize("rule", ENSEMBLE_RULES)
def test_every_rule_of_ours_can_go_on_without_a_teacher(rule):
    routes = "{wide: [0, 1, 2], deep: [0, 3]}"
    kwargs = f"{{routes: {routes}, weights: {{wide: 2}}}}" if rule == "label_routing" else "{}"
    assert checked(WIDE, THIRD, f"losses.soft.ensemble={{target: {rule}, kwargs: {kwargs}}}").num_classes == 10


def test_specialists_by_class_maps_may_be_dropped():
    def of(name, classes):
        return f"teachers.{name}={{{MLP % f'width: 8, num_classes: {len(classes)}'}, class_map: {classes}, {TRAIN}}}"

    half = of("half", [0, 1, 2]), "teachers.half.may_be_dropped=true", of("rest", [3, 4, 5])
    assert checked(*half, "losses.soft.teachers=[half, rest]", "losses.soft.ensemble=label_routing").num_classes == 10


@pytest.mark.parametrize("rule", ["of_as_many", "halves"])
def test_a_rule_that_cannot_is_refused_with_a_way_out(rule):
    ensemble = f"losses.soft.ensemble={HERE}:{rule}"
    assert checked(ensemble).num_classes == 10
    text = refusal(WIDE, ensemble)
    assert text.startswith("losses.soft.ensemble: ")
    assert text.endswith("this is so without wide: use another rule, or leave may_be_dropped of 'wide' out")


def rung_that_lost(**dropped) -> RungResult:
    return RungResult("student", "student", {}, {}, 0.0, 0.0, {}, [], False, None, {}, "", dropped)


def test_what_a_rung_lost_lies_in_its_folder_and_in_the_result(tmp_path):
    folder = Folder(str(tmp_path))
    assert read_dropped(folder) == {}
    folder.write(DROPPED_FILE, json.dumps({"wide": "no replica left"}).encode())
    assert asdict(rung_that_lost(**read_dropped(folder)))["dropped"] == {"wide": "no replica left"}
    assert shown_cause("teacher 'a' failed: ray::answer()\n  File x\nRuntimeError: boom\n") == "RuntimeError: boom"


def lost(folder, name, cause="it died"):
    """The run in a folder, as if its student had lost a teacher: which is not judged then."""
    result = json.loads((folder / "result.json").read_text())
    rung = result["rungs"][-1]
    rung["dropped"] = {name: cause}
    result["models"] = [model for model in result["models"] if model["name"] != name]
    result["contributions"] = [one for one in result["contributions"] if one["teacher"] != name]
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_the_report_says_so_and_still_shows_how_the_teacher_served(tmp_path):
    run = write_run(tmp_path / "runs" / "one")
    serve(run)
    whole = page(write_report(str(run)))
    report = page(write_report(str(lost(run, "plain", "Traceback\n<b>it died</b>"))))

    [said] = [text for text in report.all("p") if "While student was trained" in text]
    assert "it lost plain (<b>it died</b>), and went on without, as may_be_dropped allows" in said
    assert "Not the whole student." in report.all("strong") and "Not the whole student." not in whole.all("strong")
    assert [text for text in report.all("th") if text == "plain"] == ["plain"], "in the table of who served"


def test_a_run_that_lost_a_teacher_is_no_check_by_removal(tmp_path):
    whole = write_run(tmp_path / "whole")
    less = write_run(tmp_path / "less", config=document(heard=("residual", "plain")))
    assert [one.teacher for one in removals([read_run(str(whole)), read_run(str(less))])] == ["transformer"]
    lost(whole, "plain")
    assert removals([read_run(str(whole)), read_run(str(less))]) == []


def test_whether_a_teacher_may_be_dropped_does_not_make_another_run(tmp_path):
    flagged = document(heard=("residual", "plain"))
    flagged["teachers"]["plain"] = {**flagged["teachers"]["plain"], "may_be_dropped": True}
    runs = [write_run(tmp_path / "whole"), write_run(tmp_path / "less", config=flagged)]
    assert [one.teacher for one in removals([read_run(str(run)) for run in runs])] == ["transformer"]
