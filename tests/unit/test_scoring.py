"""Accuracy and cross-entropy, of models and of their mean, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.data import SharedDataset, evaluation_rows
from actors.datasets import Digits
from actors.predictions import Prediction, TrainedModel, labels_of_test, mean_prediction, predict, score
from actors.scoring import Scores, score_rows
from actors.specs import DataSpec, ImportSpec, InputSpec
from tests.unit.digits_setup import DATA, digits, model, save_teacher

INF = math.inf


class FourRows:
    """Labels 0, 1, 2, 1."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        return np.full((2, 2), index, dtype=np.uint8), [0, 1, 2, 1][index]


ROWS = SharedDataset.of(FourRows())
DATA_OF_ROWS = DataSpec(ImportSpec("a:b"), ImportSpec("a:b"), {})
LABELS = torch.tensor([0, 1, 2, 1])


def logs(*rows) -> Prediction:
    with np.errstate(divide="ignore"):
        return Prediction(np.log(np.array(rows, dtype=np.float32)), 10)


def test_scores_by_hand():
    scores = Scores(3, torch.device("cpu"))
    scores.add(torch.tensor([[9.0, 0, 0], [0, 9, 0]]), torch.tensor([0, 2]))
    scores.add(torch.zeros(2, 3), torch.tensor([0, 0]))
    sure, wrong = math.log(math.e**9 + 2) - 9, math.log(math.e**9 + 2)
    found = scores.result()
    assert found["accuracy"] == 0.75, "of equal logits the first counts"
    assert found["cross_entropy"] == pytest.approx((sure + wrong + 2 * math.log(3)) / 4, rel=1e-5)


def test_scores_that_are_not_a_number_are_shown_as_such():
    scores = Scores(3, torch.device("cpu"))
    scores.add(torch.tensor([[math.nan] * 3, [5.0, 0, 0]]), torch.tensor([1, 0]))
    assert math.isnan(scores.result()["cross_entropy"])


