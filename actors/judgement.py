"""What is learned from all predictions together: who agrees, who helped, where student and ensemble part. Imports no
Ray.

`judge` is the body of a Ray task: it writes every model's answers and a few images into the run's folder, and gives
numbers alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from actors.data import SharedDataset, evaluation_rows
from actors.predictions import Prediction, labels_of_test, mean_prediction, score
from actors.specs import ANSWERS_FILE, DataSpec
from actors.storage import Folder

IMAGES_FOLDER = "disagreements"
MOST_IMAGES = 12
ENSEMBLE, STUDENT, ALONE = "ensemble", "student", "alone"


@dataclass(frozen=True)
class Panel:
    """Who is judged. `models`: names, in the order of their predictions; `ensemble`: the teachers that make it up;
    `weights`: of the teachers that the student hears, over its training."""

    models: tuple[str, ...]
    ensemble: tuple[str, ...]
    weights: Mapping[str, float]


def judge(
    panel: Panel, num_classes: int, dataset: SharedDataset, data: DataSpec, folder: Folder, *predictions: Prediction
) -> dict[str, Any]:
    """Scores by model under `models`; the other keys are those of `orchestrator.result:ExperimentResult`."""
    labels = labels_of_test(dataset, data, num_classes)
    said = dict(zip(panel.models, predictions, strict=True))
    said[ENSEMBLE] = mean_prediction([said[name] for name in panel.ensemble])
    answers = {name: torch.from_numpy(one.log_probabilities.copy()) for name, one in said.items()}
    choices = {name: one.argmax(dim=1) for name, one in answers.items()}
    write_answers(folder, labels, answers)
    test = dataset.open()
    return {
        "models": {name: score(one, labels) for name, one in said.items()},
        "test_samples": len(labels),
        "classes": class_names(test, num_classes),
        "agreement": agreement(choices),
        "against_alone": against_alone(choices, labels),
        "contributions": contributions(panel, said, choices, labels),
        "disagreements": disagreements(answers, labels, Pictures(test, data, folder)),
    }


def class_names(dataset: Any, num_classes: int) -> list[str]:
    """Those of the dataset, as torchvision's have them, or the numbers."""
    given = getattr(dataset, "classes", None)
    names = given if isinstance(given, Sequence) and len(given) == num_classes else range(num_classes)
    return [str(name) for name in names]


def agreement(choices: Mapping[str, Tensor]) -> dict[str, Any]:
    """The share of samples on which each two models give the same answer."""
    shares = [[float((one == other).float().mean()) for other in choices.values()] for one in choices.values()]
    return {"names": list(choices), "shares": shares}


def against_alone(choices: Mapping[str, Tensor], labels: Tensor) -> dict[str, int] | None:
    """How many samples the student has right and the student alone has not, and the other way round."""
    if ALONE not in choices:
        return None
    gained, lost = _gained_and_lost(choices, labels)
    return {"gained": int(gained.sum()), "lost": int(lost.sum())}


def contributions(
    panel: Panel, said: Mapping[str, Prediction], choices: Mapping[str, Tensor], labels: Tensor
) -> list[dict[str, Any]]:
    """Of each teacher of the ensemble that the student hears: what the ensemble is without it, on the samples that the
    whole ensemble is scored on, and how it did where the student differs from the student alone. Empty where there are
    fewer than two."""
    heard = [name for name in panel.ensemble if name in panel.weights]
    if len(heard) < 2:
        return []
    nobody = torch.zeros_like(labels, dtype=torch.bool)
    gained, lost = _gained_and_lost(choices, labels) if ALONE in choices else (nobody, nobody)
    found = []
    for name in heard:
        rest = mean_prediction([said[other] for other in panel.ensemble if other != name])
        accuracy, cross_entropy = scored_as(said[ENSEMBLE], rest, labels)
        right = choices[name] == labels
        found.append(
            {
                "teacher": name,
                "weight": panel.weights[name],
                "accuracy_without": accuracy,
                "cross_entropy_without": cross_entropy,
                "gained_right": int((gained & right).sum()),
                "lost_wrong": int((lost & ~right).sum()),
            }
        )
    return found


