"""What one loss hears of one teacher: what it asks for, and what it makes of the answer. Imports no Ray.

`closing_of` is the function that a loss is computed by on the student's side, once its teachers' side has been reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from actors.combination import metadata_of_rule
from actors.knowledge import LOGITS, Knowledge, TeacherRequest
from actors.losses import metadata_of
from actors.losses.metadata import phi_kwargs
from actors.reductions import Reduction, raw_bytes_per_row
from actors.specs import LossSpec, TeacherSpec


class Hearing:
    """The teacher's side of a loss. `request`: of all rows; what is not smaller reduced travels as it is."""

    def __init__(self, loss: LossSpec, teacher: TeacherSpec) -> None:
        self._outputs = loss.outputs
        self._reduction = reduction_of(loss)
        reduced = self._reduction is not None and _shrinks(self._reduction, teacher)
        sent = () if reduced else self._outputs
        answers = metadata_of_rule(loss.ensemble, f"{loss.key}.ensemble").needs_answers
        self.request = TeacherRequest(
            teacher.name,
            logits=LOGITS in sent or answers,
            taps=tuple(output for output in sent if output != LOGITS),
            reductions=(self._reduction,) if self._reduction is not None and reduced else (),
        )

    def target(self, knowledge: Knowledge) -> Tensor:
        """What the loss compares the student with, of an answer to the request or to a larger one."""
        if self._reduction is None:
            return knowledge.tensors[self._outputs[0]]
        return self._reduction.found(knowledge.tensors)[0]


def closing_of(loss: LossSpec) -> Callable[..., Any]:
    """The loss itself, or, where phi has reduced the teacher's side, what it closes with."""
    function = loss.loss.resolve()
    metadata = metadata_of(function)
    if metadata is None or metadata.closing is None or reduction_of(loss) is None:
        return function
    return metadata.closing


def reduction_of(loss: LossSpec) -> Reduction | None:
    """The phi that its loss declares, with the arguments that are phi's; None where the student's side does it all."""
    function = loss.loss.resolve()
    metadata = metadata_of(function)
    one_target = metadata_of_rule(loss.ensemble, f"{loss.key}.ensemble").gives == "target"
    if metadata is None or metadata.phi is None or one_target or loss.reduce == "student":
        return None
    phi = metadata.phi
    kwargs = phi_kwargs(function, phi, loss.loss.kwargs)
    return Reduction(f"{phi.__module__}:{phi.__qualname__}", loss.outputs, tuple(sorted(kwargs.items())))


def _shrinks(reduction: Reduction, teacher: TeacherSpec) -> bool:
    return reduction.bytes_per_row(teacher.shapes) < raw_bytes_per_row(reduction.outputs, teacher.shapes)
