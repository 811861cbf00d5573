"""Views: one augmentation draw of one sample, as pure functions `(dataset, id, generator) -> (image, label)`.

An image is a (channels, height, width) array, uint8 where the data is. All randomness comes from the generator, which
`ViewDice` sets from (seed, id, view) alone, so that a view is the same in any process, order or number of workers.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

import numpy as np

CHANNELS = (1, 3, 4)


class MapDataset(Sized, Protocol):
    """Any map-style dataset whose rows are (image, label)."""

    def __getitem__(self, index: int, /) -> Any: ...


class ViewDice:
    """One numpy generator that is set anew for each (seed, id, view). Belongs to one thread."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=[seed, 0])
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, sample_id: int, view: int) -> np.random.Generator:
        self._state["state"]["key"][1] = sample_id
        self._state["state"]["counter"][:] = (0, 0, 0, view)
        self._bits.state = self._state
        return self._generator


def plain(dataset: MapDataset, sample_id: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """The sample as it is."""
    image, label = dataset[sample_id]
    return as_pixels(image), label


def crop_and_flip(
    dataset: MapDataset,
    sample_id: int,
    generator: np.random.Generator,
    *,
    padding: int = 2,
    flip: bool = True,
) -> tuple[np.ndarray, int]:
    """A random crop of the zero-padded image at its own size and, for half of the draws, its mirror image."""
    pixels, label = plain(dataset, sample_id, generator)
    row, column, mirror = (generator.random(3) * (2 * padding + 1, 2 * padding + 1, 2)).astype(int)
    channels, height, width = pixels.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=pixels.dtype)
    padded[:, padding : padding + height, padding : padding + width] = pixels
    cropped = padded[:, row : row + height, column : column + width]
    return (cropped[:, :, ::-1] if flip and mirror else cropped), label


def as_pixels(image: Any) -> np.ndarray:
    """A PIL image, array or tensor as (channels, height, width); two dimensions are one channel."""
    array = np.asarray(image)
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and hasattr(image, "getbands"):
        return array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[2] in CHANNELS and array.shape[0] not in CHANNELS:
        raise ValueError(
            f"data: an image of shape {array.shape} looks like (height, width, channels), expected (channels, height, "
            "width); turn it round, or give PIL images"
        )
    if array.ndim == 3:
        return array
    raise ValueError(
        f"data: an image must be (height, width) or (channels, height, width), got shape {array.shape}; "
        "give data.views a function that returns such arrays"
    )
