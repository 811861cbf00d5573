"""One of a group of student workers, and what the group does together. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from actors.training_state import Numbers

Anything = TypeVar("Anything")


@dataclass(frozen=True)
class Worker:
    """All workers of a group call its methods, in the same order."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def mean(self, numbers: Numbers) -> Numbers:
        """Each number's mean over the workers."""
        if self.world_size == 1:
            return numbers
        sums = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        return dict(zip(numbers, (sums / self.world_size).tolist(), strict=True))

    def of_all(self, own: Anything) -> list[Anything]:
        """What each worker gave, by rank."""
        everybodys = [own] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(everybodys, own)
        return everybodys

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """They become those of rank 0."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)
