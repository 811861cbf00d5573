"""The models of an experiment: teachers, assistants, the student, and how each is trained.

`ModelSection` names a model, `TeachingSection` says how it serves, `RecipeSection` how it is trained;
`TeacherConfig`, `AssistantConfig` and `StudentConfig` are made of them. What may be left out, because
another section has it, is filled in before validation by `ExperimentConfig`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from actors.specs import ImportSpec, LossSpec, ModelSpec, RecipeSpec, TeacherSpec
from orchestrator.fields import (
    ClassMap,
    Flag,
    Fraction,
    Key,
    LocalPath,
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Text,
)
from orchestrator.loss_config import LossConfig
from orchestrator.sections import ImportConfig, InputConfig, ResourcesConfig, SchedulerConfig, or_string


class ModelSection(Section):
    model: ImportConfig
    input: InputConfig = InputConfig()
    taps: dict[Key, Text] = Field(default_factory=dict)

    def model_spec(self) -> ModelSpec:
        return ModelSpec(self.model.spec(), self.input.spec(), self.taps)


class TeachingSection(ModelSection):
    """`resources` are per replica."""

    replicas: PositiveInt = 1
    chunk: PositiveInt = 32
    resources: ResourcesConfig = ResourcesConfig()

    def teacher_spec(self, name: str, weights: str) -> TeacherSpec:
        return TeacherSpec(
            name=name,
            model=self.model_spec(),
            weights=weights,
            chunk=self.chunk,
            replicas=self.replicas,
            resources=self.resources.spec(),
        )


class RecipeSection(Section):
    epochs: PositiveInt
    optimizer: ImportConfig
    scheduler: SchedulerConfig | None = None
    clip_norm: PositiveFloat | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    num_workers: PositiveInt = 1
    checkpoint_every_steps: PositiveInt | None = None

    def recipe(self, batch_size: int, seed: int) -> RecipeSpec:
        return RecipeSpec(
            epochs=self.epochs,
            batch_size=batch_size,
            seed=seed,
            optimizer=self.optimizer.spec(),
            scheduler=self.scheduler.spec() if self.scheduler else None,
            scheduler_every=self.scheduler.every if self.scheduler else "epoch",
            clip_norm=self.clip_norm,
            precision=self.precision,
            checkpoint_every_steps=self.checkpoint_every_steps,
        )


def _not_required(*names: str) -> ConfigDict:
    """For editors: these keys may be left out, since they are filled in from another section."""

    def loosen(schema: dict[str, Any]) -> None:
        schema["required"] = [name for name in schema["required"] if name not in names]

    return ConfigDict(json_schema_extra=loosen)


class TrainConfig(RecipeSection):
    """How a teacher is trained here, on labels."""

    model_config = _not_required("batch_size", "seed")

    slice: Text
    batch_size: PositiveInt = Field(json_schema_extra={"type": ["integer", "null"]})
    seed: NaturalInt = Field(json_schema_extra={"type": ["integer", "null"]})
    label_smoothing: Fraction = 0.0

    def recipe_spec(self) -> RecipeSpec:
        return self.recipe(self.batch_size, self.seed)

    def loss_spec(self) -> LossSpec:
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss", smoothing), on="labels")


class TeacherConfig(TeachingSection):
    """A teacher: its weights stand in a file (`checkpoint`) or are trained first (`train`)."""

    checkpoint: LocalPath | None = None
    train: TrainConfig | None = None
    class_map: ClassMap | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherConfig:
        if (self.checkpoint is None) == (self.train is None):
            given = "neither" if self.train is None else "both"
            raise ValueError(f"expected exactly one of checkpoint and train, got {given}")
        return self

    def teacher_spec(self, name: str, weights: str) -> TeacherSpec:
        return replace(super().teacher_spec(name, weights), class_map=self.class_map)


class RungDataConfig(Section):
    """The slices that a rung learns from; may be written as the labelled one's bare name."""

    labelled: Text
    unlabelled: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {"labelled": value} if isinstance(value, str) and value else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return or_string(handler(core))


class StudentConfig(RecipeSection, ModelSection):
    """`resources` are per worker; `alone` also trains the same student without teachers, as the baseline."""

    data: RungDataConfig
    resources: ResourcesConfig = ResourcesConfig()
    window: NaturalInt = 2
    alone: Flag = True


INHERITED = (*RecipeSection.model_fields, "input", "data", "resources", "window")
NO_STUDENT = {"epochs": 1, "optimizer": "a:b", "data": "a"}


class AssistantConfig(RecipeSection, TeachingSection):
    """A student that then teaches: what is `INHERITED` and left out is the student's.

    `losses` replace the experiment's; `resources` are per worker and, later, per replica. `NO_STUDENT` stands
    in for a student that is wrong itself, so that this is said once.
    """

    model_config = _not_required(*INHERITED)

    data: RungDataConfig
    window: NaturalInt = 2
    losses: dict[Key, LossConfig] | None = None
