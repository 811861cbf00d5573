"""Where rows lie, by key and digest: sorted arrays, so that a batch is found by a few steps. Imports no Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MISSING = -1
GROWTH = 2
FEW_STEPS = 12
KEY, DIGEST, PLACE = range(3)
STIR = np.uint64(0x85EBCA6B9E3779B1)
"""Odd, so that different keys stay different: times it, ids and views in order lie evenly over all 64 bits."""
UNSTIR = np.uint64(pow(int(STIR), -1, 1 << 64))


@dataclass(frozen=True)
class Run:
    """Rows, at least one, in the order of their stirred keys and then digests. `table`: key, digest and place of each,
    side by side, as they are read together; `starts`: by the upper bits of a key, where to look for it; `most`: how
    often one key occurs at the most, for different pixels."""

    table: np.ndarray
    starts: np.ndarray
    most: int

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def of(cls, table: np.ndarray) -> Run:
        ordered = table[np.argsort(table[:, KEY], kind="stable")]
        keys = ordered[:, KEY]
        firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        most = int(np.diff(np.append(firsts, len(keys))).max())
        if most > 1:
            ordered = table[np.lexsort((table[:, DIGEST], table[:, KEY]))]
        bits = len(keys).bit_length() + 1
        counts = np.bincount((keys >> np.uint64(64 - bits)).view(np.int64), minlength=1 << bits)
        starts = (np.cumsum(counts) - counts).astype(np.int32 if len(keys) < 1 << 31 else np.int64)
        return cls(ordered, starts, most)

    def find(self, keys: np.ndarray, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each row, or `MISSING`; and where the key is there with other pixels alone."""
        at = self._first(keys)
        for step in reversed(range((self.most - 1).bit_length())):
            ahead = at + (1 << step)
            there = self.table.take(ahead, axis=0, mode="clip")
            further = (there[:, KEY] == keys) & (there[:, DIGEST] <= digests) & (ahead < len(self.table))
            at = np.where(further, ahead, at)
        there = self.table.take(at, axis=0)
        seen = there[:, KEY] == keys
        fits = seen & (there[:, DIGEST] == digests)
        return np.where(fits, there[:, PLACE].view(np.int64), MISSING), seen & ~fits

    def holds(self, keys: np.ndarray) -> np.ndarray:
        return self.table[self._first(keys), KEY] == keys

    def _first(self, keys: np.ndarray) -> np.ndarray:
        """Where each key is or would be; at the most the last row. A step or two, where a search takes twenty; only
        of keys that somebody has chosen so that they lie together more are searched for."""
        last, sorted_keys = len(self.table) - 1, self.table[:, KEY]
        at = np.minimum(self.starts[(keys >> np.uint64(65 - len(self.starts).bit_length())).view(np.int64)], last)
        behind = np.flatnonzero(sorted_keys[at] < keys)
        for _ in range(FEW_STEPS):
            if not len(behind):
                return at
            at[behind] = np.minimum(at[behind] + 1, last)
            behind = behind[(sorted_keys[at[behind]] < keys[behind]) & (at[behind] < last)]
        at[behind] = np.minimum(np.searchsorted(sorted_keys, keys[behind]), last)
        return at


class Index:
    """Runs of falling length: of a new one and those that are hardly longer one is made."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, keys: np.ndarray, digests: np.ndarray, places: np.ndarray) -> None:
        if not len(keys):
            return
        table = np.stack([keys * STIR, digests, places.view(np.uint64)], axis=1)
        while self._runs and len(self._runs[-1]) < GROWTH * len(table):
            table = np.concatenate([self._runs.pop().table, table])
        self._runs.append(Run.of(table))

    def find(self, keys: np.ndarray, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As of a `Run`."""
        stirred = keys * STIR
        if len(self._runs) == 1:
            return self._runs[0].find(stirred, digests)
        places = np.full(len(keys), MISSING)
        others = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            found, other = run.find(stirred, digests)
            np.copyto(places, found, where=places == MISSING)
            others |= other
        return places, others & (places == MISSING)

    def keys(self) -> np.ndarray:
        """Each key once, sorted."""
        stirred = [run.table[:, KEY] for run in self._runs]
        return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *stirred]) * UNSTIR)

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key is there, whatever its pixels."""
        stirred = keys * STIR
        there = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            there |= run.holds(stirred)
        return there
