"""Where rows lie, by key and digest: sorted arrays, so that a batch is found by a few searches. Imports no Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MISSING = -1
GROWTH = 2


@dataclass(frozen=True)
class Run:
    """Rows in the order of their keys. `most`: how often one key occurs at the most, for different pixels."""

    keys: np.ndarray
    digests: np.ndarray
    places: np.ndarray
    most: int

    @classmethod
    def of(cls, keys: np.ndarray, digests: np.ndarray, places: np.ndarray) -> Run:
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(1, int)
        most = int(np.diff(np.append(starts, len(keys))).max()) if len(keys) else 0
        return cls(keys, digests[order], places[order], most)

    def find(self, keys: np.ndarray, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each row, or `MISSING`; and where the key is there with other pixels alone."""
        places = np.full(len(keys), MISSING)
        seen = np.zeros(len(keys), dtype=bool)
        first = np.searchsorted(self.keys, keys)
        for ahead in range(self.most):
            at = np.minimum(first + ahead, len(self.keys) - 1)
            is_key = self.keys[at] == keys
            fits = is_key & (self.digests[at] == digests)
            places[fits] = self.places[at[fits]]
            seen |= is_key
        return places, seen & (places == MISSING)


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

    def keys(self) -> np.ndarray:
        """Each key once, sorted."""
        return np.unique(np.concatenate([run.keys for run in self._runs] or [np.zeros(0, dtype=np.uint64)]))

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key is there, whatever its pixels."""
        there = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            there |= run.keys[at] == keys
        return there
