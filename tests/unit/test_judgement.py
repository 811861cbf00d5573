"""What is learned from all predictions together, by hand; and what a model costs."""

import io
import math
import time
from collections import OrderedDict
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from actors.costs import costs
from actors.data import SharedDataset
from actors.datasets import Digits
from actors.judgement import Panel, Pictures, class_names, disagreements, judge, png
from actors.predictions import Prediction, TrainedModel
from actors.specs import ANSWERS_FILE, DataSpec, ImportSpec
from actors.storage import Folder
from tests.unit.digits_setup import DATA, model, save_teacher

LABELS = [0, 1, 2, 1, 0]
DATA_OF_ROWS = DataSpec(ImportSpec("a:b"), ImportSpec("a:b"), {})


class FiveRows:
    """Each is a grey square as dark as its number."""

    classes = ("cat", "dog", "owl")

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int):
        return np.full((2, 2), 10 * index, dtype=np.uint8), LABELS[index]


def sure_of(*choices: int) -> Prediction:
    """Gives 0.8 to each choice."""
    rows = np.full((len(choices), 3), 0.1, dtype=np.float32)
    rows[np.arange(len(choices)), choices] = 0.8
    return Prediction(np.log(rows), 10)


PREDICTIONS = {
    "a": sure_of(0, 1, 2, 0, 1),  # 3 right
    "b": sure_of(0, 1, 0, 0, 2),  # 2 right
    "alone": sure_of(0, 2, 2, 2, 1),  # rows 0 and 2
    "student": sure_of(0, 1, 0, 1, 1),  # rows 0, 1, 3
}


def judged(tmp_path, predictions=PREDICTIONS, ensemble=("a", "b"), weights=None):
    panel = Panel(tuple(predictions), ensemble, {"a": 0.5, "b": 0.5} if weights is None else weights)
    folder = Folder(str(tmp_path / "run"))
    return judge(panel, 3, SharedDataset.of(FiveRows()), DATA_OF_ROWS, folder, *predictions.values()), folder


def test_who_agrees_and_who_gained(tmp_path):
    found, _ = judged(tmp_path)
    assert found["test_samples"] == 5 and found["classes"] == ["cat", "dog", "owl"]
    assert found["agreement"]["names"] == ["a", "b", "alone", "student", "ensemble"]
    shares = found["agreement"]["shares"]
    assert shares[3][2] == shares[2][3] == pytest.approx(2 / 5) and shares[0][0] == 1
    assert found["against_alone"] == {"gained": 2, "lost": 1}
    assert found["models"]["student"]["accuracy"] == pytest.approx(3 / 5)


def test_what_each_teacher_brought(tmp_path):
    found, _ = judged(tmp_path)
    first, second = found["contributions"]
    assert (first["teacher"], first["accuracy_without"]) == ("a", pytest.approx(2 / 5))
    assert second["accuracy_without"] == pytest.approx(3 / 5)
    assert second["cross_entropy_without"] == pytest.approx(-(3 * math.log(0.8) + 2 * math.log(0.1)) / 5)
    # Gained: rows 1 and 3, of which both had row 1 right. Lost: row 2, which only a had right.
    assert [(one["gained_right"], one["lost_wrong"]) for one in (first, second)] == [(1, 0), (1, 1)]


def test_a_specialist_is_missed_where_nobody_else_knows(tmp_path):
    """Without the only one who knows class 2, its two... the row of class 2 is wrong, not left out."""
    half = np.log(
        np.array([[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.8, 0.2, 0.0]]) + 1e-30
    )
    half[:, 2] = -np.inf
    predictions = {**PREDICTIONS, "a": Prediction(half.astype(np.float32), 10)}
    found, _ = judged(tmp_path, predictions)
    of_b = found["contributions"][1]
    assert of_b["accuracy_without"] == pytest.approx(4 / 5)
    assert of_b["cross_entropy_without"] == pytest.approx((4 * -math.log(0.8) + math.log(3)) / 5, rel=1e-5)
    assert found["models"]["a"]["samples"] == 4 and found["models"]["ensemble"]["samples"] == 5


