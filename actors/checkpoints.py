"""The checkpoints of one rung: written whole, read back without unpickling anything but tensors and plain values."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch

from actors.storage import Folder

KEPT = 2


@dataclass(frozen=True)
class Checkpoints:
    """Numbered by training steps done; the newest two are kept."""

    folder: Folder

    def save(self, steps_done: int, state: dict[str, Any]) -> None:
        stream = io.BytesIO()
        torch.save(state, stream)
        self.folder.write(f"step-{steps_done:09d}.pt", stream.getvalue())
        for old in self.folder.names()[:-KEPT]:
            self.folder.remove(old)

    def latest(self) -> dict[str, Any] | None:
        names = self.folder.names()
        if not names:
            return None
        return torch.load(io.BytesIO(self.folder.read(names[-1])), map_location="cpu", weights_only=True)
