"""Where the training of a rung stands, and what it refuses to go on with. Imports no Ray."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

from actors.knowledge import Batch, Knowledge, Position


@dataclass
class TrainingState:
    """Where training stands. `terms`: sums over the steps of the epoch under way; `history`: a record per finished
    epoch; `teachers`: the weight version of each; `bytes_received`, `rows_trained`: of this worker."""

    position: Position = field(default_factory=Position)
    steps_done: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_received: int = 0
    rows_trained: int = 0
    teachers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Self:
        return cls(**{**saved, "position": Position(**saved["position"])})

    def saved(self) -> dict[str, Any]:
        return asdict(self)

    def account(self, batch: Batch, knowledge: list[Knowledge], terms: dict[str, float]) -> None:
        """Adds one step that was trained."""
        for one in knowledge:
            refuse_other_teacher(self.teachers.setdefault(one.teacher, one.version), one)
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
        self.bytes_received += sum(one.num_bytes for one in knowledge)
        self.rows_trained += len(batch)
        self.steps_done += 1
        self.position = Position(batch.position.epoch, batch.position.step + 1)

    @property
    def mean_terms(self) -> dict[str, float]:
        return {name: value / self.position.step for name, value in self.terms.items()}

    def finish_epoch(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.position, self.terms = Position(self.position.epoch + 1, 0), {}


def refuse_bad_terms(terms: dict[str, float], first: set[str]) -> None:
    """Raises:
    ValueError: a loss is not finite, or has been zero all through its first epoch.
    """
    for name, value in terms.items():
        if not isfinite(value):
            raise ValueError(
                f"losses.{name}: its mean over the epoch is {value}; lower the learning rate or its weight"
            )
        if value == 0 and name in first:
            raise ValueError(f"losses.{name}: zero all through its first epoch, so nothing is learned by it; remove it")


def refuse_other_teacher(version: str, knowledge: Knowledge) -> None:
    if knowledge.version != version:
        raise ValueError(
            f"teacher {knowledge.teacher!r} has weights {knowledge.version[:12]}, the checkpoint was trained with "
            f"{version[:12]}; resume with the same teacher or start a new run"
        )


def refuse_bad_labels(batch: Batch, num_classes: int) -> None:
    """Raises ValueError where a label is no class of the student's."""
    bad = batch.labels >= num_classes
    if bool(bad.any()):
        ids = batch.ids[bad.numpy()]
        raise ValueError(
            f"data.train: sample {int(ids[0])} has label {int(batch.labels[bad][0])}, the student knows {num_classes} "
            "classes; raise num_classes in student.model.kwargs"
        )
