"""What one loss hears of one teacher: what it asks for, and what it makes of the answer. Imports no Ray.

`comparison_of` says how the student is then compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from actors.combination import metadata_of_rule
from actors.knowledge import LOGITS, Knowledge, TeacherRequest
from actors.losses import metadata_of
from actors.losses.metadata import phi_kwargs
from actors.reductions import Reduction, raw_bytes_per_row
from actors.specs import LossSpec, TeacherSpec
from actors.top_k import facing, rebuilt, top_k_reduction


class Hearing:
    """The teacher's side of a loss. `request`: of all rows; what is not smaller reduced travels as it is, unless
    `reduce` says otherwise."""

    def __init__(self, loss: LossSpec, teacher: TeacherSpec) -> None:
        self._outputs = loss.outputs
        self._top_k = loss.top_k is not None
        self._rest = loss.rest
        self._num_classes = _num_classes(loss, teacher)
        self._reduction = reduction_of(loss)
        there = () if self._reduction is None or loss.reduce == "student" else (self._reduction,)
        reductions = tuple(one for one in there if _shrinks(one, teacher, loss.key) or loss.reduce == "teacher")
        sent = () if reductions else self._outputs
        answers = metadata_of_rule(loss.ensemble, f"{loss.key}.ensemble").needs_answers and not self._top_k
        taps = tuple(output for output in sent if output != LOGITS)
        self.request = TeacherRequest(teacher.name, LOGITS in sent or answers, taps, reductions=reductions)

    def target(self, knowledge: Knowledge) -> tuple[Tensor, ...]:
        """What the loss compares the student with, of an answer to the request or to a larger one; of a `top_k`,
        logits of all classes."""
        found = self._found(knowledge)
        return (rebuilt(*found, num_classes=self._num_classes),) if self._top_k else found

    def facing(self, student: Sequence[Tensor], knowledge: Knowledge) -> tuple[Sequence[Tensor], tuple[Tensor, ...]]:
        """What is compared: the student's tensors, of the rows of the answer, and the target."""
        if self._rest == "spread":
            return student, self.target(knowledge)
        (logits,) = student
        values, classes, rest = self._found(knowledge)
        own, target = facing(logits, values, classes, rest, bucket=self._rest == "bucket")
        return [own], (target,)

    def logits(self, knowledge: Knowledge) -> Tensor:
        """The teacher's logits of all classes as this loss hears them, for a rule that weighs by them."""
        return self.target(knowledge)[0] if self._top_k else knowledge.tensors[LOGITS]

    def _found(self, knowledge: Knowledge) -> tuple[Tensor, ...]:
        if self._reduction is None:
            return tuple(knowledge.tensors[output] for output in self._outputs)
        return self._reduction.found(knowledge.tensors)


@dataclass(frozen=True)
class Comparison:
    """`function(*student, *target, **kwargs)`; where there is a `phi`, of what it makes of either side."""

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    phi: Reduction | None = None


def comparison_of(loss: LossSpec) -> Comparison:
    """The loss itself, or, where its phi runs apart from it, what it closes with."""
    function, kwargs = loss.loss.resolve(), loss.loss.kwargs
    metadata = metadata_of(function)
    if metadata is None or metadata.phi is None or metadata.closing is None or not _runs_phi(loss):
        return Comparison(function, kwargs)
    of_phi = phi_kwargs(function, metadata.phi, kwargs)
    for name, value in of_phi.items():
        if not isinstance(value, Hashable):
            raise ValueError(
                f"{loss.key}.loss.kwargs.{name}: its phi takes what never changes, a number say, got {value!r}; "
                f"give it that, or compute phi with the loss: {loss.key}.reduce: student"
            )
    target = f"{metadata.phi.__module__}:{metadata.phi.__qualname__}"
    phi = Reduction(target, loss.outputs, tuple(sorted(of_phi.items())))
    return Comparison(metadata.closing, {name: value for name, value in kwargs.items() if name not in of_phi}, phi)


def reduction_of(loss: LossSpec) -> Reduction | None:
    """The largest logits, or the phi that its loss declares, with the arguments that are phi's."""
    return comparison_of(loss).phi if loss.top_k is None else top_k_reduction(loss.top_k)


def _runs_phi(loss: LossSpec) -> bool:
    """Whether a phi would run apart from its loss: not where a rule makes one target of what all teachers send."""
    one_target = metadata_of_rule(loss.ensemble, f"{loss.key}.ensemble").gives == "target"
    return loss.top_k is None and loss.reduce != "student" and not one_target


def _shrinks(reduction: Reduction, teacher: TeacherSpec, where: str) -> bool:
    try:
        reduced = reduction.bytes_per_row(teacher.shapes)
    except Exception as error:
        raise ValueError(f"{where}: {reduction.label} failed for {teacher.name!r}: {error}") from error
    return reduced < raw_bytes_per_row(reduction.outputs, teacher.shapes)


def _num_classes(loss: LossSpec, teacher: TeacherSpec) -> int:
    """Raises ValueError where the classes of which the largest are wanted are no more than these."""
    (num_classes,) = teacher.shapes[LOGITS]
    if loss.top_k is not None and loss.top_k >= num_classes:
        raise ValueError(
            f"{loss.key}.top_k: expected fewer than the {num_classes} classes of teacher {teacher.name!r}, "
            f"got {loss.top_k}; leave it out to hear all"
        )
    return num_classes
