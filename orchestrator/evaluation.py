"""Scores trained models and their ensemble on the test set: one Ray task per model, one for the scores.

The driver sees numbers alone.
"""

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
    predictions = [predicting.remote(model, num_classes, dataset, data) for model in models]
    names = [model.name for model in models]
    groups = [*([number] for number in range(len(names))), [names.index(name) for name in ensemble]]
    *scores, together = ray.get(scoring.remote(dataset, data, groups, *predictions))
    return dict(zip(names, scores, strict=True)), together
