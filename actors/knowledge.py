"""The things that travel between students and teachers.

`Batch` is what a student is about to see; `TeacherRequest` says what one teacher is asked about it, `merged` makes one
of several, and `Knowledge` is that teacher's answer. `pack` and `unpack` take knowledge across a process boundary as
one dict of numpy arrays; `refuse_unbounded` says what cannot be learned from. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from actors.digests import row_digests
from actors.errors import KnowledgeError
from actors.mixing import Mixtures
from actors.reductions import Reduction

LOGITS = "logits"
TENSOR = "tensor:"
MOST_IDS_NAMED = 8

RowNumbers = tuple[int, ...] | None
"""Rows of a batch by number; None: all of them."""
ByRow = TypeVar("ByRow", np.ndarray, Tensor)


@dataclass(frozen=True)
class Position:
    """The place of a batch in a training run: epoch and step within it, both from 0."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows of one student worker. `inputs`: named tensors, first dimension the rows; `labels`: int64, -1 where
    absent; `mixtures`: the other label of each row, where the view mixes samples.
    """

    ids: np.ndarray
    views: np.ndarray
    inputs: Mapping[str, Tensor]
    labels: Tensor
    position: Position = Position()
    mixtures: Mixtures | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digests(self) -> np.ndarray:
        return row_digests(self.inputs)


def at_rows(values: ByRow, rows: RowNumbers) -> ByRow:
    return values if rows is None else values[list(rows)]


@dataclass(frozen=True)
class TeacherRequest:
    """What one teacher is asked about a batch: logits or not, the features at `taps`, and what is made of these or of
    others by `reductions`; of which rows."""

    teacher: str
    logits: bool = True
    taps: tuple[str, ...] = ()
    rows: RowNumbers = None
    reductions: tuple[Reduction, ...] = ()

    @property
    def sent(self) -> tuple[str, ...]:
        """What travels as it is: `logits` and taps."""
        return (LOGITS,) * self.logits + self.taps

    @property
    def tapped(self) -> tuple[str, ...]:
        """The taps that must be read, whether they travel or not."""
        reduced = (output for one in self.reductions for output in one.outputs if output != LOGITS)
        return tuple(dict.fromkeys((*self.taps, *reduced)))


def merged(requests: Sequence[TeacherRequest]) -> TeacherRequest:
    """One request of a teacher for all that several want. What it sends as it is, is reduced by whoever wants that."""
    logits = any(one.logits for one in requests)
    taps = tuple(dict.fromkeys(tap for one in requests for tap in one.taps))
    sent = {*taps, LOGITS} if logits else set(taps)
    wanted = dict.fromkeys(reduction for one in requests for reduction in one.reductions)
    reductions = tuple(one for one in wanted if not sent.issuperset(one.outputs))
    some = [one.rows for one in requests if one.rows is not None]
    rows = tuple(sorted(set().union(*some))) if len(some) == len(requests) else None
    return TeacherRequest(requests[0].teacher, logits, taps, rows, reductions)


KnowledgeRequest = tuple[TeacherRequest, ...]


@dataclass(frozen=True)
class Knowledge:
    """One teacher's answer: float32 logits (rows, classes it knows), features by tap, results of reductions by key
    beside them, the digest of each row it judged. `rows`: those of the batch that it was asked about.
    """

    teacher: str
    logits: Tensor | None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    digests: np.ndarray | None = None
    version: str = ""
    rows: RowNumbers = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        named = dict(self.features)
        return named if self.logits is None else {LOGITS: self.logits, **named}

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(self, device: torch.device) -> Knowledge:
        logits = None if self.logits is None else self.logits.to(device)
        return replace(self, logits=logits, features={tap: t.to(device) for tap, t in self.features.items()})


def refuse_unbounded(knowledge: Knowledge, ids: np.ndarray) -> None:
    """Raises KnowledgeError where a value is NaN or infinite; `ids`: the sample of each row."""
    for tap, tensor in knowledge.tensors.items():
        unbounded = unbounded_rows(tensor)
        if unbounded.any():
            raise KnowledgeError(
                f"teacher {knowledge.teacher!r} sent NaN or infinite values, tap {tap!r}, "
                f"sample ids {named_ids(ids[unbounded])}; check its weights and its input section"
            )


def refuse_other_pixels(batch: Batch, knowledge: Knowledge) -> None:
    """Raises KnowledgeError where a teacher says that it judged other pixels than the batch's."""
    if knowledge.digests is None:
        return
    ids = at_rows(batch.ids, knowledge.rows)
    digests = at_rows(batch.digests, knowledge.rows)
    if not np.array_equal(knowledge.digests, digests):
        raise KnowledgeError(
            f"teacher {knowledge.teacher!r} judged other pixels than the student sees, sample ids "
            f"{named_ids(ids[knowledge.digests != digests])} in "
            f"view {int(batch.views[0])}; data.views must depend on nothing but its dataset, id and generator"
        )


def unbounded_rows(tensor: Tensor) -> np.ndarray:
    """Per row, whether it holds NaN or an infinite value."""
    # A finite sum has finite terms alone; one that is not may also have overflowed.
    if bool(tensor.sum().isfinite()):
        return np.zeros(len(tensor), dtype=bool)
    return ~tensor.isfinite().reshape(len(tensor), -1).all(dim=1).cpu().numpy()


def named_ids(ids: Sequence[int] | np.ndarray) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(ids) - MOST_IDS_NAMED} more" if len(ids) > MOST_IDS_NAMED else ""
    return ", ".join(str(int(i)) for i in ids[:MOST_IDS_NAMED]) + more


Packed = dict[str, Any]


def pack(knowledge: Knowledge) -> Packed:
    """Knowledge as one flat dict of numpy arrays, which Ray moves without a copy."""
    arrays = {f"{TENSOR}{name}": tensor.numpy() for name, tensor in knowledge.tensors.items()}
    return {"teacher": knowledge.teacher, "version": knowledge.version, "digests": knowledge.digests, **arrays}


def packed_size(packed: Packed) -> tuple[int, int]:
    """Rows, and bytes of what was said about them."""
    arrays = [value for key, value in packed.items() if key.startswith(TENSOR)]
    return len(arrays[0]), sum(array.nbytes for array in arrays)


def unpack(packed: Packed) -> Knowledge:
    """The inverse of `pack`. The tensors share the arrays' memory, which may be read-only: never write into them."""
    tensors = {
        key.removeprefix(TENSOR): torch.from_dlpack(value) for key, value in packed.items() if key.startswith(TENSOR)
    }
    logits = tensors.pop(LOGITS, None)
    return Knowledge(packed["teacher"], logits, tensors, packed["digests"], packed["version"])
