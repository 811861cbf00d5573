"""Whether a rung's losses can be taken and reach its student, tried on fake tensors before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from actors.distillation import Distillation, build_distillation
from actors.hearing import reduction_of
from actors.inputs import prepare
from actors.knowledge import LOGITS, Knowledge, Position
from actors.probe import reaches
from actors.specs import LossSpec, Shape, StudentSpec, TeacherSpec
from actors.teacher import known_classes
from actors.term import Targets, Term

PROBE_ROWS = 4
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


def check_losses(spec: StudentSpec, where: str, inputs: Mapping[str, Tensor]) -> None:
    """Raises ValueError at the key of the first loss that cannot teach this student, with all of its teachers or
    without one that may be dropped."""
    prepared = prepare(inputs, spec.model.input, f"{where}.input")
    distillation = build_distillation(spec, prepared)
    for epoch in sorted(set().union(*(loss.weight.turns for loss in spec.losses))):
        if epoch < spec.recipe.epochs and not distillation.criterion.active(epoch):
            section = spec.losses[0].section
            raise ValueError(f"{section}: all weights of {spec.name} are 0 in epoch {epoch}; give one of them a weight")
    for _, term in distillation.criterion.named_terms():
        _check_masks(term, spec, where)
        if term.teachers:
            _check_reduction(term.spec)
            _check_rest(term)
    _check_taught(distillation, spec, prepared)
    for teacher in spec.teachers:
        if teacher.may_be_dropped:
            _check_dropping(spec, teacher, prepared)


def _check_dropping(spec: StudentSpec, teacher: TeacherSpec, prepared: Tensor) -> None:
    """Raises ValueError where a loss could not go on without a teacher, and those who are lost with it."""
    lost = tuple(other.name for other in spec.teachers if other.host == teacher.host)
    without = replace(spec, dropped=lost)
    try:
        _check_taught(build_distillation(without, prepared), without, prepared)
    except ValueError as error:
        raise ValueError(
            f"{error}; this is so without {' and '.join(lost)}: use another rule, or leave may_be_dropped of "
            f"{teacher.name!r} out"
        ) from error


def _check_taught(distillation: Distillation, spec: StudentSpec, prepared: Tensor) -> None:
    for _, term in distillation.criterion.named_terms():
        if term.teachers:
            _check_rule(term, spec.num_classes)
    left = tuple(teacher for teacher in spec.teachers if teacher.name not in spec.dropped)
    row = tuple(prepared.shape[1:])
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _check_reach(distillation, left, row)
    except NEEDS_VALUES:
        _check_reach(distillation, left, row)


def _check_reduction(loss: LossSpec) -> None:
    if loss.reduce is not None and reduction_of(replace(loss, reduce=None)) is None:
        raise ValueError(
            f"{loss.key}.reduce: {loss.loss.target} declares no phi, so there is nothing to reduce; leave it out, or "
            "give a top_k to a loss on logits"
        )


def _check_rest(term: Term) -> None:
    """Raises ValueError where what is compared must have the same classes in each row, or of each teacher."""
    spec, rule = term.spec, term.spec.ensemble.target
    if spec.rest == "spread":
        return
    where, way_out = f"{spec.key}.rest", "use rest: spread"
    columns = f"{spec.rest} compares each row at its teacher's own {spec.top_k} largest classes"
    if term.combination.gives_target:
        raise ValueError(f"{where}: {columns}, and {rule} makes one target of all teachers; {way_out}, or mean_losses")
    if term.needs_labels:
        raise ValueError(
            f"{where}: {columns}, and the labels that {spec.loss.target} takes are numbers among all classes; "
            f"{way_out}, or a loss without labels"
        )
    if not term.per_sample:
        raise ValueError(
            f"{where}: {columns}, and {spec.loss.target} may compare rows class by class (it has no `reduction`); "
            f"{way_out}, or a loss with `reduction`"
        )


def _check_masks(term: Term, spec: StudentSpec, where: str) -> None:
    if not term.needs_labels or term.per_sample:
        return
    if spec.unlabelled:
        raise ValueError(
            f"{term.spec.key}: it relates labelled samples to each other, and {where}.data.unlabelled "
            f"has none; "
            "use a loss with `reduction`, or leave unlabelled out"
        )
    partial = [teacher.name for teacher in term.teachers if teacher.class_map is not None]
    if partial:
        raise ValueError(
            f"{term.spec.key}: it needs the label of every sample, and teacher {partial[0]!r} has a class_map; "
            "use a loss with `reduction`, or another teacher"
        )


def _check_rule(term: Term, num_classes: int) -> None:
    """Raises ValueError where the ensemble rule could not work on this loss and these teachers."""
    rule, metadata = term.spec.ensemble.target, term.combination.metadata
    where = f"{term.spec.key}.ensemble"
    if metadata.per_sample and not term.per_sample:
        raise ValueError(
            f"{where}: {rule} weighs each sample, and {term.spec.loss.target} gives one value for a whole batch "
            "(it has no `reduction`); use mean_losses, random or learned"
        )
    if not term.combination.gives_target:
        _check_weights(term)
        return
    if term.spec.on != "logits":
        raise ValueError(f"{where}: {rule} needs `on: logits`, got taps; use mean_losses")
    if "temperature" in metadata.arguments and term.spec.loss.kwargs.get("standardize"):
        raise ValueError(
            f"{where}: {rule} takes the mean at the loss's temperature, which `standardize` changes row by row; use "
            "mean_losses or mean_logits"
        )
    known = {teacher.name: known_classes(teacher.class_map) for teacher in term.teachers}
    if len({tuple(classes or range(num_classes)) for classes in known.values()}) > 1:
        text = ", ".join(f"{name}: {classes or 'all'}" for name, classes in known.items())
        raise ValueError(f"{where}: {rule} needs teachers of the same classes, got {text}; use mean_losses")


def _check_weights(term: Term) -> None:
    """Weighs a made-up batch once: a rule may refuse its kwargs, or be no rule."""
    rule, metadata = term.spec.ensemble.target, term.combination.metadata
    where = f"{term.spec.key}.ensemble"
    labels = torch.zeros(PROBE_ROWS, dtype=torch.int64)
    heard = [term.teachers[k] for k in term.combination.heard]
    made_up = [torch.rand(PROBE_ROWS, *teacher.shapes[LOGITS]) for teacher in heard]
    try:
        weights, _ = term.combination.weights(labels, Position(), 0, made_up)
    except Exception as error:
        raise ValueError(f"{where}: {error}") from error
    count = len(term.teachers)
    shape = (count, PROBE_ROWS) if metadata.per_sample else (count,)
    if tuple(weights.shape) != shape:
        kind = "(teachers, rows)" if metadata.per_sample else "(teachers,)"
        raise ValueError(f"{where}: expected weights {kind} of {rule}, {shape} here, got {tuple(weights.shape)}")
    totals = weights.sum(dim=0)
    # Without the specialists of a class, its rows may be taught by nobody.
    untaught = (totals == 0) & (len(heard) < count)
    if not torch.allclose(torch.where(untaught, 1, totals), torch.ones_like(totals), atol=1e-4):
        raise ValueError(
            f"{where}: expected weights of {rule} that add up to 1 over the teachers, got {totals.flatten().tolist()}"
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
    for term in terms.values():
        try:
            value = term(outputs, targets).loss
        except NEEDS_VALUES:
            raise
        except Exception as error:
            raise ValueError(f"{term.spec.key}: {term.spec.loss.target} failed: {error}") from error
        if value.ndim:
            raise ValueError(
                f"{term.spec.key}: expected one value, got shape {tuple(value.shape)}; reduce it to its mean"
            )
        if not reaches(value, distillation.student.parameters()):
            raise ValueError(
                f"{term.spec.key}: its graph reaches no parameter of the student, so nothing is learned by it"
            )


def _made_up(teacher: TeacherSpec) -> Knowledge:
    tensors = {name: torch.rand(PROBE_ROWS, *shape) for name, shape in teacher.shapes.items()}
    return Knowledge(teacher.name, tensors.pop(LOGITS), tensors)
