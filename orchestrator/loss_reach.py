"""Whether a rung's losses can be taken and reach its student, tried on fake tensors before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from actors.criterion import Distillation, Targets, Term
from actors.inputs import prepare
from actors.knowledge import LOGITS, Knowledge
from actors.probe import reaches
from actors.specs import Shape, StudentSpec, TeacherSpec
from actors.student import build_distillation

PROBE_ROWS = 4
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


def check_losses(spec: StudentSpec, where: str, inputs: Mapping[str, Tensor]) -> None:
    """Raises ValueError at the key of the first loss that cannot teach this student."""
    prepared = prepare(inputs, spec.model.input, f"{where}.input")
    distillation = build_distillation(spec, prepared)
    for epoch in range(spec.recipe.epochs):
        if not distillation.criterion.active(epoch):
            raise ValueError(f"losses: all weights of {spec.name} are 0 in epoch {epoch}; give one of them a weight")
    for _, term in distillation.criterion.named_terms():
        _check_masks(term, spec, where)
    row = tuple(prepared.shape[1:])
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _check_reach(distillation, spec.teachers, row)
    except NEEDS_VALUES:
        _check_reach(distillation, spec.teachers, row)


def _check_masks(term: Term, spec: StudentSpec, where: str) -> None:
    if not term.needs_labels or term.per_sample:
        return
    if spec.unlabelled:
        raise ValueError(
            f"losses.{term.spec.name}: it relates labelled samples to each other, and {where}.data.unlabelled "
            f"has none; "
            "use a loss with `reduction`, or leave unlabelled out"
        )
    partial = [teacher.name for teacher in term.teachers if teacher.class_map is not None]
    if partial:
        raise ValueError(
            f"losses.{term.spec.name}: it needs the label of every sample, and teacher {partial[0]!r} has a class_map; "
            "use a loss with `reduction`, or another teacher"
        )


def _check_reach(distillation: Distillation, listened: tuple[TeacherSpec, ...], row: Shape) -> None:
    targets = Targets(
        labels=torch.zeros(PROBE_ROWS, dtype=torch.int64),
        ids=torch.arange(PROBE_ROWS),
        knowledge={teacher.name: _made_up(teacher) for teacher in listened},
    )
    distillation.train()
    terms = dict(distillation.criterion.named_terms())
    outputs = distillation.outputs(torch.rand(PROBE_ROWS, *row), distillation.criterion.student_taps(terms))
    for name, term in terms.items():
        try:
            value = term(outputs, targets)
        except NEEDS_VALUES:
            raise
        except Exception as error:
            raise ValueError(f"losses.{name}: {term.spec.loss.target} failed: {error}") from error
        if value.ndim:
            raise ValueError(
                f"losses.{name}: expected one value, got shape {tuple(value.shape)}; reduce it to its mean"
            )
        if not reaches(value, distillation.student.parameters()):
            raise ValueError(
                f"losses.{name}: its graph reaches no parameter of the student, so nothing is learned by it"
            )


def _made_up(teacher: TeacherSpec) -> Knowledge:
    tensors = {name: torch.rand(PROBE_ROWS, *shape) for name, shape in teacher.shapes.items()}
    return Knowledge(teacher.name, tensors.pop(LOGITS), tensors)
