"""Data: slices of a dataset, the batches of a student worker, and the pixels of (ids, views).

`slice_ids` cuts the training set; `Rows` builds pixels; `BatchSampler` says which rows a worker sees at a position;
`SharedDataset` is a dataset as bytes and arrays that Ray keeps once per node. Imports no Ray.
"""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.knowledge import Batch, Position
from actors.mixing import Mixture, Mixtures
from actors.specs import PARTNERS, DataSpec, ImportSpec
from actors.views import MapDataset, ViewDice

NO_LABEL = -1


def slice_ids(slices: Mapping[str, int], length: int, seed: int) -> dict[str, np.ndarray]:
    """Disjoint slices of `range(length)`, cut in the given order from one permutation drawn from `seed`."""
    wanted = sum(slices.values())
    if wanted > length:
        raise ValueError(
            f"data.slices: they add up to {wanted} samples, data.train has {length}; make one of them smaller"
        )
    order = np.random.Generator(np.random.Philox(key=[seed, 1])).permutation(length)
    ends = np.cumsum(list(slices.values()))
    return {name: np.sort(order[end - size : end]) for (name, size), end in zip(slices.items(), ends, strict=True)}


class Rows:
    """The pixels and labels of (ids, views): a pure function of the seed, each id and each view. `slices`: by size,
    in which a view that mixes finds its partners; what is in none is a slice of its own."""

    def __init__(
        self, dataset: MapDataset, view: ImportSpec, seed: int, slices: Mapping[str, int] | None = None
    ) -> None:
        self._dataset = dataset
        self._view = partial(view.resolve(), **view.kwargs)
        self._seed = seed
        mixes = asks_partners(view)
        self._partners = _Partners(len(dataset), slice_ids(slices or {}, len(dataset), seed)) if mixes else None

    def build(self, ids: np.ndarray, views: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Named tensors with the rows first, and int64 labels; of a mixture the first."""
        inputs, labels, _ = self.mixed(ids, views)
        return inputs, labels

    def mixed(self, ids: np.ndarray, views: np.ndarray) -> tuple[dict[str, Tensor], Tensor, Mixtures | None]:
        """The same, and the rest of the labels where the view mixes samples."""
        dice = ViewDice(self._seed)
        drawn = [self._row(dice, int(i), int(v)) for i, v in zip(ids, views, strict=True)]
        names = drawn[0][0]
        inputs = {name: torch.from_numpy(_stacked([row[name] for row, _ in drawn])) for name in names}
        labels = [label for _, label in drawn]
        if not any(isinstance(label, Mixture) for label in labels):
            return inputs, _as_tensor(labels, ids), None
        whole = (label if isinstance(label, Mixture) else Mixture(label, label, 1.0) for label in labels)
        first, second, weights = zip(*whole, strict=True)
        partner_labels = _as_tensor(second, ids)
        return inputs, _as_tensor(first, ids), Mixtures(partner_labels, torch.tensor(weights, dtype=torch.float32))

    def _row(self, dice: ViewDice, sample_id: int, view: int) -> tuple[Mapping[str, np.ndarray], Any]:
        generator = dice.at(sample_id, view)
        more = {} if self._partners is None else {PARTNERS: self._partners.of(sample_id)}
        inputs, label = self._view(self._dataset, sample_id, generator, **more)
        return (inputs if isinstance(inputs, Mapping) else {"image": inputs}), label


class _Partners:
    """Who may be mixed with whom: samples of the same slice, else a student would see what it is judged by."""

    def __init__(self, length: int, slices: Mapping[str, np.ndarray]) -> None:
        self._slice = np.full(length, len(slices))
        for number, ids in enumerate(slices.values()):
            self._slice[ids] = number
        self._ids = [*slices.values(), np.flatnonzero(self._slice == len(slices))]

    def of(self, sample_id: int) -> np.ndarray:
        return self._ids[self._slice[sample_id]]


def asks_partners(view: ImportSpec) -> bool:
    """Whether a view mixes its sample with others of the slice."""
    try:
        return PARTNERS in inspect.signature(view.resolve()).parameters
    except (TypeError, ValueError):
        return False


def _as_tensor(labels: Sequence[Any], ids: np.ndarray) -> Tensor:
    numbers = [_class_number(label, int(i)) for label, i in zip(labels, ids, strict=True)]
    return torch.tensor(numbers, dtype=torch.int64)


def _class_number(label: Any, sample_id: int) -> int:
    """The label as an int. Raises ValueError where it is no whole number."""
    number = int(label)
    if number != label:
        raise ValueError(f"data: sample {sample_id} has label {label!r}, expected the number of a class")
    return number


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    # np.stack takes over the rows' common memory order, on which a model's last bits depend.
    return np.ascontiguousarray(np.stack(rows, casting="equiv"))


def training_rows(dataset: MapDataset, data: DataSpec) -> Rows:
    return Rows(dataset, data.views, data.seed, data.slices)


def evaluation_rows(dataset: MapDataset, data: DataSpec) -> Rows:
    return Rows(dataset, data.evaluation_view, data.seed)


class RememberedRows(Rows):
    """Rows that are built again and again, as those that judge a student after each epoch: what fits into `max_bytes`
    is built once."""

    def __init__(self, dataset: MapDataset, data: DataSpec, max_bytes: int) -> None:
        super().__init__(dataset, data.evaluation_view, data.seed)
        self._known: dict[tuple[bytes, bytes], tuple[dict[str, Tensor], Tensor]] = {}
        self._bytes_left = max_bytes

    def build(self, ids: np.ndarray, views: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        asked = ids.tobytes(), views.tobytes()
        inputs, labels = self._known.get(asked) or self._built(asked, ids, views)
        return {name: tensor.clone() for name, tensor in inputs.items()}, labels.clone()

    def _built(
        self, asked: tuple[bytes, bytes], ids: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, Tensor], Tensor]:
        inputs, labels = super().build(ids, views)
        size = sum(tensor.nbytes for tensor in (*inputs.values(), labels))
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._known[asked] = inputs, labels
        return inputs, labels


@dataclass(frozen=True)
class BatchSampler:
    """Which rows one worker sees at a position: a pure function of (seed, epoch, step, rank).

    Every epoch is a new permutation of all ids; what does not fill a whole global batch is left out of that epoch.
    """

    labelled: np.ndarray
    unlabelled: np.ndarray
    batch_size: int
    seed: int
    num_views: int | None
    rank: int = 0
    world_size: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return (len(self.labelled) + len(self.unlabelled)) // self.batch_size

    def positions(self, start: Position, epoch: int) -> Iterator[Position]:
        first = start.step if epoch == start.epoch else 0
        return (Position(epoch, step) for step in range(first, self.steps_per_epoch))

    def batches(self, rows: Rows, positions: Iterator[Position]) -> Iterator[Batch]:
        for position in positions:
            yield self.batch(rows, position)

    def batch(self, rows: Rows, position: Position) -> Batch:
        chosen = self._choose(position)
        ids = np.concatenate([self.labelled, self.unlabelled])[chosen]
        views = np.full(len(ids), self.view(position.epoch), dtype=np.int32)
        inputs, labels, mixtures = rows.mixed(ids, views)
        unlabelled = torch.from_numpy(chosen >= len(self.labelled))
        negative = ids[((labels < 0) & ~unlabelled).numpy()]
        if len(negative):
            raise ValueError(f"data.train: sample {int(negative[0])} has a negative label; expected at least 0")
        labels[unlabelled] = NO_LABEL
        return Batch(ids, views, inputs, labels, position, mixtures)

    def view(self, epoch: int) -> int:
        return view_of(self.num_views, epoch)

    def _choose(self, position: Position) -> np.ndarray:
        order = _order(self.seed, position.epoch, len(self.labelled) + len(self.unlabelled))
        share = self.batch_size // self.world_size
        start = position.step * self.batch_size + self.rank * share
        return order[start : start + share]


def view_of(num_views: int | None, epoch: int) -> int:
    """The number of the view that an epoch uses; None: each has a new one."""
    return epoch if num_views is None else epoch % num_views


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, 2], counter=[0, 0, 0, epoch]))
    return generator.permutation(count)


def refuse_strange_labels(where: str, ids: np.ndarray, labels: Tensor, num_classes: int, *, lowest: int = 0) -> None:
    """Raises ValueError where a label is below `lowest` or no class of the student's."""
    strange = (labels < lowest) | (labels >= num_classes)
    if bool(strange.any()):
        raise ValueError(
            f"{where}: sample {int(ids[strange.numpy()][0])} has label {int(labels[strange][0])}, the student knows "
            f"{num_classes} classes, from 0 on; correct the label, or raise num_classes in student.model.kwargs"
        )


@dataclass(frozen=True)
class SharedDataset:
    """A pickled dataset whose tensors and arrays lie outside the pickle, so that one copy in Ray's object store
    serves a node.
    """

    pickled: bytes
    arrays: Sequence[np.ndarray]

    @classmethod
    def of(cls, dataset: MapDataset) -> SharedDataset:
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        _TensorsAsArrays(stream, protocol=5, buffer_callback=buffers.append).dump(dataset)
        return cls(stream.getvalue(), [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers])

    def open(self) -> Any:
        """The dataset, over the shared memory: its tensors are read-only."""
        return pickle.loads(self.pickled, buffers=self.arrays)


class _TensorsAsArrays(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and obj.device.type == "cpu" and obj.layout == torch.strided:
            with suppress(TypeError, RuntimeError):  # numpy has no bfloat16 and no lazy conjugates
                return torch.from_dlpack, (obj.detach().contiguous().numpy(),)
        return NotImplemented
