"""Reductions: what is made of a teacher's tensors before they travel, so that only its result does. Imports no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actors.specs import ImportSpec, Shape

PROBE_ROWS = 2


@dataclass(frozen=True)
class Reduction:
    """The row-wise function `target`, called with a teacher's tensors `outputs` (taps or `logits`) and `kwargs`.

    It is the same for all who want the same. `parts`: names of what it gives; none: one tensor, under its own name.
    """

    target: str
    outputs: tuple[str, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`module:phi(tap, exponent=2.0)`: no tap is called so."""
        arguments = [*self.outputs, *(f"{name}={value!r}" for name, value in self.kwargs)]
        return f"{self.target}({', '.join(arguments)})"

    @property
    def label(self) -> str:
        """Its name without the module, for people."""
        return self.name.partition(":")[2]

    @property
    def keys(self) -> tuple[str, ...]:
        """The names under which its results travel."""
        return tuple(f"{self.name}.{part}" for part in self.parts) or (self.name,)

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its results by key, of tensors by output."""
        made = self.made_of(*(tensors[output] for output in self.outputs))
        return dict(zip(self.keys, made if self.parts else (made,), strict=True))

    def made_of(self, *tensors: Tensor) -> Any:
        """What the function gives for these."""
        return ImportSpec(self.target, dict(self.kwargs)).build(*tensors)

    def found(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Its results among what a teacher sent, or made here where the outputs themselves came."""
        made = tensors if self.keys[0] in tensors else self(tensors)
        return tuple(made[key] for key in self.keys)

    def bytes_per_row(self, shapes: Mapping[str, Shape]) -> int:
        """What its results take for a row of outputs of these shapes. Raises ValueError where it is not row-wise."""
        made = self({output: torch.zeros(PROBE_ROWS, *shapes[output]) for output in self.outputs})
        for tensor in made.values():
            if tensor.ndim == 0 or len(tensor) != PROBE_ROWS:
                got = f"got {tuple(tensor.shape)} for {PROBE_ROWS} rows"
                raise ValueError(f"{self.target}: expected a result with the rows first, {got}; phi must be row-wise")
        return sum(tensor.nbytes for tensor in made.values()) // PROBE_ROWS


def raw_bytes_per_row(outputs: tuple[str, ...], shapes: Mapping[str, Shape]) -> int:
    """What outputs take for a row as they are, in float32."""
    return sum(torch.Size(shapes[output]).numel() * torch.float32.itemsize for output in outputs)
