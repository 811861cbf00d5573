"""A teacher: a frozen model that judges a batch in fixed chunks of rows. `TeacherActor` is its Ray shell in `pool`.

Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actors.features import TappedModel
from actors.inputs import prepare
from actors.knowledge import LOGITS, Knowledge, TeacherRequest
from actors.specs import TeacherSpec
from actors.staging import Chunk, carrier
from actors.weights import fit_weights, read_weights, weight_hash

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """Plain torch, eval mode, frozen, float32 out. A row's answer does not depend on its neighbours: chunks are padded.

    Whether autograd records is the caller's business: a source asks under `no_grad`.
    """

    def __init__(self, spec: TeacherSpec, device: torch.device | None = None) -> None:
        where = f"teachers.{spec.name}"
        self.spec = spec
        self.device = device or torch.device("cpu")
        model = _loaded(spec)
        self.version = weight_hash(model.state_dict())
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        model.to(self.device).eval().requires_grad_(False)
        self._layout = torch.contiguous_format
        if spec.channels_last:
            self._layout = torch.channels_last
            model.to(memory_format=self._layout)
        self._model = TappedModel(model, spec.model.taps, f"{where}.taps")
        self._columns = _columns(spec.class_map)
        self._carried = carrier(self.device)
        if spec.compile is not None:
            self._compile(spec.compile, f"{where}.compile")

    def answer(
        self, inputs: Mapping[str, Tensor], request: TeacherRequest, digests: np.ndarray | None = None
    ) -> Knowledge:
        """Knowledge of all rows of `inputs`, on the teacher's device; `digests`: of the pixels, where it travels."""
        with intra_op_threads(self.spec.threads):
            chunks = [self._answered(chunk, request) for chunk in self._carried(self._chunks(inputs))]
        rows = len(next(iter(inputs.values())))
        tensors = {key: _joined([chunk[key] for chunk in chunks], rows) for key in chunks[0]}
        return Knowledge(self.spec.name, tensors.pop(LOGITS, None), tensors, digests, self.version)

    def _chunks(self, inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        rows, chunk = len(next(iter(inputs.values()))), self.spec.chunk
        for start in range(0, rows, chunk):
            yield {name: _padded(tensor[start : start + chunk], chunk) for name, tensor in inputs.items()}

    def _answered(self, chunk: Chunk, request: TeacherRequest) -> dict[str, Tensor]:
        logits, features = self._judge(chunk, request.tapped)
        tensors = {LOGITS: self._in_class_order(logits), **features}
        sent = {name: tensors[name] for name in request.sent}
        for reduction in request.reductions:
            sent |= reduction(tensors)
        return sent

    def _judge(self, chunk: Chunk, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        prepared = prepare(chunk, self.spec.model.input, f"teachers.{self.spec.name}.input")
        return self._forward(prepared, taps)

    def _forward(self, prepared: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        half = HALF.get(self.spec.precision)
        # Compiled, every tap is in the one graph: another graph for other taps would give the logits other last bits.
        within = taps if self.spec.compile is None else None
        with torch.autocast(self.device.type, half, enabled=half is not None):
            logits, features = self._model(prepared.contiguous(memory_format=self._layout), within)
        return logits.float().contiguous(), {tap: features[tap].float() for tap in taps}

    @torch.no_grad()
    def _compile(self, backend: str, where: str) -> None:
        """Now, and not at the first request. Taps are compiled with it; other teachers do not count against its limit
        of compilations, beyond which torch would silently compute uncompiled."""
        nothing = torch.zeros(self.spec.chunk, *self.spec.input_shape, device=self.device)
        # Else inductor chooses kernels by timing them, and two replicas may end in other last bits.
        options = {"deterministic": True} if backend == "inductor" else None
        try:
            self._model.model.compile(backend=backend, dynamic=False, isolate_recompiles=True, options=options)
            with intra_op_threads(self.spec.threads):
                self._forward(nothing, ())
        except Exception as error:
            cause = " ".join(str(error).splitlines()[:2]).strip()
            raise ValueError(
                f"{where}: {backend!r} cannot compile it here: {type(error).__name__}: {cause}; install what it needs "
                "(inductor: a C++ compiler, on a GPU Triton), or leave it out"
            ) from error

    def _in_class_order(self, logits: Tensor) -> Tensor:
        return logits if self._columns is None else logits[:, self._columns]


def weights_version(spec: TeacherSpec) -> str:
    """What `Teacher.version` will be."""
    return weight_hash(_loaded(spec).state_dict())


def _loaded(spec: TeacherSpec) -> nn.Module:
    model, where = spec.model.model.build(), f"teachers.{spec.name}.checkpoint"
    fit_weights(model, read_weights(spec.weights, where), where)
    return model


def known_classes(class_map: Sequence[int] | None) -> list[int] | None:
    """The data's classes that a teacher's logits stand for, in the data's order; None: all of them."""
    return None if class_map is None else sorted(class_map)


def _columns(class_map: Sequence[int] | None) -> list[int] | None:
    return None if class_map is None else [int(column) for column in np.argsort(class_map)]


def _joined(chunks: list[Tensor], rows: int) -> Tensor:
    return (chunks[0] if len(chunks) == 1 else torch.cat(chunks))[:rows]


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
