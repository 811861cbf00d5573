"""What can be known of a config's data before anything starts: it can be read, its views are pure, its labels fit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.data import Rows, evaluation_rows, slice_ids, training_rows
from actors.knowledge import row_digests
from actors.specs import ImportSpec
from actors.views import MapDataset
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import Rung

LABELS_SAMPLED = 256
ROWS_TIMED = 32


@dataclass(frozen=True)
class Datasets:
    """The opened datasets and one raw input of each view. `row_seconds`: what building one for training takes;
    `mixes`: whether the view for training mixes samples."""

    train: MapDataset
    test: MapDataset
    training_input: Mapping[str, Tensor]
    evaluation_input: Mapping[str, Tensor]
    row_seconds: float
    mixes: bool


def open_data(config: ExperimentConfig) -> Datasets:
    """Raises ValueError where a dataset or a view cannot be read."""
    data = config.data.spec()
    train, test = _dataset(data.train, "data.train"), _dataset(data.test, "data.test")
    training_input = _read(training_rows(train, data), "data.views")
    evaluation_input = _read(evaluation_rows(train, data), "data.evaluation_view")
    _read(evaluation_rows(test, data), "data.test")
    mixes, evaluation_mixes = (_mixes(rows) for rows in (training_rows(train, data), evaluation_rows(train, data)))
    if evaluation_mixes:
        raise ValueError(
            f"data.evaluation_view: {data.evaluation_view.target} mixes samples, and a score would be of no "
            "image of the data; give one that does not, actors.views:plain say"
        )
    kinds = [{name: tensor.dtype for name, tensor in each.items()} for each in (training_input, evaluation_input)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"data.views: it gives {_kinds_text(kinds[0])}, data.evaluation_view gives {_kinds_text(kinds[1])}; give "
            "both the same (uint8 is divided by 255, floats are taken as they are)"
        )
    seconds = _seconds_of_a_row(training_rows(train, data))
    return Datasets(train, test, training_input, evaluation_input, seconds, mixes)


def _mixes(rows: Rows) -> bool:
    _, _, mixtures = rows.mixed(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int32))
    return mixtures is not None


def _seconds_of_a_row(rows: Rows) -> float:
    start = time.perf_counter()
    rows.build(np.zeros(ROWS_TIMED, dtype=np.int64), np.arange(ROWS_TIMED, dtype=np.int32))
    return (time.perf_counter() - start) / ROWS_TIMED


def _kinds_text(kinds: Mapping[str, torch.dtype]) -> str:
    return ", ".join(f"{name} in {str(dtype).removeprefix('torch.')}" for name, dtype in kinds.items())


def check_labels(config: ExperimentConfig, datasets: Datasets, num_classes: int) -> None:
    """Labels of evenly spaced rows are classes; while training every label is checked again."""
    data = config.data.spec()
    for where, dataset in (("data.train", datasets.train), ("data.test", datasets.test)):
        ids = np.unique(np.linspace(0, len(dataset) - 1, LABELS_SAMPLED).astype(np.int64))
        _, labels = evaluation_rows(dataset, data).build(ids, np.zeros(len(ids), dtype=np.int32))
        if int(labels.max()) >= num_classes:
            raise ValueError(
                f"student.model: its logits have {num_classes} classes, {where} has label {int(labels.max())}; "
                "raise num_classes in its kwargs"
            )
        if dataset is datasets.test and int(labels.min()) < 0:
            raise ValueError(f"{where}: expected labels of at least 0, got {int(labels.min())}")


def steps_per_epoch(config: ExperimentConfig, rungs: tuple[Rung, ...], datasets: Datasets) -> dict[str, int]:
    """Of each rung; raises ValueError where a slice does not fill a batch, or is missing in the dataset."""
    slices = slice_ids(config.data.slices, len(datasets.train), config.data.seed)
    for rung in rungs:
        if len(slices[config.data.validation]) < rung.num_workers:
            raise ValueError(
                f"data.slices.{config.data.validation}: expected at least {rung.num_workers} samples, one for "
                f"each worker "
                f"of {rung.name}, got {len(slices[config.data.validation])}"
            )
    return {rung.name: _steps(rung, config.data.slices) for rung in rungs}


def _steps(rung: Rung, slices: Mapping[str, int]) -> int:
    rows = rung.rows_per_epoch or slices[rung.labelled] + (slices[rung.unlabelled] if rung.unlabelled else 0)
    steps = rows // rung.recipe.batch_size
    if not steps:
        raise ValueError(
            f"{rung.where}: {rows} samples do not fill one batch of {rung.recipe.batch_size}; "
            "enlarge the slice or lower data.batch_size"
        )
    return steps


def _dataset(spec: ImportSpec, where: str) -> MapDataset:
    try:
        dataset = spec.build()
    except Exception as error:
        raise ValueError(
            f"{where}: {spec.target} failed: {type(error).__name__}: {error}; check {where}.kwargs"
        ) from error
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ValueError(f"{where}: expected a dataset with a length and rows by number, got {type(dataset).__name__}")
    if not len(dataset):
        raise ValueError(f"{where}: expected samples, got an empty dataset")
    return dataset


def _read(rows: Rows, where: str) -> Mapping[str, Tensor]:
    """One row of inputs; the first two rows are built forwards and backwards, which a pure view does not notice."""
    ids, views = np.arange(2), np.zeros(2, dtype=np.int32)
    try:
        inputs, _ = rows.build(ids, views)
        backwards, _ = rows.build(ids[::-1], views)
    except Exception as error:
        raise ValueError(
            f"{where}: the first rows cannot be read: {type(error).__name__}: {error}; expected (image, label) with an "
            "image of (height, width) or (channels, height, width) and a whole number"
        ) from error
    if not np.array_equal(row_digests(inputs), row_digests(backwards)[::-1]):
        raise ValueError(
            f"{where}: the same sample and view gave other pixels in another order; it must depend on nothing but its "
            "dataset, id and generator"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in inputs.values()):
        raise ValueError(f"{where}: the first rows hold NaN or infinite values")
    return {name: tensor[:1] for name, tensor in inputs.items()}
