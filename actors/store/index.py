"""Where rows lie, by key and digest: sorted arrays, so that a batch is found by a few searches. Imports no Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MISSING = -1
GROWTH = 2


@dataclass(frozen=True)
class Run:
    """Rows in the order of their keys, then digests. `most`: how often one key occurs at the most, for different
    pixels."""

    keys: np.ndarray
    digests: np.ndarray
    places: np.ndarray
    most: int

    @classmethod
    def of(cls, keys: np.ndarray, digests: np.ndarray, places: np.ndarray) -> Run:
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order])) + 1
        most = int(np.diff(np.concatenate([[0], starts, [len(keys)]])).max())
        if most > 1:
            order = np.lexsort((digests, keys))
        return cls(keys[order], digests[order], places[order], most)

    def find(self, keys: np.ndarray, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each row, or `MISSING`; and where the key is there with other pixels alone."""
        places = np.full(len(keys), MISSING)
        if not len(self.keys):
            return places, places == 0
        first, end = np.searchsorted(self.keys, keys), np.searchsorted(self.keys, keys, side="right")
        seen = first < end
        for _ in range((self.most - 1).bit_length()):
            middle = (first + end) // 2
            behind = self.digests[np.minimum(middle, len(self.keys) - 1)] <= digests
            first, end = np.where(behind, middle, first), np.where(behind, end, middle)
        at = np.minimum(first, len(self.keys) - 1)
        fits = seen & (self.digests[at] == digests)
        places[fits] = self.places[at[fits]]
        return places, seen & ~fits


class Index:
    """Runs of falling length: of a new one and those that are hardly longer one is made."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self._runs)

    def add(self, keys: np.ndarray, digests: np.ndarray, places: np.ndarray) -> None:
        while self._runs and len(self._runs[-1].keys) < GROWTH * len(keys):
            shorter = self._runs.pop()
            keys = np.concatenate([shorter.keys, keys])
            digests = np.concatenate([shorter.digests, digests])
            places = np.concatenate([shorter.places, places])
        self._runs.append(Run.of(keys, digests, places))

    def find(self, keys: np.ndarray, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As of a `Run`."""
        places = np.full(len(keys), MISSING)
        others = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            found, other = run.find(keys, digests)
            places = np.where(places == MISSING, found, places)
            others |= other
        return places, others & (places == MISSING)

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key is there, whatever its pixels."""
        there = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            there |= run.keys[at] == keys
        return there
