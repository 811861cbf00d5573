"""The ladder of an experiment: which models are trained, by whom they are taught, and in what order. Pure; no torch,
no Ray.

`Rung` is one model to train; `ladder` lists an experiment's rungs, teachers first; `teachers` those who teach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from actors.specs import (
    DataSpec,
    ImportSpec,
    LossSpec,
    ModelSpec,
    RecipeSpec,
    Resources,
    StudentSpec,
    TeacherSpec,
    WeightSpec,
)
from orchestrator.config import ExperimentConfig
from orchestrator.rungs import AssistantConfig, StudentConfig, TeacherConfig, TrainConfig

Role = Literal["teacher", "assistant", "alone", "student"]


@dataclass(frozen=True)
class Rung:
    """One model to train. `teachers`: the names it needs trained before it. `rows_per_epoch`: labelled rows are
    repeated to so many, so that a student alone has the steps of one that learns from unlabelled rows too."""

    name: str
    role: Role
    model: ModelSpec
    recipe: RecipeSpec
    labelled: str
    unlabelled: str | None
    losses: tuple[LossSpec, ...]
    num_workers: int
    resources: Resources
    window: int | None = 0
    rows_per_epoch: int | None = None

    @property
    def teachers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(teacher for loss in self.losses for teacher in loss.teachers))

    @property
    def where(self) -> str:
        """The config key of this rung's section."""
        sections = {"teacher": f"teachers.{self.name}", "assistant": f"assistants.{self.name}"}
        return sections.get(self.role, "student")

    def spec(
        self, data: DataSpec, validation: str, num_classes: int, teachers: Mapping[str, TeacherSpec]
    ) -> StudentSpec:
        return StudentSpec(
            name=self.name,
            model=self.model,
            recipe=self.recipe,
            data=data,
            labelled=self.labelled,
            unlabelled=self.unlabelled,
            validation=validation,
            num_classes=num_classes,
            losses=self.losses,
            teachers=tuple(teachers[name] for name in self.teachers),
            num_workers=self.num_workers,
            resources=self.resources,
            window=self.window,
            rows_per_epoch=self.rows_per_epoch,
        )


def ladder(config: ExperimentConfig) -> tuple[Rung, ...]:
    """Every model that the experiment trains, each after those that teach it."""
    trained = [_teacher(name, section) for name, section in config.teachers.items() if section.train]
    assistants = [_taught(config, name, section) for name, section in config.assistants.items()]
    student = _taught(config, "student", config.student)
    alone = [_alone(student, config.data.slices)] if config.student.alone else []
    return (*trained, *alone, *assistants, student)


def teachers(config: ExperimentConfig) -> dict[str, TeacherSpec]:
    """All who teach: teachers and assistants. `weights` is empty where they are yet to be trained."""
    given = {name: section.teacher_spec(name, section.checkpoint or "") for name, section in config.teachers.items()}
    return {**given, **{name: section.teacher_spec(name, "") for name, section in config.assistants.items()}}


def section_of(config: ExperimentConfig, teacher: str) -> str:
    """The config key of one who teaches."""
    return f"teachers.{teacher}" if teacher in config.teachers else f"assistants.{teacher}"


def alone_losses(losses: tuple[LossSpec, ...]) -> tuple[LossSpec, ...]:
    """What a student learns from without teachers: its losses on labels, at their final weights, which are scaled to
    add up to 1: a ramp that begins at 0 would leave nothing to learn from."""
    on_labels = [loss for loss in losses if loss.on == "labels"]
    total = sum(loss.weight.end for loss in on_labels)
    if not total:
        return (LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss"), on="labels"),)
    shares = [loss.weight.end / total for loss in on_labels]
    return tuple(
        replace(loss, weight=WeightSpec(share, share)) for loss, share in zip(on_labels, shares, strict=True) if share
    )


def _alone(student: Rung, slices: Mapping[str, int]) -> Rung:
    return replace(
        student,
        name="alone",
        role="alone",
        model=replace(student.model, taps={}),
        losses=alone_losses(student.losses),
        unlabelled=None,
        rows_per_epoch=_rows_alone(student, slices),
        window=0,
    )


def _rows_alone(student: Rung, slices: Mapping[str, int]) -> int | None:
    if student.unlabelled is None:
        return None
    return slices.get(student.labelled, 0) + slices.get(student.unlabelled, 0)


def _taught(config: ExperimentConfig, name: str, section: StudentConfig | AssistantConfig) -> Rung:
    above = config.teachers_of(name)
    return Rung(
        name=name,
        role="student" if name == "student" else "assistant",
        model=section.model_spec(),
        recipe=section.recipe(config.data.batch_size, config.seed),
        labelled=section.data.labelled,
        unlabelled=section.data.unlabelled,
        losses=tuple(
            loss.spec(key, above, config.losses_path(name))
            for key, loss in config.losses_of(name).items()
            if not loss.is_dropped
        ),
        num_workers=section.num_workers,
        resources=section.resources.spec(),
        window=None if section.window == "auto" else section.window,
    )


def _teacher(name: str, section: TeacherConfig) -> Rung:
    train = section.train
    assert isinstance(train, TrainConfig)
    return Rung(
        name=name,
        role="teacher",
        model=replace(section.model_spec(), taps={}),
        recipe=train.recipe_spec(),
        labelled=train.slice,
        unlabelled=None,
        losses=(replace(train.loss_spec(), section=f"teachers.{name}.train"),),
        num_workers=train.num_workers,
        resources=section.resources.spec(),
    )
