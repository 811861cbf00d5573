"""What trained models say about the test set, and how good it is. Bodies of Ray tasks; imports no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.data import SharedDataset, evaluation_rows, refuse_strange_labels
from actors.scoring import Scores, judged
from actors.specs import DataSpec, ModelSpec
from actors.weights import fit_weights, read_weights


@dataclass(frozen=True)
class TrainedModel:
    """A model and its weights' file. `class_map[j]` is the data's class that output j stands for."""

    name: str
    model: ModelSpec
    weights: str
    class_map: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Prediction:
    """Log-probabilities (test rows, classes), float32, -inf for classes that the model does not know."""

    log_probabilities: np.ndarray
    num_parameters: int


def predict(trained: TrainedModel, num_classes: int, dataset: SharedDataset, data: DataSpec) -> Prediction:
    """The prediction of one model for the whole test set."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = trained.model.model.build()
    fit_weights(model, read_weights(trained.weights, trained.name), trained.name)
    model.to(device).eval()
    test = dataset.open()
    pieces = judged(model, trained.model.input, evaluation_rows(test, data), np.arange(len(test)), device)
    logits = torch.cat([logits.cpu() for _, logits, _ in pieces])
    known = list(range(num_classes) if trained.class_map is None else trained.class_map)
    log_probabilities = torch.full((len(test), num_classes), -torch.inf)
    log_probabilities[:, known] = torch.log_softmax(logits, dim=1)
    return Prediction(log_probabilities.numpy(), sum(parameter.numel() for parameter in model.parameters()))


def score(
    dataset: SharedDataset, data: DataSpec, groups: Sequence[Sequence[int]], *predictions: Prediction
) -> list[dict[str, float]]:
    """Accuracy and cross-entropy of each group: of the mean of its predictions' probabilities, over the rows whose
    class they know. A group names its predictions by number."""
    test = dataset.open()
    _, labels = evaluation_rows(test, data).build(np.arange(len(test)), np.zeros(len(test), dtype=np.int32))
    refuse_strange_labels("data.test", np.arange(len(test)), labels, predictions[0].log_probabilities.shape[1])
    return [_score_together([predictions[number] for number in group], labels) for group in groups]


def _score_together(predictions: Sequence[Prediction], labels: Tensor) -> dict[str, float]:
    combined = mean_prediction([torch.from_numpy(one.log_probabilities.copy()) for one in predictions])
    known = combined.gather(1, labels[:, None])[:, 0] != -torch.inf
    scores = Scores(combined.shape[1], torch.device("cpu"))
    scores.add(combined[known], labels[known])
    return {
        **scores.result(),
        "samples": int(known.sum()),
        "parameters": sum(one.num_parameters for one in predictions),
    }


def mean_prediction(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of probabilities over the models that know a class, scaled to add up to 1, as log-probabilities."""
    stacked = torch.stack(list(log_probabilities))
    knowing = (stacked != -torch.inf).sum(dim=0)
    return torch.log_softmax(torch.logsumexp(stacked, dim=0) - knowing.clamp(min=1).log(), dim=1)
