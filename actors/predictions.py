"""What trained models say about the test set, and how good it is. Imports no Ray.

`predict` is the body of a Ray task; `score` gives the scores of a prediction or of the mean of several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actors.data import SharedDataset, evaluation_rows, refuse_strange_labels
from actors.scoring import Scores, judged
from actors.specs import DataSpec, ModelSpec
from actors.weights import fit_weights, read_weights

BINS = 15


@dataclass(frozen=True)
class TrainedModel:
    """A model and its weights' file. `class_map[j]` is the data's class that output j stands for."""

    name: str
    model: ModelSpec
    weights: str
    class_map: tuple[int, ...] | None = None

    def load(self) -> nn.Module:
        """In eval mode."""
        model = self.model.model.build()
        fit_weights(model, read_weights(self.weights, self.name), self.name)
        return model.eval()


@dataclass(frozen=True)
class Prediction:
    """Log-probabilities (test rows, classes), float32, -inf for classes that the model does not know."""

    log_probabilities: np.ndarray
    num_parameters: int


def predict(trained: TrainedModel, num_classes: int, dataset: SharedDataset, data: DataSpec) -> Prediction:
    """The prediction of one model for the whole test set."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = trained.load().to(device)
    test = dataset.open()
    pieces = judged(model, trained.model.input, evaluation_rows(test, data), np.arange(len(test)), device)
    logits = torch.cat([logits.cpu() for _, logits, _ in pieces])
    known = list(range(num_classes) if trained.class_map is None else trained.class_map)
    log_probabilities = torch.full((len(test), num_classes), -torch.inf)
    log_probabilities[:, known] = torch.log_softmax(logits, dim=1)
    return Prediction(log_probabilities.numpy(), sum(parameter.numel() for parameter in model.parameters()))


def mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """The mean of probabilities over the models that know a class, scaled to add up to 1."""
    if len(predictions) == 1:
        return predictions[0]
    stacked = torch.stack([torch.from_numpy(one.log_probabilities.copy()) for one in predictions])
    knowing = (stacked != -torch.inf).sum(dim=0)
    mean = torch.log_softmax(torch.logsumexp(stacked, dim=0) - knowing.clamp(min=1).log(), dim=1)
    return Prediction(mean.numpy(), sum(one.num_parameters for one in predictions))


def labels_of_test(dataset: SharedDataset, data: DataSpec, num_classes: int) -> Tensor:
    """Raises ValueError where a label is no class of the student's."""
    test = dataset.open()
    _, labels = evaluation_rows(test, data).build(np.arange(len(test)), np.zeros(len(test), dtype=np.int32))
    refuse_strange_labels("data.test", np.arange(len(test)), labels, num_classes)
    return labels


def score(prediction: Prediction, labels: Tensor) -> dict[str, Any]:
    """Scores over the rows whose class the model knows, under the keys of `orchestrator.result:ModelResult`. Who knows
    the class of none is as one who guesses."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    log_probabilities = torch.from_numpy(prediction.log_probabilities.copy())
    num_classes = log_probabilities.shape[1]
    known = log_probabilities.gather(1, labels[:, None])[:, 0] != -torch.inf
    answers, labels = log_probabilities[known], labels[known]
    if not len(labels):
        return _guessing(prediction)
    scores = Scores(num_classes, torch.device("cpu"))
    scores.add(answers, labels)
    error = multiclass_calibration_error(answers.exp(), labels, num_classes, n_bins=BINS, norm="l1")
    right = (answers.argmax(dim=1) == labels).float()
    return {
        **scores.result(),
        "samples": int(known.sum()),
        "parameters": prediction.num_parameters,
        "ece": float(error),
        "per_class": [_mean(right[labels == number]) for number in range(num_classes)],
        "reliability": _reliability(answers.exp().amax(dim=1), right),
    }


def _guessing(prediction: Prediction) -> dict[str, Any]:
    num_classes = prediction.log_probabilities.shape[1]
    return {
        "accuracy": 0.0,
        "cross_entropy": math.log(num_classes),
        "samples": 0,
        "parameters": prediction.num_parameters,
        "ece": 0.0,
        "per_class": [None] * num_classes,
        "reliability": [],
    }


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _reliability(confidence: Tensor, right: Tensor) -> list[dict[str, float]]:
    """Of each bin of confidence that has rows: their mean confidence, their accuracy, their number."""
    bins = (confidence * BINS).ceil().clamp(1, BINS)
    inside = [bins == number for number in range(1, BINS + 1)]
    return [
        {"confidence": float(confidence[of].mean()), "accuracy": float(right[of].mean()), "count": int(of.sum())}
        for of in inside
        if bool(of.any())
    ]
