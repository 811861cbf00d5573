"""Scores trained models and their ensemble on the test set: one Ray task per model; the driver sees numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from actors.predictions import TrainedModel, predict, score
from actors.specs import DataSpec

Scored = dict[str, Any]


def evaluate(
    models: Sequence[TrainedModel],
    ensemble: Sequence[str],
    num_classes: int,
    dataset: ray.ObjectRef,
    data: DataSpec,
    gpus: float,
) -> tuple[dict[str, Scored], Scored]:
    """Each model's scores by name, and those of the mean of probabilities of the models named in `ensemble`."""
    predicting: Any = ray.remote(predict).options(num_gpus=gpus)
    scoring: Any = ray.remote(score)
    predictions = {model.name: predicting.remote(model, num_classes, dataset, data) for model in models}
    scored = {name: scoring.remote(dataset, data, prediction) for name, prediction in predictions.items()}
    together = scoring.remote(dataset, data, *(predictions[name] for name in ensemble))
    return {name: ray.get(reference) for name, reference in scored.items()}, ray.get(together)
