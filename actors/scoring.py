"""How good a model's answers are: accuracy and cross-entropy, by torchmetrics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actors.data import Rows, refuse_strange_labels
from actors.features import first_tensor
from actors.inputs import prepare
from actors.specs import InputSpec

ROWS_AT_ONCE = 256


class Scores:
    """Accuracy (0..1) and cross-entropy (nats) over rows; in a process group, over all its workers."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        # Takes seconds to import, and a driver never scores.
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        self._accuracy = MulticlassAccuracy(num_classes, average="micro").to(device)
        # Else torchmetrics leaves NaN out of the mean.
        self._cross_entropy = MeanMetric(nan_strategy="disable").to(device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        self._accuracy.update(logits, labels)
        self._cross_entropy.update(F.cross_entropy(logits, labels, reduction="none"))

    def result(self) -> dict[str, float]:
        return {
            "accuracy": float(self._accuracy.compute()),
            "cross_entropy": float(self._cross_entropy.compute()),
        }


def score_rows(
    model: nn.Module, spec: InputSpec, rows: Rows, ids: np.ndarray, num_classes: int, device: torch.device
) -> dict[str, float]:
    """Scores of a model in eval mode on the rows `ids` of the training set."""
    scores = Scores(num_classes, device)
    for piece, logits, labels in judged(model, spec, rows, ids, device):
        refuse_strange_labels("data.train", piece, labels, num_classes)
        scores.add(logits, labels.to(device))
    return scores.result()


@torch.no_grad()
def judged(
    model: nn.Module, spec: InputSpec, rows: Rows, ids: np.ndarray, device: torch.device
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Some ids, float32 logits on `device` and labels, in pieces."""
    for start in range(0, len(ids), ROWS_AT_ONCE):
        piece = ids[start : start + ROWS_AT_ONCE]
        inputs, labels = rows.build(piece, np.zeros(len(piece), dtype=np.int32))
        prepared = prepare({name: tensor.to(device) for name, tensor in inputs.items()}, spec)
        yield piece, first_tensor(model(prepared), "the output of the model").float(), labels
