"""What can be known of a config before anything starts: imports, shapes, weights that fit, losses that reach the
student.

`check` gathers it as `Findings`; every problem is a ValueError that begins with the config key. Imports torch, not Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from actors.inputs import prepare
from actors.knowledge import LOGITS
from actors.probe import probe_shapes
from actors.schedules import build_scheduler
from actors.specs import ModelSpec, Shape, TeacherSpec
from actors.weights import fit_weights, read_weights
from orchestrator.config import ExperimentConfig
from orchestrator.data_checks import Datasets, check_labels, open_data, steps_per_epoch
from orchestrator.ladder import Rung, ladder, section_of, teachers
from orchestrator.loss_reach import check_losses
from orchestrator.mixing_checks import check_labels_of_mixtures
from orchestrator.registered import fetched, with_weights
from orchestrator.teaching_checks import check_teaching
from orchestrator.wanted import bind_all


@dataclass(frozen=True)
class Findings:
    """What `check` found. `elsewhere`: targets whose package only the cluster may have; then nothing more is known.
    `registered`: the version of each teacher that comes from MLflow's registry. `row_bytes`, `row_seconds`: the size
    of a sample's inputs, and what building them takes here."""

    num_classes: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)
    steps_per_epoch: Mapping[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    registered: Mapping[str, str] = field(default_factory=dict)
    row_bytes: int = 0
    row_seconds: float = 0.0


def check(config: ExperimentConfig) -> Findings:
    """Raises ValueError at the first thing that cannot work."""
    elsewhere = bind_all(config)
    if any(line.startswith("data.") for line in elsewhere):
        return Findings(elsewhere=elsewhere)
    rungs = ladder(config)
    datasets = open_data(config)
    steps = steps_per_epoch(config, rungs, datasets)
    if elsewhere:
        return Findings(steps_per_epoch=steps, elsewhere=elsewhere)
    with _quiet_torch():
        built = _probe_all(config, rungs, datasets)
        num_classes = built["student"].shapes[LOGITS][-1]
        check_labels(config, datasets, num_classes)
        brought = fetched(config)
        shaped = {
            name: _shaped(spec, built[section_of(config, name)], num_classes, section_of(config, name))
            for name, spec in with_weights(teachers(config), brought).items()
        }
        for rung in rungs:
            _check_recipe(rung, steps[rung.name])
            if datasets.mixes:
                check_labels_of_mixtures(rung.losses)
            if rung.teachers:
                spec = rung.spec(config.data.spec(), config.data.validation, num_classes, shaped)
                check_losses(spec, rung.where, datasets.training_input)
    names = {where.rpartition(".")[2]: found for where, found in built.items()}
    return Findings(
        num_classes,
        {name: found.parameters for name, found in names.items()},
        steps,
        teachers=shaped,
        registered={name: one.uri for name, one in brought.items()},
        row_bytes=sum(tensor.nbytes for tensor in datasets.training_input.values()),
        row_seconds=datasets.row_seconds,
    )


@dataclass(frozen=True)
class _Built:
    model: nn.Module
    shapes: Mapping[str, Shape]
    input_shape: Shape

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def _probe_all(config: ExperimentConfig, rungs: tuple[Rung, ...], datasets: Datasets) -> dict[str, _Built]:
    models = {rung.where: rung.model for rung in rungs if rung.role != "alone"}
    models |= {f"teachers.{name}": section.model_spec() for name, section in config.teachers.items()}
    built = {where: _probe(model, datasets.training_input, where) for where, model in models.items()}
    for where, model in models.items():
        seen = prepare(datasets.evaluation_input, model.input, f"{where}.input")
        probe_shapes(built[where].model, {}, seen, where)
    return built


def _check_recipe(rung: Rung, steps: int) -> None:
    """Builds and steps the optimiser and the scheduler on one number."""
    where = f"{rung.where}.train" if rung.role == "teacher" else rung.where
    number = nn.Parameter(torch.zeros(1))
    number.grad = torch.zeros(1)
    with _usable(f"{where}.optimizer"):
        optimizer = rung.recipe.optimizer.build([number])
    with _usable(f"{where}.scheduler"):
        scheduler = build_scheduler(rung.recipe, optimizer, steps)
    with _usable(f"{where}.optimizer"):
        optimizer.step()
    if scheduler is not None:
        with _usable(f"{where}.scheduler"):
            scheduler.step()


@contextmanager
def _usable(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{where}: it cannot be used: {type(error).__name__}: {error}; check {where}.kwargs"
        ) from error


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Torch logs what fails on fake tensors before it raises it; the error says it better."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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
    return _Built(model, shapes, tuple(prepared.shape[1:]))


def _shaped(spec: TeacherSpec, built: _Built, num_classes: int, where: str) -> TeacherSpec:
    if spec.weights:
        fit_weights(built.model, read_weights(spec.weights, f"{where}.checkpoint"), f"{where}.checkpoint")
    outputs = built.shapes[LOGITS][0]
    if spec.class_map is None and outputs != num_classes:
        raise ValueError(
            f"{where}.model: its logits have {outputs} classes, the student's {num_classes}; give {where}.class_map"
        )
    if spec.class_map is not None and len(spec.class_map) != outputs:
        raise ValueError(f"{where}.class_map: expected {outputs} classes (its outputs), got {len(spec.class_map)}")
    if spec.class_map is not None and max(spec.class_map) >= num_classes:
        raise ValueError(f"{where}.class_map: class {max(spec.class_map)} is not among the data's {num_classes}")
    shaped = replace(spec, shapes={**built.shapes, LOGITS: (outputs,)}, input_shape=built.input_shape)
    check_teaching(shaped, built.model, where)
    return shaped