def test_one_teacher_is_compared_with_nobody(tmp_path):
    found, _ = judged(tmp_path, ensemble=("a",), weights={"a": 1.0})
    assert found["contributions"] == []
    heard_by_others = judged(tmp_path, weights={"middle": 1.0})[0]
    assert heard_by_others["contributions"] == [], "the student hears an assistant alone"


def test_without_a_student_alone_nothing_is_gained_over_it(tmp_path):
    found, _ = judged(tmp_path, {name: one for name, one in PREDICTIONS.items() if name != "alone"})
    assert found["against_alone"] is None
    assert [one["gained_right"] + one["lost_wrong"] for one in found["contributions"]] == [0, 0]


def test_where_student_and_ensemble_part_there_are_pictures(tmp_path):
    found, folder = judged(tmp_path)
    # The ensemble says 0, 1 and a tie; the student differs from it on row 3, and on those that are ties.
    rows = [one["sample"] for one in found["disagreements"]]
    assert 3 in rows and 0 not in rows and 1 not in rows
    divergences = [one["divergence"] for one in found["disagreements"]]
    assert divergences == sorted(divergences, reverse=True) and divergences[-1] > 0
    of_3 = next(one for one in found["disagreements"] if one["sample"] == 3)
    assert (of_3["label"], of_3["student"], of_3["ensemble"]) == (1, 1, 0)
    assert of_3["divergence"] == pytest.approx(0.7 * math.log(8))
    picture = Image.open(io.BytesIO((folder / "disagreements").read("3.png")))
    assert picture.size == (2, 2) and picture.getpixel((0, 0)) == 30 and of_3["image"] == "disagreements/3.png"


def test_of_many_disagreements_the_largest_are_shown(tmp_path):
    generator = torch.Generator().manual_seed(0)
    answers = {name: torch.randn(60, 3, generator=generator).mul(3).log_softmax(1) for name in ("student", "ensemble")}
    pictures = Pictures(FiveRows(), DATA_OF_ROWS, Folder(str(tmp_path)))
    found = disagreements(answers, torch.zeros(60, dtype=torch.int64), Unwritten(pictures))
    divergences = (answers["ensemble"].exp() * (answers["ensemble"] - answers["student"])).sum(1)
    differing = divergences[answers["student"].argmax(1) != answers["ensemble"].argmax(1)]
    assert len(differing) > 12 and len(found) == 12
    assert found[0]["divergence"] == pytest.approx(differing.max().item())


class Unwritten:
    def __init__(self, pictures) -> None:
        self.pictures = pictures

    def write(self, sample: int) -> str:
        return f"{sample}.png"


def test_classes_that_the_ensemble_does_not_know_add_nothing_to_its_divergence(tmp_path):
    partial = PREDICTIONS["a"].log_probabilities.copy()
    partial[:, 2] = -np.inf
    found, _ = judged(tmp_path, {**PREDICTIONS, "a": Prediction(partial, 10)}, ensemble=("a",))
    assert all(math.isfinite(one["divergence"]) for one in found["disagreements"])


def test_all_answers_are_written_as_a_table(tmp_path):
    _, folder = judged(tmp_path)
    table = pq.read_table(folder.file(ANSWERS_FILE)).to_pydict()
    assert list(table) == [
        "label",
        *(f"{name}{end}" for name in (*PREDICTIONS, "ensemble") for end in ("", ".probability")),
    ]
    assert table["label"] == LABELS and table["student"] == [0, 1, 0, 1, 1]
    assert table["student.probability"] == pytest.approx([0.8] * 5)


def test_classes_are_named_by_the_dataset_or_numbered():
    assert class_names(FiveRows(), 3) == ["cat", "dog", "owl"]
    assert class_names(FiveRows(), 4) == ["0", "1", "2", "3"] and class_names(object(), 2) == ["0", "1"]


