"""Judges trained models and their ensemble on the test set, in Ray tasks. The driver sees numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from actors.costs import costs
from actors.judgement import Panel, judge
from actors.predictions import TrainedModel, predict
from actors.specs import DataSpec
from actors.storage import Folder, local_file


def judged(
    models: Sequence[TrainedModel],
    panel: Panel,
    num_classes: int,
    dataset: ray.ObjectRef,
    data: DataSpec,
    folder: Folder,
    gpus: float,
) -> dict[str, Any]:
    """What `actors.judgement:judge` finds."""
    predicting: Any = ray.remote(predict).options(num_gpus=gpus)
    predictions = [predicting.remote(model, num_classes, dataset, data) for model in models]
    judging: Any = ray.remote(judge)
    found: Any = ray.get(judging.remote(panel, num_classes, dataset, data, folder, *predictions))
    return found


def add_costs(
    found: Mapping[str, Any],
    models: Sequence[TrainedModel],
    panel: Panel,
    dataset: ray.ObjectRef,
    data: DataSpec,
) -> None:
    """Each model's costs to its scores. Nothing else of the run should work meanwhile: seconds are measured."""
    for name, cost in _costs(models, panel, dataset, data).items():
        found["models"][name].update(cost)


def _costs(
    models: Sequence[TrainedModel], panel: Panel, dataset: ray.ObjectRef, data: DataSpec
) -> dict[str, dict[str, Any]]:
    """Equal models (the student and the student alone) are measured once."""
    kinds = [_kind(model) for model in models]
    distinct = [models[kinds.index(kind)] for kind in dict.fromkeys(kinds)]
    measuring: Any = ray.remote(costs)
    measured = dict(zip(dict.fromkeys(kinds), ray.get(measuring.remote(distinct, dataset, data)), strict=True))
    by_name = {
        model.name: {**measured[kind], "bytes_on_disk": Path(local_file(model.weights)).stat().st_size}
        for model, kind in zip(models, kinds, strict=True)
    }
    by_name["ensemble"] = _sum([by_name[name] for name in panel.ensemble])
    return by_name


def _sum(costs_of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an ensemble; what is not known of one is not known of all."""
    flops = [one["flops"] for one in costs_of]
    latencies = [one["latency_ms"] for one in costs_of]
    sizes = [] if None in latencies else latencies[0]
    return {
        "bytes_on_disk": sum(one["bytes_on_disk"] for one in costs_of),
        "flops": None if None in flops else sum(flops),
        "latency_ms": {size: sum(one[size] for one in latencies) for size in sizes} or None,
    }


def _kind(model: TrainedModel) -> str:
    return repr(replace(model.model, taps={}))