def test_many_rows_are_scored_in_pieces():
    spec = model(width=8, depth=1, input=InputSpec(mean=(0.2,)))
    built = spec.model.build().eval()
    ids = np.arange(600)
    inputs, labels = evaluation_rows(digits(), DATA).build(ids, np.zeros(600, dtype=np.int32))
    with torch.no_grad():
        logits = built(inputs["image"].float() / 255 - 0.2)
    found = score_rows(built, spec.input, evaluation_rows(digits(), DATA), ids, 10, torch.device("cpu"))
    assert found["accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())
    assert found["cross_entropy"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_one_model_by_hand():
    answers = logs([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1])
    found = score(answers, labels_of_test(ROWS, DATA_OF_ROWS, 3))
    by_hand = -sum(math.log(p) for p in (0.5, 0.3, 0.8, 0.7)) / 4
    assert found["accuracy"] == 0.75 and found["cross_entropy"] == pytest.approx(by_hand, rel=1e-5)
    assert (found["samples"], found["parameters"]) == (4, 10)
    # Half right at 0.5 (in the bin above 7/15), right at 0.8 and at 0.7.
    assert found["ece"] == pytest.approx(0.2 / 4 + 0.3 / 4, abs=1e-6)
    assert found["per_class"] == [1, 0.5, 1]
    bins = [(one["confidence"], one["accuracy"], one["count"]) for one in found["reliability"]]
    assert bins == [
        (pytest.approx(0.5), 0.5, 2),
        (pytest.approx(0.7), 1, 1),
        (pytest.approx(0.8), 1, 1),
    ]


def test_who_knows_none_of_the_classes_is_as_one_who_guesses():
    found = score(logs(*[[0.0, 0.0, 1.0]] * 4), torch.tensor([0, 1, 0, 1]))
    assert (found["accuracy"], found["samples"]) == (0, 0) and found["cross_entropy"] == pytest.approx(math.log(3))
    assert found["per_class"] == [None] * 3 and found["reliability"] == []


def test_the_calibration_error_is_that_of_the_bins_that_are_shown():
    generator = torch.Generator().manual_seed(0)
    answers = Prediction(torch.randn(500, 7, generator=generator).mul(2).log_softmax(dim=1).numpy(), 0)
    found = score(answers, torch.randint(0, 7, (500,), generator=generator))
    gaps = [one["count"] / 500 * abs(one["confidence"] - one["accuracy"]) for one in found["reliability"]]
    assert found["ece"] == pytest.approx(sum(gaps), abs=1e-6) and len(gaps) > 8


def test_the_mean_of_probabilities_not_of_logits():
    first, second = [0.9, 0.1, 0.0], [0.2, 0.2, 0.6]
    combined = mean_prediction([logs(first), logs(second)])
    # Class 2 has probability 0 for the first model: it does not know it, and is no voter on it.
    shares = np.array([(0.9 + 0.2) / 2, (0.1 + 0.2) / 2, 0.6])
    assert np.exp(combined.log_probabilities[0]).tolist() == pytest.approx((shares / shares.sum()).tolist())


def test_rows_of_classes_that_no_model_knows_are_left_out_and_counted():
    only_two = logs(*[[0.75, 0.25, 0.0]] * 4)
    found, both = (score(one, LABELS) for one in (only_two, mean_prediction([only_two, logs(*[[0.0, 0.0, 1.0]] * 4)])))
    assert found["samples"] == 3 and found["accuracy"] == pytest.approx(1 / 3)
    assert found["cross_entropy"] == pytest.approx(-(math.log(0.75) + 2 * math.log(0.25)) / 3, rel=1e-5)
    assert both["samples"] == 4 and both["parameters"] == 20
    assert found["per_class"] == [1, 0, None]


def test_a_model_that_answers_nan_is_not_scored_on_the_rest_alone():
    broken = logs(*[[0.8, 0.1, 0.1]] * 4)
    broken.log_probabilities[1:] = math.nan
    found = score(broken, LABELS)
    assert found["samples"] == 4 and math.isnan(found["cross_entropy"])


def labels_of_test_that_are_no_classes_name_their_row():
    with pytest.raises(ValueError, match=r"^data\.test: sample 2 has label 2, the student knows 2 classes"):
        labels_of_test(ROWS, DATA_OF_ROWS, 2)
    with pytest.raises(ValueError, match=r"^data\.train: sample \d+ has label 9, the student knows 9 classes"):
        built = model(num_classes=9).model.build()
        score_rows(built, InputSpec(), evaluation_rows(digits(), DATA), np.arange(99), 9, torch.device("cpu"))


class Restless(torch.nn.Sequential):
    """Answers with a tuple, and differently in training mode."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Dropout(0.9))

    def forward(self, inputs):
        return super().forward(inputs), inputs


def test_a_model_is_judged_in_eval_mode_and_the_first_of_its_outputs_counts(tmp_path):
    spec = model(f"{__name__}:Restless")
    trained = TrainedModel("restless", spec, save_teacher(tmp_path, spec=spec).weights)
    test = SharedDataset.of(Digits(train=False))
    found = predict(trained, 10, test, replace(DATA, slices={}))
    assert (np.isclose(found.log_probabilities[:, 0], found.log_probabilities[:, 1]).mean()) < 0.5, "nothing dropped"
    again = predict(trained, 10, test, replace(DATA, slices={}))
    assert np.array_equal(found.log_probabilities, again.log_probabilities)


def test_a_class_map_puts_each_output_at_the_class_it_stands_for(tmp_path):
    spec = save_teacher(tmp_path, spec=model(num_classes=3, width=8))
    test, data = SharedDataset.of(Digits(train=False)), replace(DATA, slices={})
    plain = predict(TrainedModel("wide", spec.model, spec.weights), 3, test, data)
    mapped = predict(TrainedModel("wide", spec.model, spec.weights, (4, 0, 2)), 5, test, data)
    assert plain.num_parameters == sum(p.numel() for p in spec.model.model.build().parameters())
    assert mapped.log_probabilities.shape == (400, 5) and plain.log_probabilities.dtype == np.float32
    assert np.array_equal(mapped.log_probabilities[:, [4, 0, 2]], plain.log_probabilities)
    assert (mapped.log_probabilities[:, [1, 3]] == -INF).all()
    assert np.exp(mapped.log_probabilities).sum(axis=1) == pytest.approx(np.ones(400), rel=1e-5)
