"""The pages of a report: whole, escaped, and dependent on nothing outside themselves."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.reporting import plots
from orchestrator.reporting.figures import Look, looks, numbered
from orchestrator.reporting.report import write_comparison, write_report
from tests.unit.sample_run import CLASSES, document, write_run

ROOT = Path(__file__).parents[2]
SECTIONS = ("verdict", "models", "teachers", "removal", "figures", "disagreements", "loading", "config", "notes")
TITLES = (
    "Validation accuracy",
    "Losses",
    "Accuracy against size",
    "Accuracy against latency",
    "Calibration",
    "Agreement",
    "Gain per class",
    "Where the time went",
    "Teachers' weights over time",
)
LOADING = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Page(HTMLParser):
    """Tags with their attributes, and the text by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, text):
        self.texts.append((self._open[-1] if self._open else "", text.strip()))

    def all(self, tag):
        return [text for where, text in self.texts if where == tag and text]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def page(path):
    return Page(Path(path).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "sample" / "20261122-101500")


@pytest.fixture(scope="module")
def report(run):
    return page(write_report(str(run)))


def changed(run, tmp_path, change):
    """The same run with a changed result."""
    folder = tmp_path / "changed"
    folder.mkdir(parents=True)
    for path in (path for path in run.iterdir() if path.is_file()):
        (folder / path.name).write_bytes(path.read_bytes())
    result = json.loads((run / "result.json").read_text())
    change(result)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def refuse_outside(text):
    for tag, attributes in Page(text).tags:
        for name in LOADING & set(attributes):
            assert attributes[name].startswith(("data:", "#")), f"<{tag} {name}={attributes[name]!r}>"
        assert tag not in ("script", "link", "iframe", "object", "base"), tag
    assert not re.search(r"url\((?!#)|@import|https?:", text)


def test_every_section_and_figure_is_there(report):
    assert [section for section in SECTIONS if section not in report.ids] == []
    assert [title for title in TITLES if title not in report.all("h3")] == []


def test_nothing_is_loaded_from_elsewhere(run, report):
    refuse_outside((run / "report.html").read_text())
    with pytest.raises(AssertionError):
        refuse_outside('<img src="https://example.org/a.png">')


def test_every_figure_can_be_read_aloud_and_ids_are_its_own(report):
    drawings = [attributes for tag, attributes in report.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(drawings) == 11
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in drawings)
    assert len(report.ids) == len(set(report.ids))


def test_drawings_have_text_and_the_colours_of_the_page(run):
    text = (run / "report.html").read_text()
    assert "#a0b0" not in text and ">accuracy, %</text>" in text
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    for theme in (light, dark):
        assert used - set(re.findall(r"--([\w-]+):", theme)) - {"paint"} == set()


def test_the_figures_of_the_result_stand_in_the_table(run, report):
    result = json.loads((run / "result.json").read_text())
    cells = report.all("td")
    for model in result["models"]:
        assert f"{100 * model['accuracy']:.2f}\u00a0%" in cells and f"{model['ece']:.3f}" in cells
        assert f"{model['latency_ms']['64']:.3g} ms" in cells and f"{model['parameters']:,}" in cells


def test_the_pictures_are_in_the_page(report):
    assert (
        sum(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in report.tags if tag == "img")
        == 12
    )


def test_what_to_try_stands_there_until_it_was_tried(tmp_path):
    whole = write_run(tmp_path / "sample" / "1")
    missing = page(write_report(str(whole))).all("pre")[0]
    assert missing.endswith(f"collegium report {whole}") and "losses.soft.teachers=" in missing
    less = write_run(tmp_path / "sample" / "2", config=document(heard=("residual", "plain")))
    assert any(text.startswith("Checked: without transformer") for text in page(write_report(str(less))).all("p"))


def test_names_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    classes = (evil, "a & b", "$x^2$", "_hidden", '"quoted"', *CLASSES[5:])
    run = write_run(tmp_path / "run", classes=classes, name=evil)
    text = Path(write_report(str(run))).read_text()
    refuse_outside(text)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert ">$x^2$</text>" in text and ">a &amp; b</text>" in text and ">_hidden</text>" in text
    assert evil in page(run / "report.html").all("h1")


