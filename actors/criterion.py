"""The weighted sum of a run's losses.

`Term` is one loss with its connectors and its teachers; `Criterion` owns the terms and their weights, says what a
batch needs of the teachers, and reports every term; `Distillation` is the one module that DDP wraps. Imports no Ray.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from actors.connectors import connect
from actors.ensemble import EnsembleRule, shares_of
from actors.features import TappedModel
from actors.knowledge import LOGITS, Knowledge, KnowledgeRequest, TeacherRequest
from actors.losses import metadata_of
from actors.specs import LossSpec, Shape, TapPair, TeacherSpec
from actors.teacher import known_classes


@dataclass(frozen=True)
class Outputs:
    """What a student says about its rows: logits (rows, classes), features by tap."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Targets:
    """What a student may learn its rows from. `labels`: int64, -1 where absent."""

    labels: Tensor
    ids: Tensor
    knowledge: Mapping[str, Knowledge] = field(default_factory=dict)


class Term(nn.Module):
    """One loss: which student tensor learns from which tensors of which teachers."""

    def __init__(self, spec: LossSpec, student: Mapping[str, Shape], teachers: Sequence[TeacherSpec]) -> None:
        super().__init__()
        self.spec = spec
        self.teachers = tuple(teachers)
        self._function = spec.loss.resolve()
        self._arguments = _arguments(self._function)
        self._rule: EnsembleRule = spec.ensemble.resolve()
        rule_kwargs = dict(spec.ensemble.kwargs)
        where = f"{spec.key}.ensemble.kwargs.weights"
        self._shares = shares_of(spec.teachers, rule_kwargs.pop("weights", None), where)
        self._rule_kwargs = rule_kwargs
        # By number: torch's ModuleDict refuses names such as `half`, `train` or `type`.
        self.connectors = nn.ModuleList(self._connector(student, teacher) for teacher in teachers)

    @property
    def student_tap(self) -> str | None:
        return self.spec.on.student if isinstance(self.spec.on, TapPair) else None

    @property
    def teacher_tap(self) -> str | None:
        return self.spec.on.teacher if isinstance(self.spec.on, TapPair) else None

    @property
    def needs_labels(self) -> bool:
        return self.spec.on == "labels" or "labels" in self._arguments

    @property
    def per_sample(self) -> bool:
        return "reduction" in self._arguments

    @property
    def temperature(self) -> float:
        default = self._arguments["temperature"].default if "temperature" in self._arguments else 1.0
        given = self.spec.loss.kwargs.get("temperature", default)
        return 1.0 if given is None else float(given)

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        if self.spec.on == "labels":
            return self._value(outputs.logits, None, targets.labels, targets.ids)

        def against(index: int, target: Tensor) -> Tensor:
            teacher = self.teachers[index]
            student = self._student_tensor(outputs, index)
            labels = _labels_known(targets.labels, known_classes(teacher.class_map), outputs.logits.shape[1])
            return self._value(student, target, labels, targets.ids)

        sent = [self._teacher_tensor(targets.knowledge[teacher.name]) for teacher in self.teachers]
        shares = self._shares.to(outputs.logits.device)
        return self._rule(sent, against, shares=shares, temperature=self.temperature, **self._rule_kwargs)

    def _value(self, student: Tensor, target: Tensor | None, labels: Tensor, ids: Tensor) -> Tensor:
        labelled = labels >= 0
        named = {"labels": labels.clamp(min=0), "ids": ids}
        positional = [student, named.pop("labels") if target is None else target]
        bound = {name: value for name, value in named.items() if name in self._arguments}
        if not self.per_sample:
            return self._function(*positional, **self.spec.loss.kwargs, **bound)
        values = self._function(*positional, **self.spec.loss.kwargs, **bound, reduction="none")
        values = values.flatten(1).mean(dim=1) if values.ndim > 1 else values
        if not self.needs_labels:
            return values.mean()
        counted = labelled.to(values.dtype)
        return (values * counted).sum() / mean_over_workers(counted.sum()).clamp(min=1e-6)

    def _student_tensor(self, outputs: Outputs, teacher: int) -> Tensor:
        if self.student_tap is not None:
            return self.connectors[teacher](outputs.features[self.student_tap])
        known = known_classes(self.teachers[teacher].class_map)
        return outputs.logits if known is None else outputs.logits[:, known]

    def _teacher_tensor(self, knowledge: Knowledge) -> Tensor:
        return knowledge.tensors[self.teacher_tap or LOGITS]

    def _connector(self, student: Mapping[str, Shape], teacher: TeacherSpec) -> nn.Module:
        if not isinstance(self.spec.on, TapPair):
            return nn.Identity()
        metadata = metadata_of(self._function)
        return connect(
            student[self.spec.on.student],
            teacher.shapes[self.spec.on.teacher],
            aligns=metadata.aligns if metadata else "all",
            student_tap=f"student.taps.{self.spec.on.student}",
            teacher_tap=f"teachers.{teacher.name}.taps.{self.spec.on.teacher}",
            connector=self.spec.connector,
            where=self.spec.key,
        )


