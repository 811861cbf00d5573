"""A teacher: a frozen model that judges a batch in fixed chunks of rows. `TeacherActor` is its Ray shell in `pool`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actors.features import TappedModel
from actors.inputs import prepare
from actors.knowledge import Knowledge, TeacherRequest
from actors.specs import TeacherSpec
from actors.weights import fit_weights, read_weights, weight_hash


class Teacher:
    """Plain torch, eval mode, frozen, float32 out. A row's answer does not depend on its neighbours: chunks are padded.

    Whether autograd records is the caller's business: a source asks under `no_grad`.
    """

    def __init__(self, spec: TeacherSpec, device: torch.device | None = None) -> None:
        where = f"teachers.{spec.name}"
        self.spec = spec
        self.device = device or torch.device("cpu")
        model = spec.model.model.build()
        fit_weights(model, read_weights(spec.weights, f"{where}.checkpoint"), f"{where}.checkpoint")
        self.version = weight_hash(model.state_dict())
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        model.to(self.device).eval().requires_grad_(False)
        self._model = TappedModel(model, spec.model.taps, f"{where}.taps")
        self._columns = _columns(spec.class_map)

    def answer(
        self, inputs: Mapping[str, Tensor], request: TeacherRequest, digests: np.ndarray | None = None
    ) -> Knowledge:
        """Knowledge of all rows of `inputs`, on the teacher's device; `digests`: of the pixels, where it travels."""
        with intra_op_threads(self.spec.resources.threads):
            chunks = [self._judge(chunk, request.taps) for chunk in self._chunks(inputs)]
        rows = len(next(iter(inputs.values())))
        logits = torch.cat([logits for logits, _ in chunks])[:rows]
        features = {tap: torch.cat([taps[tap] for _, taps in chunks])[:rows] for tap in request.taps}
        return Knowledge(
            self.spec.name,
            self._in_class_order(logits) if request.logits else None,
            features,
            digests,
            self.version,
        )

    def _chunks(self, inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        rows, chunk = len(next(iter(inputs.values()))), self.spec.chunk
        for start in range(0, rows, chunk):
            yield {name: _padded(tensor[start : start + chunk], chunk) for name, tensor in inputs.items()}

    def _judge(self, inputs: Mapping[str, Tensor], taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        prepared = prepare(on_device, self.spec.model.input, f"teachers.{self.spec.name}.input")
        logits, features = self._model(prepared, taps)
        return logits.float(), {tap: feature.float() for tap, feature in features.items()}

    def _in_class_order(self, logits: Tensor) -> Tensor:
        return logits if self._columns is None else logits[:, self._columns]


def known_classes(class_map: Sequence[int] | None) -> list[int] | None:
    """The data's classes that a teacher's logits stand for, in the data's order; None: all of them."""
    return None if class_map is None else sorted(class_map)


def _columns(class_map: Sequence[int] | None) -> list[int] | None:
    return None if class_map is None else [int(column) for column in np.argsort(class_map)]


def _padded(rows: Tensor, chunk: int) -> Tensor:
    missing = chunk - len(rows)
    return F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, missing)) if missing else rows


@contextmanager
def intra_op_threads(count: int) -> Iterator[None]:
    """Runs the block with `count` torch threads: another number gives other last bits."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