def test_what_is_not_there_leaves_its_place_out(run, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")

    def less(result):
        for model in result["models"]:
            model["latency_ms"] = model["flops"] = None
        result |= {"contributions": [], "against_alone": None}
        result["disagreements"] = [
            {**result["disagreements"][0], "image": name} for name in ("../secret.png", "gone.png")
        ]
        result["models"] = [model for model in result["models"] if model["role"] != "alone"]
        result["rungs"] = [rung for rung in result["rungs"] if rung["role"] != "alone"]
        for epoch in result["rungs"][-1]["history"]:
            epoch["weights"] = {}
        for epoch in result["rungs"][0]["history"]:  # of a teacher that an earlier version trained
            del epoch["weights"]

    path = write_report(str(changed(run, tmp_path, less)))
    found = page(path)
    titles = found.all("h3")
    assert not {"Accuracy against latency", "Gain per class", "Teachers' weights over time"} & set(titles)
    assert "Accuracy against size" in titles and "\N{EN DASH}" in found.all("td")
    assert "The student listens to fewer than two teachers:" in found.all("strong")
    assert found.all("div").count("no picture") == 2
    assert "c2VjcmV0" not in Path(path).read_text(), "a picture outside the run is not taken in"


def test_a_comparison_says_what_differs_and_pairs_the_students(tmp_path):
    configs = (document(), document(heard=("residual", "plain")), document(seed=1))
    runs = [str(write_run(tmp_path / str(n), config=config)) for n, config in enumerate(configs)]
    runs.append(str(write_run(tmp_path / "3", samples=300)))
    path = write_comparison(runs, str(tmp_path / "page.html"))
    refuse_outside(Path(path).read_text())
    found = page(path)
    codes = found.all("code")
    assert codes[:5] == ["seed", "0", "0", "1", "0"]
    assert codes[5:] == ["losses.soft.teachers", "null", '["residual", "plain"]', "null", "null"]
    students = [json.loads(Path(run, "result.json").read_text())["models"][-1]["accuracy"] for run in runs]
    assert f"{100 * (students[1] - students[0]):+.2f}" in found.all("td")
    assert found.all("td").count("its test samples are others: not to be compared sample by sample") == 1
    assert sum(text.startswith("Checked: without transformer") for text in found.all("p")) == 1
    assert len(found.ids) == len(set(found.ids))


def test_runs_of_one_name_of_folder_keep_apart(tmp_path):
    runs = [str(write_run(tmp_path / name / "same")) for name in ("a", "b")]
    found = page(write_comparison(runs, str(tmp_path / "page.html")))
    assert set(runs) <= set(found.all("th"))
    assert "Nothing: they are runs of the same config." in found.all("p")


def test_a_model_is_drawn_alike_everywhere():
    models = [{"name": str(n), "role": "teacher"} for n in range(8)] + [{"name": "student", "role": "student"}]
    found = looks(models)
    assert found["student"] == Look("student")
    assert len({(look.variable, look.dash) for look in found.values()}) == 9
    assert numbered(0).variable == numbered(6).variable and numbered(0).dash != numbered(6).dash


def test_of_many_classes_the_ends_are_shown():
    student, alone = {"per_class": [n / 100 for n in range(100)]}, {"per_class": [0.0] * 99 + [None]}
    found = plots.gain_per_class([f"class {n}" for n in range(100)], student, alone, looks_of_two())
    assert "12 that gained most" in found.reading
    assert found.svg.count("class ") >= 24 and ">class 98</text>" in found.svg and ">class 50<" not in found.svg
    assert ">class 99<" not in found.svg, "a class that was not there is left out"


def test_bins_that_hold_too_little_are_left_out_of_the_diagram():
    bins = [{"confidence": 0.2, "accuracy": 1.0, "count": 9}, {"confidence": 0.8, "accuracy": 0.7, "count": 10}]
    one = {"name": "student", "role": "student", "ece": 0.1, "reliability": bins}
    found = plots.reliability([one], looks_of_two())
    few = plots.reliability([{**one, "reliability": bins[1:]}], looks_of_two())
    assert found.svg.count("<use") == few.svg.count("<use") and "fewer than 10" in found.reading
    assert found.legend == [("student, ECE 0.100", Look("student"))]


def test_a_term_that_one_model_alone_has_runs_over_all_epochs():
    def rung(name, terms, epochs):
        return {"name": name, "history": [{"epoch": n, "terms": dict.fromkeys(terms, 1.0 + n)} for n in range(epochs)]}

    found = plots.losses([rung("alone", ["hard"], 5), rung("student", ["hard", "soft"], 5)], looks_of_two(), "Losses")
    assert found.svg.count(">5</text>") >= 2 and found.svg.count(">1</text>") >= 2
    once = plots.losses([rung("student", ["soft"], 1)], looks_of_two(), "Losses")
    assert re.findall(r">([\d.]+)</text>", once.svg).count("1") == 1 and ">0.6" not in once.svg


def looks_of_two():
    return looks([{"name": name, "role": name} for name in ("student", "alone")])


def test_the_command_says_what_it_wrote(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(run), str(run), "--to", "there/one.html"])
    assert done.exit_code == 0 and done.output == f"report {tmp_path}/there/one.html\n"
    assert "Calibration" in page(tmp_path / "there" / "one.html").all("h3")
    done = CliRunner().invoke(app, ["report", str(run), str(write_run(tmp_path / "other"))])
    assert done.exit_code == 0 and done.output == f"report {tmp_path}/comparison.html\n"


def test_the_command_refuses_what_is_no_finished_run(run, tmp_path):
    def refused(folder):
        return str(CliRunner().invoke(app, ["report", str(folder)]).exception)

    assert refused(tmp_path) == f"report: expected the folder of a run, found no config.yaml in '{tmp_path}'"
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    unfinished = f"report: {tmp_path}: this run is not finished; go on with: collegium run --resume {tmp_path}"
    assert refused(tmp_path) == unfinished
    earlier = "made by an earlier version; run it again: collegium run "
    for key in ("test_samples", "contributions"):
        old = changed(run, tmp_path / key, lambda result, key=key: result.pop(key))
        assert refused(old) == f"report: {old}: no {key}: {earlier}{old}/config.yaml"
    (old / "predictions.parquet").unlink()
    assert f"no predictions.parquet: {earlier}" in refused(old)


def test_a_report_loads_neither_torch_nor_ray(run, tmp_path):
    code = (
        "import sys, orchestrator.cli as cli\n"
        f"sys.argv = ['collegium', 'report', {str(run)!r}, '--to', {str(tmp_path / 'page.html')!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
