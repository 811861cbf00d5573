"""Pixels on their way to replicas: those of several batches, sent once for all hosts."""

from __future__ import annotations

import pickle
from typing import Any

import ray

from actors.pool.replica import Pixels

INLINE_BYTES = 102_000
"""Ray sends arguments of up to 102,400 bytes within the call; larger ones go through the object store."""


class Parcel:
    """Takes pixels until it is sent."""

    def __init__(self) -> None:
        self._pixels: list[Pixels] = []
        self._sent: list[Any] = []

    def add(self, pixels: Pixels) -> int:
        """The place of a batch in it."""
        assert not self.is_sent
        self._pixels.append(pixels)
        return len(self._pixels) - 1

    @property
    def is_sent(self) -> bool:
        return bool(self._sent)

    def sent(self) -> Any:
        """An argument for calls: a reference to the one copy in the object store, or bytes, where that is dearer."""
        if not self._sent:
            num_bytes = sum(array.nbytes for pixels in self._pixels for array in pixels.values())
            small = num_bytes <= INLINE_BYTES
            self._sent = [pickle.dumps(self._pixels, pickle.HIGHEST_PROTOCOL) if small else ray.put(self._pixels)]
            self._pixels = []
        return self._sent[0]
