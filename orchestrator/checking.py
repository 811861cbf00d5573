"""What can be known of a config before anything starts: imports, shapes, weights that fit, losses that reach the
student.

`check` gathers it as `Findings`; every problem is a ValueError that begins with the config key. Imports torch, not Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from actors.criterion import Distillation, Targets
from actors.data import Rows, evaluation_rows, slice_ids, training_rows
from actors.inputs import prepare
from actors.knowledge import LOGITS, Knowledge
from actors.probe import probe_shapes, reaches
from actors.schedules import LENGTH_ARGUMENTS
from actors.specs import ImportSpec, ModelSpec, Shape, TeacherSpec
from actors.student import build_distillation
from actors.views import MapDataset
from actors.weights import fit_weights, read_weights
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import Rung, ladder, teachers
from orchestrator.targets import NotHere, bind

PROBE_ROWS = 4


@dataclass(frozen=True)
class Findings:
    """What `check` found. `elsewhere`: targets whose package only the cluster may have."""

    num_classes: int
    shapes: Mapping[str, Mapping[str, Shape]]
    parameters: Mapping[str, int]
    steps_per_epoch: Mapping[str, int]
    elsewhere: tuple[str, ...] = ()
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """A target with what our code itself calls it with."""

    where: str
    spec: ImportSpec
    positional: int = 0
    names: tuple[str, ...] = ()


def check(config: ExperimentConfig) -> Findings:
    """Raises ValueError at the first thing that cannot work."""
    elsewhere = _bind_all(config)
    data = config.data.spec()
    dataset = _dataset(data.train, "data.train")
    test = _dataset(data.test, "data.test")
    rungs = ladder(config)
    steps = _steps_per_epoch(config, rungs, len(dataset))
    training_rows(dataset, data).build(*_first(2))
    evaluation_rows(test, data).build(*_first(2))
    if elsewhere:
        return Findings(0, {}, {}, steps, elsewhere)
    one_input, _ = evaluation_rows(dataset, data).build(*_first(1))
    models = {rung.where: rung.model for rung in rungs if rung.role != "alone"}
    models |= {f"teachers.{name}": section.model_spec() for name, section in config.teachers.items()}
    built = {where: _probe(model, one_input, where) for where, model in models.items()}
    num_classes = built["student"].shapes[LOGITS][-1]
    _check_labels(evaluation_rows(dataset, data), len(dataset), num_classes)
    shaped = {
        name: _shaped(spec, built[_section(config, name)], num_classes) for name, spec in teachers(config).items()
    }
    for rung in rungs:
        if rung.teachers:
            _check_losses(config, rung, shaped, num_classes, one_input)
    names = {_name(where): found for where, found in built.items()}
    return Findings(
        num_classes,
        {name: found.shapes for name, found in names.items()},
        {name: found.parameters for name, found in names.items()},
        steps,
        teachers=shaped,
    )


@dataclass(frozen=True)
class _Built:
    model: nn.Module
    shapes: Mapping[str, Shape]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def wanted_targets(config: ExperimentConfig) -> Iterator[Wanted]:
    """Every import of the config, in the order of the document."""
    data = config.data
    yield Wanted("data.train", data.train.spec())
    yield Wanted("data.test", data.test.spec())
    yield Wanted("data.views", data.views.spec(), positional=3)
    yield Wanted("data.evaluation_view", data.evaluation_view.spec(), positional=3)
    for name, teacher in config.teachers.items():
        yield Wanted(f"teachers.{name}.model", teacher.model.spec())
    for rung in ladder(config):
        if rung.role == "alone":
            continue
        recipe_where = f"{rung.where}.train" if rung.role == "teacher" else rung.where
        if rung.role != "teacher":
            yield Wanted(f"{rung.where}.model", rung.model.model)
        yield Wanted(f"{recipe_where}.optimizer", rung.recipe.optimizer, positional=1)
        if scheduler := rung.recipe.scheduler:
            given = tuple(name for name in LENGTH_ARGUMENTS if name not in scheduler.kwargs)
            yield Wanted(f"{recipe_where}.scheduler", scheduler, positional=1, names=given)
        if rung.role != "teacher":
            yield from _loss_targets(rung, config)


def _loss_targets(rung: Rung, config: ExperimentConfig) -> Iterator[Wanted]:
    own = rung.role == "assistant" and config.assistants[rung.name].losses is not None
    prefix = f"{rung.where}.losses" if own else "losses"
    for loss in rung.losses:
        where = f"{prefix}.{loss.name}"
        yield Wanted(f"{where}.loss", loss.loss, positional=2, names=("labels", "ids", "reduction"))
        rule = replace(loss.ensemble, kwargs={k: v for k, v in loss.ensemble.kwargs.items() if k != "weights"})
        yield Wanted(f"{where}.ensemble", rule, positional=2, names=("shares", "temperature"))
        if loss.connector:
            yield Wanted(f"{where}.connector", loss.connector, positional=2)


def _bind_all(config: ExperimentConfig) -> tuple[str, ...]:
    elsewhere = []
    for wanted in wanted_targets(config):
        try:
            bind(wanted.spec, wanted.where, wanted.positional, wanted.names)
        except NotHere:
            elsewhere.append(f"{wanted.where}.target: {wanted.spec.target}")
    return tuple(dict.fromkeys(elsewhere))


def _dataset(spec: ImportSpec, where: str) -> MapDataset:
    try:
        dataset = spec.build()
    except Exception as error:
        raise ValueError(
            f"{where}: {spec.target} failed: {type(error).__name__}: {error}; check {where}.kwargs"
        ) from error
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ValueError(f"{where}: expected a dataset with a length and rows by number, got {type(dataset).__name__}")
    return dataset


def _first(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows), np.zeros(rows, dtype=np.int32)


def _steps_per_epoch(config: ExperimentConfig, rungs: tuple[Rung, ...], length: int) -> dict[str, int]:
    slices = slice_ids(config.data.slices, length, config.data.seed)
    steps = {}
    for rung in rungs:
        rows = len(slices[rung.labelled]) + (len(slices[rung.unlabelled]) if rung.unlabelled else 0)
        steps[rung.name] = rows // rung.recipe.batch_size
        if not steps[rung.name]:
            raise ValueError(
                f"{rung.where}: {rows} samples do not fill one batch of {rung.recipe.batch_size}; "
                "enlarge the slice or lower data.batch_size"
            )
    return steps


def _probe(model_spec: ModelSpec, inputs: Mapping[str, Tensor], where: str) -> _Built:
    try:
        model = model_spec.model.build()
    except Exception as error:
        raise ValueError(
            f"{where}.model: {model_spec.model.target} failed: {type(error).__name__}: {error}; check its kwargs"
        ) from error
    prepared = prepare(inputs, model_spec.input, f"{where}.input")
    shapes = probe_shapes(model, model_spec.taps, prepared, where)
    if len(shapes[LOGITS]) != 1:
        raise ValueError(f"{where}.model: expected logits of shape (rows, classes), got (rows, {shapes[LOGITS]})")
    return _Built(model, shapes)


def _check_labels(rows: Rows, length: int, num_classes: int) -> None:
    sampled = np.unique(np.linspace(0, length - 1, 256).astype(np.int64))
    _, labels = rows.build(sampled, np.zeros(len(sampled), dtype=np.int32))
    if int(labels.max()) >= num_classes:
        raise ValueError(
            f"student.model: its logits have {num_classes} classes, the data has label {int(labels.max())}; "
            "raise num_classes in its kwargs"
        )


def _section(config: ExperimentConfig, name: str) -> str:
    return f"teachers.{name}" if name in config.teachers else f"assistants.{name}"


def _name(where: str) -> str:
    return where.rpartition(".")[2]


def _shaped(spec: TeacherSpec, built: _Built, num_classes: int) -> TeacherSpec:
    where = f"teachers.{spec.name}"
    outputs = built.shapes[LOGITS][0]
    if spec.class_map is None and outputs != num_classes:
        raise ValueError(
            f"{where}.model: its logits have {outputs} classes, the student's {num_classes}; give {where}.class_map"
        )
    if spec.class_map is not None and len(spec.class_map) != outputs:
        raise ValueError(f"{where}.class_map: expected {outputs} classes (its outputs), got {len(spec.class_map)}")
    if spec.class_map is not None and max(spec.class_map) >= num_classes:
        raise ValueError(f"{where}.class_map: class {max(spec.class_map)} is not among the data's {num_classes}")
    if spec.weights:
        fit_weights(built.model, read_weights(spec.weights, f"{where}.checkpoint"), f"{where}.checkpoint")
    return replace(spec, shapes={**built.shapes, LOGITS: (outputs,)})


def _check_losses(
    config: ExperimentConfig,
    rung: Rung,
    shaped: Mapping[str, TeacherSpec],
    num_classes: int,
    inputs: Mapping[str, Tensor],
) -> None:
    spec = rung.spec(config.data.spec(), config.data.validation, num_classes, shaped)
    prepared = prepare(inputs, rung.model.input, f"{rung.where}.input")
    distillation = build_distillation(spec, prepared)
    for epoch in range(rung.recipe.epochs):
        if not distillation.criterion.active(epoch):
            raise ValueError(f"losses: all weights of {rung.name} are 0 in epoch {epoch}; give one of them a weight")
    for _, term in distillation.criterion.named_terms():
        if rung.unlabelled and term.needs_labels and not term.per_sample:
            raise ValueError(
                f"losses.{term.spec.name}: it relates labelled samples to each other, and "
                f"{rung.where}.data.unlabelled has "
                "none; use a loss with `reduction`, or leave unlabelled out"
            )
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _check_reach(distillation, spec.teachers, tuple(prepared.shape[1:]))
    except (DataDependentOutputException, UnsupportedOperatorException):
        _check_reach(distillation, spec.teachers, tuple(prepared.shape[1:]))


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
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
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