class Criterion(nn.Module):
    """Owns loss weights and their schedules, masks and connectors."""

    def __init__(
        self, losses: Sequence[LossSpec], student: Mapping[str, Shape], teachers: Sequence[TeacherSpec]
    ) -> None:
        super().__init__()
        by_name = {teacher.name: teacher for teacher in teachers}
        self.terms = nn.ModuleList(Term(spec, student, [by_name[name] for name in spec.teachers]) for spec in losses)

    def active(self, epoch: int) -> dict[str, Term]:
        """The terms whose weight is not zero in `epoch`."""
        return {name: term for name, term in self.named_terms() if term.spec.weight.at(epoch) != 0}

    def request(self, epoch: int) -> KnowledgeRequest:
        """What the terms of `epoch` need, one request per teacher that is needed."""
        terms = self.active(epoch).values()
        names = dict.fromkeys(teacher.name for term in terms for teacher in term.teachers)
        return tuple(_request(name, [term for term in terms if name in term.spec.teachers]) for name in names)

    def student_taps(self, names: Iterable[str]) -> tuple[str, ...]:
        """The taps of the student that the terms `names` learn at."""
        taps = (term.student_tap for name, term in self.named_terms() if name in set(names))
        return tuple(dict.fromkeys(tap for tap in taps if tap is not None))

    def forward(self, outputs: Outputs, targets: Targets, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and each active term's own value, unweighted."""
        active = self.active(epoch)
        values = {name: term(outputs, targets) for name, term in active.items()}
        weighted = [active[name].spec.weight.at(epoch) * value for name, value in values.items()]
        return torch.stack(weighted).sum(), {name: value.detach() for name, value in values.items()}

    def named_terms(self) -> list[tuple[str, Term]]:
        return [(term.spec.name, term) for term in self.terms if isinstance(term, Term)]


class Distillation(nn.Module):
    """A student and what it learns by, as one module."""

    def __init__(self, student: TappedModel, criterion: Criterion) -> None:
        super().__init__()
        self.student = student
        self.criterion = criterion

    def forward(self, prepared: Tensor, targets: Targets, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        outputs = self.outputs(prepared, self.criterion.student_taps(self.criterion.active(epoch)))
        with torch.autocast(prepared.device.type, enabled=False):
            return self.criterion(outputs, targets, epoch)

    def outputs(self, prepared: Tensor, taps: Sequence[str]) -> Outputs:
        """What the student says, in float32."""
        logits, features = self.student(prepared, taps)
        return Outputs(logits.float(), {tap: feature.float() for tap, feature in features.items()})


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


def _request(teacher: str, terms: Sequence[Term]) -> TeacherRequest:
    taps = tuple(dict.fromkeys(term.teacher_tap for term in terms if term.teacher_tap is not None))
    return TeacherRequest(teacher, logits=any(term.teacher_tap is None for term in terms), taps=taps)


def _labels_known(labels: Tensor, known: Sequence[int] | None, num_classes: int) -> Tensor:
    if known is None:
        return labels
    lookup = torch.full((num_classes,), -1, dtype=labels.dtype, device=labels.device)
    lookup[list(known)] = torch.arange(len(known), dtype=labels.dtype, device=labels.device)
    return torch.where(labels >= 0, lookup[labels.clamp(min=0)], labels)