def test_what_is_no_image_has_no_picture(tmp_path):
    class Words(FiveRows):
        def __getitem__(self, index: int):
            return {"tokens": np.arange(4)}, LABELS[index]

    data = DataSpec(ImportSpec("a:b"), ImportSpec("a:b"), {}, evaluation_view=WORDS)
    pictures = Pictures(Words(), data, Folder(str(tmp_path)))
    assert pictures.write(3) == "disagreements/3.png" and not (tmp_path / "disagreements").exists()


def as_they_are(dataset, sample_id, generator):
    return dataset[sample_id]


WORDS = ImportSpec(f"{__name__}:as_they_are")


def test_pictures_of_any_pixels():
    coloured = Image.open(io.BytesIO(png(torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2))))
    assert coloured.mode == "RGB" and coloured.getpixel((1, 0)) == (1, 5, 9)
    floats = Image.open(io.BytesIO(png(torch.tensor([[[-1.0, 1.0]]]))))
    assert floats.mode == "L" and [floats.getpixel((x, 0)) for x in (0, 1)] == [0, 255]
    assert Image.open(io.BytesIO(png(torch.zeros(2, 3, 3)))).mode == "L"


def test_costs_of_models(tmp_path):
    small, large = model(width=8, depth=1), model("actors.models:plain_cnn", width=16, stem_stride=1)
    trained = [
        TrainedModel(name, spec, save_teacher(tmp_path, name, spec).weights)
        for name, spec in (("small", small), ("large", large))
    ]
    of_small, of_large = costs(trained, SharedDataset.of(Digits(train=False)), DATA)
    assert of_small["flops"] == 2 * (64 * 8 + 8 * 10), "two for each multiply-add"
    assert (
        set(of_large["latency_ms"]) == {"1", "64"} and of_large["latency_ms"]["64"] > of_small["latency_ms"]["64"] > 0
    )


def test_operations_that_cannot_be_counted_are_not_claimed(tmp_path):
    spec = model(f"{__name__}:Elementwise")
    trained = TrainedModel("odd", spec, save_teacher(tmp_path, "odd", spec).weights)
    [found] = costs([trained], SharedDataset.of(Digits(train=False)), DATA)
    assert found["flops"] is None and found["latency_ms"]["1"] > 0


def test_a_model_that_does_not_run_on_the_cpu_costs_nobody_a_result(tmp_path):
    broken, sound = model(f"{__name__}:Elsewhere"), model(width=8, depth=1)
    trained = [
        TrainedModel(name, spec, save_teacher(tmp_path, name, sound).weights)
        for name, spec in (("broken", broken), ("sound", sound))
    ]
    of_broken, of_sound = costs(trained, SharedDataset.of(Digits(train=False)), DATA)
    assert of_broken["latency_ms"] is None and of_broken["flops"] is None
    assert of_sound["latency_ms"]["1"] > 0


def test_latency_is_the_median_in_milliseconds_on_one_thread(tmp_path):
    spec = model(f"{__name__}:Sleepy")
    trained = TrainedModel("sleepy", spec, save_teacher(tmp_path, "sleepy", spec).weights)
    Sleepy.threads.clear()
    before = torch.get_num_threads()
    [found] = costs([trained], SharedDataset.of(Digits(train=False)), DATA)
    assert 4.9 < found["latency_ms"]["1"] < 60, "now and then it sleeps for a whole 100 ms"
    assert torch.get_num_threads() == before and 1 in Sleepy.threads


class Sleepy(torch.nn.Linear):
    threads: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        self.threads.append(torch.get_num_threads())
        time.sleep(0.1 if self.calls % 7 == 0 else 0.005)
        return super().forward(inputs.flatten(1))


class Elsewhere(torch.nn.Sequential):
    """The model of `sound`, which runs nowhere."""

    def __init__(self) -> None:
        built = model(width=8, depth=1).model.build()
        super().__init__(OrderedDict(built.named_children()))

    def forward(self, inputs):
        raise RuntimeError("needs a GPU")


class Elementwise(torch.nn.Module):
    """Only operations that nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(10))

    def forward(self, inputs):
        return inputs.flatten(1)[:, :10] * self.scale
