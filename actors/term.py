"""One loss of a criterion: which student tensor learns from which tensors of which teachers.

`Outputs` is what a student says about its rows, `Targets` what it may learn them from, `Value` what a `Term` makes of
both. Imports no Ray.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from actors.combination import Combination, asked_rows
from actors.connectors import connect
from actors.ensemble import own_labels
from actors.hearing import Hearing, comparison_of
from actors.knowledge import LOGITS, Knowledge, Position, TeacherRequest
from actors.losses import metadata_of
from actors.mixing import Mixtures
from actors.reductions import Reduction
from actors.specs import LossSpec, Shape, TapPair, TeacherSpec
from actors.teacher import known_classes


@dataclass(frozen=True)
class Outputs:
    """What a student says about its rows: logits (rows, classes), features by tap."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    _made: dict[Any, tuple[Tensor, Sequence[Tensor]]] = field(default_factory=dict, init=False, repr=False)

    def made_by(self, phi: Reduction, tensors: Sequence[Tensor]) -> Tensor:
        """What phi makes of the student's tensors: once, for however many teachers."""
        key = (phi.target, phi.kwargs, *map(id, tensors))
        if key not in self._made:
            self._made[key] = (phi.made_of(*tensors), tensors)  # kept, so that no other tensor gets their ids
        return self._made[key][0]


@dataclass(frozen=True)
class Targets:
    """What a student may learn its rows from. `labels`: int64, -1 where absent; `position`: of the batch; `mixtures`:
    the other labels, where samples are mixed."""

    labels: Tensor
    ids: Tensor
    knowledge: Mapping[str, Knowledge] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    mixtures: Mixtures | None = None


@dataclass(frozen=True)
class Value:
    """What a term gives for a batch. `weights`: each teacher's, the mean over the rows; `objective`: what a rule that
    learns adds to the training."""

    loss: Tensor
    weights: Tensor
    objective: Tensor | None = None


