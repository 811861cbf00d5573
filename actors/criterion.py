"""The weighted sum of a run's losses.

`Criterion` owns the terms and their weights, says what a batch needs of the teachers, and reports every term. Imports
no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from actors.knowledge import KnowledgeRequest, Position, TeacherRequest, merged
from actors.specs import LossSpec, Shape, TeacherSpec
from actors.term import Outputs, Targets, Term


class Criterion(nn.Module):
    """Owns loss weights and their schedules, masks and connectors. `dropped`: teachers that nobody asks any more; the
    connectors to them stay, so that checkpoints fit."""

    def __init__(
        self,
        losses: Sequence[LossSpec],
        student: Mapping[str, Shape],
        teachers: Sequence[TeacherSpec],
        seed: int = 0,
        dropped: Collection[str] = (),
    ) -> None:
        super().__init__()
        by_name = {teacher.name: teacher for teacher in teachers}
        self.terms = nn.ModuleList(
            Term(spec, student, [by_name[name] for name in spec.teachers], seed, dropped) for spec in losses
        )

    def active(self, epoch: int) -> dict[str, Term]:
        """The terms whose weight is not zero in `epoch`."""
        return {name: term for name, term in self.named_terms() if term.spec.weight.at(epoch) != 0}

    def request(self, labels: Tensor, position: Position) -> KnowledgeRequest:
        """What the active terms need about a batch, one request per teacher that is needed."""
        wanted: dict[str, list[TeacherRequest]] = {}
        for term in self.active(position.epoch).values():
            for name, request in term.asked(labels, position).items():
                wanted.setdefault(name, []).append(request)
        return tuple(map(merged, wanted.values()))

    def student_taps(self, names: Iterable[str]) -> tuple[str, ...]:
        """The taps of the student that the terms `names` learn at."""
        taken = [term for name, term in self.named_terms() if name in set(names)]
        return tuple(dict.fromkeys(tap for term in taken for tap in term.student_taps))

    def forward(self, outputs: Outputs, targets: Targets) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The weighted sum, each active term's own value, unweighted, and the weights of its teachers."""
        epoch = targets.position.epoch
        active = self.active(epoch)
        values = {name: term(outputs, targets) for name, term in active.items()}
        weighted = [active[name].spec.weight.at(epoch) * value.loss for name, value in values.items()]
        objectives = [value.objective for value in values.values() if value.objective is not None]
        total = torch.stack(weighted).sum()
        for objective in objectives:
            total = total + objective - objective.detach()
        losses = {name: value.loss.detach() for name, value in values.items()}
        return total, losses, {name: value.weights for name, value in values.items()}

    def named_terms(self) -> list[tuple[str, Term]]:
        return [(term.spec.name, term) for term in self.terms if isinstance(term, Term)]
