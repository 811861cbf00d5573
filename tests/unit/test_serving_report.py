"""How the teachers served, in the report: words, table and lanes, from small figures and from made-up runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from actors.serving import POOL_FILE
from actors.storage import Folder
from orchestrator.reporting import lanes, serving
from orchestrator.reporting.figures import looks
from orchestrator.reporting.report import write_report
from orchestrator.result import read_pool
from tests.unit.sample_run import write_run
from tests.unit.sample_serving import serve
from tests.unit.test_report import page, refuse_outside
from tests.unit.test_serving import summary

LOOK = looks([{"name": name, "role": "teacher"} for name in ("a", "b")] + [{"name": "student", "role": "student"}])
TITLE = "How the teachers served"
EVIL = "replica 0 died: <script>alert(1)</script>"


def history(*epochs):
    return [{"epoch": number, "serving": serving} for number, serving in enumerate(epochs)]


def pool(**changes):
    return {"started": 0.0, "replicas": {}, "restarts": {}, "events": [], "dropped": [], **changes}


def test_the_main_thing_is_how_long_the_student_waited_and_for_whom():
    one = {"a": summary(300, waited_s=0.2, retries=0), "b": summary(300, waited_s=0.05, retries=0)}
    assert serving.sentences("student", [one], None) == [
        "The student waited 2.5 % of the time, mostly for a (2.0 %).",
        "No request had to be asked again, and no replica was started again.",
    ]
    never = {"a": summary(300, waited_s=0.0, retries=0)}
    assert serving.sentences("tutor", [never], None)[0] == "tutor never waited for knowledge."
    hardly = {"a": summary(300, waited_s=0.002, retries=0)}
    assert serving.sentences("student", [hardly], None)[0] == ("The student waited less than 0.1 % of the time, for a.")
    three = {name: summary(300, waited_s=seconds) for name, seconds in {"a": 0.3, "b": 0.4, "c": 0.2}.items()}
    assert "9.0 % of the time, longest for b (4.0 %)." in serving.sentences("student", [three], None)[0]


def test_of_several_workers_the_one_that_waited_longest_is_named():
    workers = [{"a": summary(300, waited_s=0.1)}, {"a": summary(300, waited_s=0.3)}]
    said = serving.sentences("student", workers, None)[0]
    assert said == "The student's 2 workers waited 2.0 % of the time, for a; worker 1 longest (3.0 %)."


def test_what_went_wrong_is_said():
    one = {"a": summary(300, retries=3), "b": summary(300, retries=1200)}
    said = serving.sentences("student", [one], pool(restarts={"a": 2, "b": 0}, dropped=["b"]))
    assert said[1:] == [
        "Asked again elsewhere: a 3 and b 1,200. Replicas started again: a 2.",
        "Dropped on the way: b. This is not the student that all of its teachers would have made.",
    ]


def test_a_worker_is_put_together_over_its_epochs_and_a_record_without_the_key_counts_for_nothing():
    records = [*history([{"a": summary(300)}], [{"a": summary(100, 30.0)}, {"b": summary(80)}]), {"epoch": 2}]
    first, second = serving.by_worker(records)
    assert first["a"]["rows"] == 400 and first["a"]["images_per_s"] == 10.0 and list(second) == ["b"]
    assert serving.by_worker([{"epoch": 0}]) == [] == serving.by_worker(history([], []))


def test_the_table_has_a_row_by_teacher_and_by_worker_where_there_are_several():
    one, two = {"a": summary(300), "b": summary(300)}, {"a": summary(100)}
    alone = serving.rows([one], pool(restarts={"a": 2}))
    assert [(row.teacher, row.rank, row.restarts) for row in alone] == [("a", None, 2), ("b", None, 0)]
    both = serving.rows([one, two], None)
    assert [(row.teacher, row.rank, row.summary["rows"]) for row in both] == [
        ("a", None, 400),
        ("a", 0, 300),
        ("a", 1, 100),
        ("b", None, 300),
        ("b", 0, 300),
    ]
    assert {row.restarts for row in both} == {None}


def test_times_for_people():
    assert [serving.time_text(value) for value in (0, 12.345, 999.4, 1310.0)] == ["0 ms", "12.3 ms", "999 ms", "1.31 s"]


def test_the_busy_share_of_each_slice():
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    assert lanes.busy_share([(0.25, 0.5), (0.75, 1.0)], edges).tolist() == [0.75, 0.75, 0.0]
    assert lanes.busy_share([(-5.0, 20.0)], edges).tolist() == [1.0, 1.0, 1.0]
    assert lanes.busy_share([(0.0, 1.0), (0.0, 1.0)], edges).tolist() == [1.0, 0.0, 0.0], "never more than all"
    assert lanes.busy_share([], edges).tolist() == [0.0, 0.0, 0.0]


def timeline(began=100.0, steps=2, answers=None, waits=None):
    found = [[number * 0.5, 0.25] for number in range(steps)]
    return {"epoch": 1, "began": began, "steps": found, "waits": waits or {}, "answers": answers or {}}


def test_workers_stand_on_one_clock_and_share_the_replicas():
    first = timeline(100.0, answers={"b": {"10": [[0.0, 0.1]]}, "a": {"2": [[0.0, 0.2]], "10": [[0.3, 0.2]]}})
    second = timeline(101.0, answers={"a": {"2": [[0.5, 0.2]]}}, waits={"b": [[0.25, 0.125]]})
    found = lanes.aligned("student", [(0, first), (2, second)], LOOK)
    names = ["student, worker 0", "student, worker 2", "a 2", "a 10", "b 10"]
    assert [lane.name for lane in found.lanes] == names, "in the order that teachers have everywhere"
    assert [row for row, _ in found.rows] == [0, 2, 4, 5, 6] and found.num_rows == 7
    assert [lane.opens_group for lane in found.lanes] == [False, False, True, False, True]
    steps, waits = found.lanes[1].busy
    assert steps == (LOOK["student"], [(1.0, 0.25), (1.5, 0.25)]) and waits == (LOOK["b"], [(1.25, 0.125)])
    assert found.lanes[2].busy == [(LOOK["a"], [(0.0, 0.2), (1.5, 0.2)])]
    assert found.end == 1.75 and found.note == ""
    assert [name for name, _ in found.legend] == ["student", "a", "b"]


def test_what_is_not_shown_is_said(monkeypatch):
    answers = {"a": {str(number): [[0.0, 0.1]] * (number + 1) for number in range(40)}}
    found = lanes.aligned("student", [(0, timeline(answers=answers))], LOOK)
    assert found.note == " Of each teacher the 36 replicas that answered most are shown."
    assert [lane.name for lane in found.lanes[1:]] == [f"a {number}" for number in range(4, 40)]
    monkeypatch.setattr(lanes, "MOST_SPANS", 4)
    found = lanes.aligned("student", [(0, timeline(steps=4)), (1, timeline(steps=3)), (2, timeline(steps=9))], LOOK)
    assert found.end == 1.75, "where the first that was full ends: the others' lanes would look idle"
    assert found.note == " Recorded are the first 1.75 s: a worker notes 4 spans."


def test_a_worker_that_recorded_nothing_has_no_lane():
    nothing = {**timeline(steps=0), "began": 0.0}
    [figure] = lanes.epoch_figures("student", [nothing, timeline(answers={"a": {"0": [[0.0, 0.5]]}})], LOOK)
    assert ">student</text>" in figure.svg and ">a 0</text>" in figure.svg
    assert lanes.epoch_figures("student", [nothing], LOOK) == [] == lanes.epoch_figures("student", [], LOOK)


def test_a_long_epoch_is_shown_whole_and_close_by():
    short = lanes.epoch_figures("student", [timeline(steps=30)], LOOK)
    assert [one.title for one in short] == ["Who worked when, epoch 2 of student"]
    whole, close = lanes.epoch_figures("student", [timeline(steps=100)], LOOK)
    assert whole.title == short[0].title and close.title == "30 steps from the middle of epoch 2 of student"
    assert "student 50%" in whole.svg, "busy for 0.25 s of every 0.5 s"
    assert whole.is_wide and close.is_wide
    bar = max(re.findall(r' d="([^"]+)"', close.svg), key=len)
    assert bar.count("M ") == 30, "a bar for each of the steps that are seen"


def test_replicas_over_time_have_a_panel_by_teacher():
    events = [[5.0, "a", "replica 0 died: killed"], [6.5, "a", "replica 0 serves"]]
    replicas = {"a": [[1.0, 1], [2.0, 2], [5.0, 1], [6.5, 2]], "b": [[1.0, 1]], "never": []}
    one = pool(replicas=replicas, restarts={"a": 2, "b": 0}, events=events)
    found = lanes.replicas("student", one, 100.0, LOOK)
    assert found and ">a, 2 restarts</text>" in found.svg and ">b</text>" in found.svg
    quiet = lanes.replicas("student", {**one, "events": []}, 100.0, LOOK)
    assert found.svg.count("<use") == quiet.svg.count("<use") + 2
    assert ">seconds since the pool started</text>" in found.svg and "a 2 at most, b 1 at most" in found.svg
    assert ">minutes since the pool started</text>" in lanes.replicas("student", one, 1000.0, LOOK).svg
    assert lanes.replicas("student", pool(), 100.0, LOOK) is None


def test_a_dot_stands_on_the_count_that_held_then():
    times, counts, at = np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.5, 2.0, 9.0])
    assert lanes.count_at(times, counts, at).tolist() == [1.0, 1.0, 1.0, 2.0, 3.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    found = write_run(tmp_path_factory.mktemp("runs") / "sample" / "1")
    serve(found, workers=2, replicas=2, steps=40)
    result = json.loads((found / "result.json").read_text())
    result["rungs"][-1]["pool"]["events"].append([80.0, "plain", EVIL])
    (found / "result.json").write_text(json.dumps(result))
    return found


def test_the_section_stands_in_the_report(run):
    text = Path(write_report(str(run))).read_text()
    refuse_outside(text)
    found = page(run / "report.html")
    assert TITLE in found.all("h2") and "serving" in found.ids and len(found.ids) == len(set(found.ids))
    assert any(text.startswith("The student's 2 workers waited ") for text in found.all("p"))
    assert {"Who worked when, epoch 2 of student", "Replicas over time"} <= set(found.all("h3"))
    assert found.all("span").count("to worker 1") == 3
    told = " ".join(found.all("li"))
    assert "residual: replica 0 died: its process was killed by signal 9" in told and f"plain: {EVIL}" in told
    result = json.loads((run / "result.json").read_text())
    whole = serving.rows(serving.by_worker(result["rungs"][-1]["history"]), None)[0].summary
    assert f"{whole['images_per_s']:,.0f}" in found.all("td")
    assert serving.time_text(whole["service_ms"]["p99"]) in found.all("td")


def test_a_report_of_a_run_without_any_of_it_has_no_such_section(tmp_path):
    run = write_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    for rung in result["rungs"][1:]:  # the first comes from an earlier version
        rung["pool"] = None
        for record in rung["history"]:
            record["serving"] = []
    (run / "result.json").write_text(json.dumps(result))
    assert TITLE not in page(write_report(str(run))).all("h2")


def test_a_pool_that_is_not_there_leaves_its_place_out(tmp_path):
    run = serve(write_run(tmp_path / "run"), replicas=1, steps=8, pool=False)
    found = page(write_report(str(run)))
    assert TITLE in found.all("h2") and "Replicas over time" not in found.all("h3")
    assert found.all("td").count("\N{EN DASH}") >= 3, "restarts are not known"


def test_the_result_takes_in_what_the_pool_left(run, tmp_path):
    assert read_pool(Folder(str(tmp_path))) is None
    rung = run / "rungs" / "student"
    assert read_pool(Folder(str(rung))) == json.loads((rung / POOL_FILE).read_text())


def test_what_the_store_spared_is_said():
    one = {"asked": 1000, "read": 750, "computed": 250, "written": 250, "other_pixels": 0}
    assert serving.passes_sentence({"a": one, "b": {**one, "computed": 0, "read": 1000, "written": 0}}) == (
        "The store spared 87.5 % of the teachers' work: computed were, in samples, a 250 of 1,000 and b 0 of 1,000."
    )
    assert serving.passes_sentence({"a": {**one, "read": 0, "computed": 1000, "written": 0}}) == ""
    assert serving.passes_sentence({}) == ""
