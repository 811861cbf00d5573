"""What a trained model costs: operations, and seconds on one CPU thread. Imports no Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from actors.data import SharedDataset, evaluation_rows
from actors.inputs import prepare
from actors.predictions import TrainedModel
from actors.specs import DataSpec
from actors.teacher import intra_op_threads

BATCHES = (1, 64)
SECONDS_OF_TIMING = 4.0
FEWEST_ROUNDS, MOST_ROUNDS = 5, 50

Timed = tuple[nn.Module, Tensor]


@torch.no_grad()
def costs(models: Sequence[TrainedModel], dataset: SharedDataset, data: DataSpec) -> list[dict[str, Any]]:
    """Of each model `flops` of one image, a multiply-add counted as two, and `latency_ms` by size of the batch, the
    median over rounds in which all models take turns. None where it does not run on the CPU, or its operations cannot
    be counted."""
    test = dataset.open()
    inputs, _ = evaluation_rows(test, data).build(*_first_rows(max(BATCHES), len(test)))
    timed = [(one.load(), prepare(inputs, one.model.input, one.name)) for one in models]
    with intra_op_threads(1):
        running = [one for one in timed if _runs(*one)]
        latencies = dict(zip(map(id, running), _latencies(running), strict=True))
    return [{"flops": _flops(one[0], one[1][:1]), "latency_ms": latencies.get(id(one))} for one in timed]


def _first_rows(count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count) % length, np.zeros(count, dtype=np.int32)


def _runs(model: nn.Module, rows: Tensor) -> bool:
    try:
        for size in BATCHES:
            model(rows[:size])
    except Exception:  # written for a GPU alone: a run does not fail by a figure
        return False
    return True


def _latencies(timed: Sequence[Timed]) -> list[dict[str, float]]:
    started = time.perf_counter()
    _one_round(timed)
    rounds = int(SECONDS_OF_TIMING / max(1e-9, time.perf_counter() - started))
    taken = [_one_round(timed) for _ in range(min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS))]
    return [
        {str(size): 1000 * median(one[number][place] for one in taken) for place, size in enumerate(BATCHES)}
        for number in range(len(timed))
    ]


def _one_round(timed: Sequence[Timed]) -> list[list[float]]:
    return [[_seconds(model, rows[:size]) for size in BATCHES] for model, rows in timed]


def _seconds(model: nn.Module, rows: Tensor) -> float:
    started = time.perf_counter()
    model(rows)
    return time.perf_counter() - started


def _flops(model: nn.Module, row: Tensor) -> int | None:
    try:
        with FlopCounterMode(display=False) as counter:
            model(row)
    except Exception:
        return None
    return counter.get_total_flops() or None
