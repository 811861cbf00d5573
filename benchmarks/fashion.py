"""Fashion-MNIST for the benchmarks of speed: as arrays in memory, so that no way wins or loses by decoding files.

`make data` fetches it. Imports no Ray.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from torchvision.datasets import FashionMNIST

from actors.data import BatchSampler, training_rows
from actors.knowledge import Batch, Position
from actors.specs import DataSpec, ImportSpec, InputSpec

ROWS = 12_800
BATCH = 128
INPUT = InputSpec(mean=(0.286,), std=(0.353,))
DATA = DataSpec(
    train=ImportSpec("benchmarks.fashion:Fashion"),
    test=ImportSpec("benchmarks.fashion:Fashion"),
    slices={"student": ROWS},
)


class Fashion:
    """The first rows of the training set as (uint8 image (1, 28, 28), label)."""

    def __init__(self, root: str = "data", rows: int = ROWS) -> None:
        files = FashionMNIST(root)
        self.images = files.data[:rows, None].numpy()
        self.labels = files.targets[:rows].numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


SAMPLER = BatchSampler(np.arange(ROWS), np.zeros(0, dtype=np.int64), BATCH, seed=0, num_views=1)


def batches(dataset: Fashion) -> Iterator[Batch]:
    """A student's batches, epoch after epoch."""
    rows = training_rows(dataset, DATA)
    for epoch in itertools.count():
        yield from SAMPLER.batches(rows, SAMPLER.positions(Position(), epoch))


def first_epoch(dataset: Fashion) -> list[int]:
    """The ids of a student's first epoch, in its order."""
    return [int(i) for batch in itertools.islice(batches(dataset), SAMPLER.steps_per_epoch) for i in batch.ids]


def first_rows(dataset: Fashion, count: int) -> Batch:
    ids, views = np.arange(count), np.zeros(count, dtype=np.int32)
    return Batch(ids, views, *training_rows(dataset, DATA).build(ids, views))
