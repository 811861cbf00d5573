"""Chunks of rows on their way to a teacher's device; to a GPU the next one travels while the present one is computed.

`carrier` chooses: `Staging` to a GPU, a plain move to anything else. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

Chunk = Mapping[str, Tensor]
Carrier = Callable[[Iterable[Chunk]], Iterator[Chunk]]


def carrier(device: torch.device) -> Carrier:
    """What takes chunks to `device`, in their order."""
    return Staging(device) if device.type == "cuda" else partial(_moved, device)


def _moved(device: torch.device, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield {name: tensor.to(device) for name, tensor in chunk.items()}


class Staging:
    """Through pinned memory, on a stream of its own, one chunk ahead of the one that is handed out."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        under_way = map(self._sent, chunks)
        present = next(under_way, None)
        while present is not None:
            following = next(under_way, None)
            yield self._arrived(*present)
            present = following

    def _sent(self, chunk: Chunk) -> tuple[Chunk, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            there = {name: t.pin_memory().to(self._device, non_blocking=True) for name, t in chunk.items()}
        arrival = torch.cuda.Event()
        arrival.record(self._stream)
        return there, arrival

    def _arrived(self, chunk: Chunk, arrival: torch.cuda.Event) -> Chunk:
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(arrival)
        for tensor in chunk.values():
            # It belongs to the other stream, which else would overwrite it as soon as Python lets go of it.
            tensor.record_stream(computing)
        return chunk