class Term(nn.Module):
    """One loss: which student tensor learns from which tensors of which teachers."""

    def __init__(
        self,
        spec: LossSpec,
        student: Mapping[str, Shape],
        teachers: Sequence[TeacherSpec],
        seed: int = 0,
        dropped: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.spec = spec
        self.teachers = tuple(teachers)
        self._seed = seed
        self.hearings = tuple(Hearing(spec, teacher) for teacher in teachers)
        self._comparison = comparison_of(spec)
        self._function = self._comparison.function
        self._arguments = _arguments(self._function)
        where = f"{spec.key}.ensemble"
        num_classes = student[LOGITS][-1]
        self.combination = Combination(spec.ensemble, teachers, num_classes, self.temperature, where, dropped)
        self._all_rows_count = not self.needs_labels and len(self.combination.heard) == len(teachers)
        # By number: torch's ModuleDict refuses names such as `half`, `train` or `type`.
        self.connectors = nn.ModuleList(nn.ModuleList(self._connectors(student, teacher)) for teacher in teachers)

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self.spec.on.student_taps if isinstance(self.spec.on, TapPair) else ()

    @property
    def needs_labels(self) -> bool:
        return self.spec.on == "labels" or "labels" in self._arguments

    @property
    def needs_answers(self) -> bool:
        """Whether its teachers' weights come from their logits."""
        return self.combination.metadata.needs_answers

    @property
    def per_sample(self) -> bool:
        return "reduction" in self._arguments

    @property
    def temperature(self) -> float:
        default = self._arguments["temperature"].default if "temperature" in self._arguments else 1.0
        given = self.spec.loss.kwargs.get("temperature", default)
        if given is not None and not isinstance(given, (int, float)):
            raise ValueError(f"{self.spec.key}.kwargs.temperature: expected a number, got {given!r}")
        return 1.0 if given is None else float(given)

    def asked(self, labels: Tensor, position: Position) -> dict[str, TeacherRequest]:
        """What it must hear about a batch, by teacher; the same teachers on all workers where weights are by
        teacher."""
        requests = {self.teachers[k].name: self.hearings[k].request for k in self.combination.heard}
        if self.combination.gives_target or self.needs_answers or not requests:
            return requests
        weights, _ = self.combination.weights(labels, position, self._seed)
        by_row = zip(self.hearings, asked_rows(weights), strict=True)
        return {one.request.teacher: replace(one.request, rows=rows) for one, rows in by_row if rows != ()}

    def forward(self, outputs: Outputs, targets: Targets) -> Value:
        if self.spec.on == "labels":
            return Value(self._mean(*self._of_labels(outputs, targets)), torch.zeros(0))
        if self.combination.gives_target:
            sent = [self._heard(targets, k)[0] for k in self.combination.heard]
            target = [self.combination.target(sent)]
            return Value(self._against(targets, 0, self._student_tensors(outputs, 0), target), self.combination.shares)
        weights, objective = self.combination.weights(
            targets.labels, targets.position, self._seed, self._answers(targets) if self.needs_answers else ()
        )
        added = None if objective is None else objective.mean()
        if weights.ndim == 1:
            return Value(self._weighted(outputs, targets, weights), weights, added)
        return replace(self._weighted_by_row(outputs, targets, weights), objective=added)

    def _of_labels(self, outputs: Outputs, targets: Targets) -> tuple[Tensor, Tensor]:
        """Of a mixture the mean of the losses on both labels, by their weights."""
        values, counted = self._values([outputs.logits], None, targets.labels, targets.ids)
        mixtures = targets.mixtures
        if mixtures is None:
            return values, counted
        others, _ = self._values([outputs.logits], None, mixtures.partner_labels, targets.ids)
        return mixtures.weights * values + (1 - mixtures.weights) * others, counted

    def _answers(self, targets: Targets) -> list[Tensor]:
        heard = [self.hearings[k] for k in self.combination.heard]
        return [hearing.logits(targets.knowledge[hearing.request.teacher]) for hearing in heard]

    def _weighted(self, outputs: Outputs, targets: Targets, weights: Tensor) -> Tensor:
        # Not whoever has answered: another loss may hear more teachers on one worker than on another, and all workers
        # must take part in the same sums.
        heard: Sequence[int] = self.combination.heard
        if not self.needs_answers:
            heard = [k for k, weight in enumerate(weights.tolist()) if weight]
        values = [weights[k] * self._against(targets, k, *self._facing(outputs, targets, k)) for k in heard]
        return torch.stack(values).sum(dim=0)

    def _weighted_by_row(self, outputs: Outputs, targets: Targets, weights: Tensor) -> Value:
        """Each row's weights, over the teachers whose loss can be taken there, add up to 1."""
        losses, counts = [], []
        for k, teacher in enumerate(self.teachers):
            values, counted = self._per_row(outputs, targets, k, targets.knowledge.get(teacher.name))
            losses.append(values)
            counts.append(counted)
        weights = weights.to(losses[0].dtype) * torch.stack(counts)
        totals = weights.sum(dim=0)
        shares = weights / totals.clamp(min=torch.finfo(totals.dtype).tiny)
        taught = (totals > 0).to(totals.dtype)
        value = self._mean((shares * torch.stack(losses)).sum(dim=0), taught)
        if not value.requires_grad:  # nobody who is left teaches any of these rows
            value = value + 0 * outputs.logits.sum()
        return Value(value, shares.detach().sum(dim=1) / taught.sum().clamp(min=1))

    def _per_row(
        self, outputs: Outputs, targets: Targets, k: int, knowledge: Knowledge | None
    ) -> tuple[Tensor, Tensor]:
        """The loss against teacher k of all rows, 0 where it was not asked, and whether each counts (1 or 0)."""
        nothing = outputs.logits.new_zeros(len(outputs.logits))
        if knowledge is None:
            return nothing, nothing
        rows = torch.arange(len(nothing)) if knowledge.rows is None else torch.tensor(knowledge.rows)
        rows = rows.to(nothing.device)
        student = [tensor[rows] for tensor in self._student_tensors(outputs, k)]
        labels = self._own_labels(targets, k)[rows]
        values, counted = self._values(*self.hearings[k].facing(student, knowledge), labels, targets.ids[rows])
        return nothing.index_put((rows,), values), nothing.index_put((rows,), counted.to(nothing.dtype))

    def _against(self, targets: Targets, k: int, student: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """The loss of what the student shows teacher k against a target."""
        labels = self._own_labels(targets, k)
        if not self.per_sample:
            return self._function(*student, *target, **self._bound(labels, targets.ids))
        return self._mean(*self._values(student, target, labels, targets.ids))

    def _values(
        self, student: Sequence[Tensor], target: Sequence[Tensor] | None, labels: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of each row and whether it counts; a loss without `reduction` gives one value for all."""
        bound = self._bound(labels, ids)
        against = [labels.clamp(min=0)] if target is None else target
        if target is None:
            bound.pop("labels", None)
        if not self.per_sample:
            return self._function(*student, *against, **bound), torch.ones((), device=labels.device)
        values = self._function(*student, *against, **bound, reduction="none")
        values = values.flatten(1).mean(dim=1) if values.ndim > 1 else values
        counted = labels >= 0 if self.needs_labels else torch.ones_like(labels, dtype=torch.bool)
        return values, counted.to(values.dtype)

    def _bound(self, labels: Tensor, ids: Tensor) -> dict[str, Any]:
        named = {"labels": labels.clamp(min=0), "ids": ids}
        return {**self._comparison.kwargs, **{name: named[name] for name in named if name in self._arguments}}

    def _mean(self, values: Tensor, counted: Tensor) -> Tensor:
        """The mean of the rows that count, over all workers."""
        if self._all_rows_count:
            return values.mean()
        return (values * counted).sum() / mean_over_workers(counted.sum()).clamp(min=1e-6)

    def _own_labels(self, targets: Targets, k: int) -> Tensor:
        known = known_classes(self.teachers[k].class_map)
        return targets.labels if known is None else own_labels(targets.labels, known)

    def _heard(self, targets: Targets, k: int) -> tuple[Tensor, ...]:
        return self.hearings[k].target(targets.knowledge[self.teachers[k].name])

    def _facing(self, outputs: Outputs, targets: Targets, k: int) -> tuple[Sequence[Tensor], tuple[Tensor, ...]]:
        """What the student shows teacher k, and what teacher k says."""
        return self.hearings[k].facing(self._student_tensors(outputs, k), targets.knowledge[self.teachers[k].name])

    def _student_tensors(self, outputs: Outputs, k: int) -> list[Tensor]:
        """What the student shows teacher k."""
        phi, tensors = self._comparison.phi, self._fitting_tensors(outputs, k)
        return tensors if phi is None else [outputs.made_by(phi, tensors)]

    def _fitting_tensors(self, outputs: Outputs, k: int) -> list[Tensor]:
        """The student's, in teacher k's shapes and classes."""
        if isinstance(self.spec.on, TapPair):
            fitted = zip(cast(nn.ModuleList, self.connectors[k]), self.student_taps, strict=True)
            return [connector(outputs.features[tap]) for connector, tap in fitted]
        known = known_classes(self.teachers[k].class_map)
        return [outputs.logits if known is None else outputs.logits[:, known]]

    def _connectors(self, student: Mapping[str, Shape], teacher: TeacherSpec) -> Iterator[nn.Module]:
        metadata = metadata_of(self.spec.loss.resolve())
        aligns = metadata.aligns if metadata else "all"
        teacher_taps = self.spec.on.teacher_taps if isinstance(self.spec.on, TapPair) else ()
        for own, other in zip(self.student_taps, teacher_taps, strict=True):
            yield connect(
                student[own],
                teacher.shapes[other],
                aligns=aligns,
                student_tap=f"student.taps.{own}",
                teacher_tap=f"teachers.{teacher.name}.taps.{other}",
                connector=self.spec.connector,
                where=self.spec.key,
            )


def _arguments(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # a function written in C: called with the two tensors and the kwargs alone
        return {}


def mean_over_workers(count: Tensor) -> Tensor:
    """A worker's loss divided by this gives, averaged by DDP over the workers, the mean over the global batch."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    count = count.detach().clone()
    torch.distributed.all_reduce(count)
    return count / torch.distributed.get_world_size()
