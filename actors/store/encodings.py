"""How a teacher's tensors lie in a store: a few fixed-width columns a row. Imports no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from actors.specs import EncodingName, Shape

VALUES, SCALE, OFFSET = "values", "scale", "offset"
LEVELS = {"int16": 65535, "int8": 255}
"""Between the smallest and the largest number of a row."""
FEWEST_FOR_LEVELS = 8
"""A row of fewer numbers is kept as float16: levels would save nothing."""
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38, "int16": 1.6e38, "int8": 1.6e38}
"""Numbers of a larger amount become infinite: also of levels, where a row's range must be a float32."""

Columns = Mapping[str, np.ndarray]
"""(rows, width) by the name of a column."""


@dataclass(frozen=True)
class Encoding:
    """Rows of `shape` and torch's `dtype` as columns. Whole numbers stay as they are, whatever the `name`."""

    name: EncodingName
    shape: Shape
    dtype: str = "float32"

    @property
    def width(self) -> int:
        return prod(self.shape)

    @property
    def stored(self) -> str:
        """The kind of numbers that `values` holds."""
        if self.dtype != "float32":
            return self.dtype
        return "float16" if self.name in LEVELS and self.width < FEWEST_FOR_LEVELS else self.name

    @cached_property
    def columns(self) -> dict[str, tuple[np.dtype, int]]:
        """The type and the width of each column."""
        of_values = {"bfloat16": "int16", "int16": "uint16", "int8": "uint8"} if self.dtype == "float32" else {}
        values = {VALUES: (np.dtype(of_values.get(self.stored, self.stored)), self.width)}
        number = np.dtype(np.int16), 1
        return {**values, SCALE: number, OFFSET: number} if self.is_scaled else values

    @property
    def bytes_per_row(self) -> int:
        return sum(dtype.itemsize * width for dtype, width in self.columns.values())

    @property
    def is_scaled(self) -> bool:
        return self.dtype == "float32" and self.stored in LEVELS

    def encode(self, tensor: Tensor) -> dict[str, np.ndarray]:
        """Raises ValueError where a number is too large for the encoding, or the tensor is another than it is for."""
        rows = tensor.detach().cpu().reshape(len(tensor), -1)
        if tuple(tensor.shape[1:]) != self.shape or str(tensor.dtype) != f"torch.{self.dtype}":
            got = f"{tuple(tensor.shape[1:])} {tensor.dtype}"
            raise ValueError(f"store: expected rows of {self.shape} {self.dtype}, got {got}")
        if self.dtype != "float32" or self.stored == "float32":
            return {VALUES: rows.contiguous().numpy()}
        largest = float(rows.abs().max()) if rows.numel() else 0.0
        if largest > LARGEST[self.stored]:
            raise ValueError(f"store: {self.stored} ends at {LARGEST[self.stored]:g}, got {largest:g}")
        if self.is_scaled:
            return _as_levels(rows, LEVELS[self.stored], self.columns[VALUES][0])
        if self.stored == "bfloat16":
            return {VALUES: rows.to(torch.bfloat16).view(torch.int16).numpy()}
        return {VALUES: rows.to(torch.float16).numpy()}

    def decode(self, columns: Columns) -> Tensor:
        """A tensor of its own, float32 unless whole numbers were stored."""
        values = torch.from_numpy(columns[VALUES])
        if self.is_scaled:
            decoded = torch.addcmul(from_bfloat16(columns[OFFSET]), values.float(), from_bfloat16(columns[SCALE]))
        elif self.stored == "bfloat16":
            decoded = from_bfloat16(columns[VALUES])
        else:
            decoded = values.float() if self.dtype == "float32" else values
        return decoded.reshape(-1, *self.shape)

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        return {name: np.empty((rows, width), dtype) for name, (dtype, width) in self.columns.items()}


def from_bfloat16(bits: np.ndarray) -> Tensor:
    return torch.from_dlpack(bits).view(torch.bfloat16).float()


def _as_levels(rows: Tensor, levels: int, dtype: np.dtype) -> dict[str, np.ndarray]:
    """Each row's numbers as so many even steps from its smallest to its largest. The step and the beginning are
    bfloat16, rounded so that the row lies within."""
    smallest, largest = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    offset = _next_bfloat16(smallest, -torch.inf)
    scale = _next_bfloat16((largest - offset.float()) / levels, torch.inf)
    step = torch.where(scale > 0, scale.float(), 1.0)
    found = ((rows - offset.float()) / step).round().clamp(0, levels)
    bits = {name: number.view(torch.int16).numpy() for name, number in ((SCALE, scale), (OFFSET, offset))}
    return {VALUES: found.numpy().astype(dtype), **bits}


def _next_bfloat16(numbers: Tensor, towards: float) -> Tensor:
    """The nearest that lies there, or is the same."""
    near = numbers.to(torch.bfloat16)
    lies = near.float() <= numbers if towards < 0 else near.float() >= numbers
    return torch.where(lies, near, torch.nextafter(near, torch.full_like(near, towards)))
