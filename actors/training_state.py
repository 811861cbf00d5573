"""Where the training of a rung stands, and what it refuses to go on with. Imports no Ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

from actors.knowledge import Batch, Knowledge, Position

Numbers = dict[str, float]
OF = "/"
"""Between a loss and its teacher; no teacher's name holds it."""


@dataclass
class TrainingState:
    """Where training stands. `terms` (of losses) and `weights` (of teachers in them, by `weight_name`): sums over the
    steps of the epoch under way; `history`: a record per finished epoch; `teachers`: the weight version of each;
    `bytes_received`, `rows_trained`: of this worker."""

    position: Position = field(default_factory=Position)
    steps_done: int = 0
    terms: Numbers = field(default_factory=dict)
    weights: Numbers = field(default_factory=dict)
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

    def account(self, batch: Batch, knowledge: list[Knowledge], terms: Numbers, weights: Numbers) -> None:
        """Adds one step that was trained."""
        for one in knowledge:
            refuse_other_teacher(self.teachers.setdefault(one.teacher, one.version), one)
        for sums, numbers in ((self.terms, terms), (self.weights, weights)):
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0.0) + value
        self.bytes_received += sum(one.num_bytes for one in knowledge)
        self.rows_trained += len(batch)
        self.steps_done += 1
        self.position = Position(batch.position.epoch, batch.position.step + 1)

    @property
    def mean_terms(self) -> Numbers:
        return {name: value / self.position.step for name, value in self.terms.items()}

    @property
    def mean_weights(self) -> Numbers:
        return {name: value / self.position.step for name, value in self.weights.items()}

    def finish_epoch(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.position, self.terms, self.weights = Position(self.position.epoch + 1, 0), {}, {}


def weight_name(loss: str, teacher: str) -> str:
    return f"{loss}{OF}{teacher}"


def by_loss(weights: Mapping[str, float]) -> dict[str, Numbers]:
    """Weights by `weight_name` as {loss: {teacher: weight}}."""
    found: dict[str, Numbers] = {}
    for name, weight in weights.items():
        loss, _, teacher = name.rpartition(OF)
        found.setdefault(loss, {})[teacher] = weight
    return found


def refuse_unbounded_terms(terms: Mapping[str, float], keys: Mapping[str, str], position: Position) -> None:
    """Raises ValueError where a loss of one step is not finite. `keys`: the config key of each."""
    unbounded = [f"{keys[name]} is {value}" for name, value in terms.items() if not isfinite(value)]
    if unbounded:
        raise ValueError(
            f"{', '.join(unbounded)} in epoch {position.epoch + 1}, step {position.step + 1}; lower the learning rate "
            "or its weight, and see whether the loss itself is finite"
        )


def refuse_idle_terms(terms: Mapping[str, float], keys: Mapping[str, str], first: Collection[str]) -> None:
    """Raises ValueError where a loss has been zero all through its first epoch. `first`: those whose first this was."""
    for name, value in terms.items():
        if value == 0 and name in first:
            raise ValueError(f"{keys[name]}: zero all through its first epoch, so nothing is learned by it; remove it")


def refuse_other_teacher(version: str, knowledge: Knowledge) -> None:
    if knowledge.version != version:
        raise ValueError(
            f"teacher {knowledge.teacher!r} has weights {knowledge.version[:12]}, the checkpoint was trained with "
            f"{version[:12]}; resume with the same teacher or start a new run"
        )
