"""Datasets that ship with the project's dependencies and need no download."""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_TEST_DIGITS = 400


class Digits:
    """scikit-learn's 1,797 grey 8x8 digits of 10 classes as (uint8 image, label); the last 400 are the test set."""

    def __init__(self, *, train: bool = True) -> None:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        bunch: Any = load_digits()
        part = slice(None, -NUM_TEST_DIGITS) if train else slice(-NUM_TEST_DIGITS, None)
        self.images: np.ndarray = (bunch.images[part] * 15).astype(np.uint8)
        self.labels: np.ndarray = bunch.target[part].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])