def scored_as(whole: Prediction, rest: Prediction, labels: Tensor) -> tuple[float, float]:
    """Accuracy and cross-entropy of `rest` on the samples whose class `whole` knows. A class that `rest` does not know
    is wrong, and costs what knowing nothing costs."""
    rows = torch.from_numpy(whole.log_probabilities.copy()).gather(1, labels[:, None])[:, 0] != -torch.inf
    answers, labels = torch.from_numpy(rest.log_probabilities.copy())[rows], labels[rows]
    costs = -answers.gather(1, labels[:, None])[:, 0]
    costs = torch.where(costs.isinf(), math.log(answers.shape[1]), costs)
    right = answers.argmax(dim=1) == labels
    return float(right.double().mean()), float(costs.double().mean())


def _gained_and_lost(choices: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    student, alone = choices[STUDENT] == labels, choices[ALONE] == labels
    return student & ~alone, alone & ~student


@dataclass(frozen=True)
class Pictures:
    """Writes samples of the test set as PNG files into a run's folder."""

    dataset: Any
    data: DataSpec
    folder: Folder

    def write(self, sample: int) -> str:
        """The file's name relative to the folder; there is none of what is no image."""
        inputs, _ = evaluation_rows(self.dataset, self.data).build(np.array([sample]), np.zeros(1, dtype=np.int32))
        pixels = inputs.get("image", next(iter(inputs.values())))[0]
        if pixels.ndim == 3:
            (self.folder / IMAGES_FOLDER).write(f"{sample}.png", png(pixels))
        return f"{IMAGES_FOLDER}/{sample}.png"


def disagreements(answers: Mapping[str, Tensor], labels: Tensor, pictures: Pictures) -> list[dict[str, Any]]:
    """The samples on which student and ensemble give other answers, by KL(ensemble || student), the largest first."""
    student, ensemble = answers[STUDENT], answers[ENSEMBLE]
    terms = ensemble.exp() * (ensemble - student)
    divergences = torch.where(ensemble == -torch.inf, 0.0, terms).sum(dim=1)
    differing = torch.nonzero(student.argmax(dim=1) != ensemble.argmax(dim=1))[:, 0]
    worst = differing[divergences[differing].argsort(descending=True)[:MOST_IMAGES]]
    return [
        {
            "sample": row,
            "label": int(labels[row]),
            "student": int(student[row].argmax()),
            "ensemble": int(ensemble[row].argmax()),
            "student_probability": float(student[row].max().exp()),
            "ensemble_probability": float(ensemble[row].max().exp()),
            "divergence": float(divergences[row]),
            "image": pictures.write(row),
        }
        for row in worst.tolist()
    ]


def png(pixels: Tensor) -> bytes:
    """(channels, height, width) as a grey or coloured image; floats are stretched over their range."""
    shown = pixels if pixels.shape[0] == 3 else pixels[:1]
    if shown.is_floating_point():
        span = (shown.max() - shown.min()).clamp(min=1e-12)
        shown = ((shown - shown.min()) / span * 255).round().to(torch.uint8)
    array = shown.permute(1, 2, 0).numpy().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0]).save(stream, format="PNG")
    return stream.getvalue()


def write_answers(folder: Folder, labels: Tensor, answers: Mapping[str, Tensor]) -> None:
    """A table: each sample's label, and per model its answer and the probability that it gives to it."""
    columns: dict[str, Any] = {"label": labels.numpy()}
    for name, log_probabilities in answers.items():
        columns[name] = log_probabilities.argmax(dim=1).numpy()
        columns[f"{name}.probability"] = log_probabilities.amax(dim=1).exp().numpy()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    folder.write(ANSWERS_FILE, sink.getvalue().to_pybytes())
