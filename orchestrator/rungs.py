"""The models of an experiment: teachers, assistants, the student, and how each is trained.

`ModelSection` names a model, `TeachingSection` says how it serves, `RecipeSection` how it is trained;
`TeacherConfig`, `AssistantConfig` and `StudentConfig` are made of them. What may be left out, because
another section has it, is filled in before validation by `ExperimentConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, GetJsonSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema

from actors.specs import ImportSpec, LossSpec, ModelSpec, Precision, RecipeSpec, TeacherSpec
from orchestrator.fields import (
    Checkpoint,
    Chunk,
    ClassMap,
    Decay,
    Flag,
    Fraction,
    Key,
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Text,
    Threads,
    Window,
    expects,
)
from orchestrator.loss_config import LossConfig
from orchestrator.sections import ImportConfig, InputConfig, ResourcesConfig, SchedulerConfig, or_string

CHUNK_ON_CPU, CHUNK_ON_GPU = 32, 256


class ModelSection(Section):
    model: ImportConfig
    """A torch.nn.Module by import path."""
    input: InputConfig = InputConfig()
    """What the model wants its pixels to be."""
    taps: dict[Key, Text] = Field(default_factory=dict)
    """Features by name: the path of a module whose output is the feature."""

    def model_spec(self) -> ModelSpec:
        return ModelSpec(self.model.spec(), self.input.spec(), self.taps)


class ReplicasConfig(Section):
    """As many replicas as the students need."""

    min: PositiveInt = 1
    """At first, and the fewest."""
    max: PositiveInt
    """The most."""

    @model_validator(mode="after")
    def _in_order(self) -> ReplicasConfig:
        if self.min > self.max:
            raise ValueError(f"expected min <= max, got min {self.min} and max {self.max}")
        return self


def _replicas_tag(value: Any) -> str:
    return "(range)" if isinstance(value, (Mapping, ReplicasConfig)) else "(number)"


_Count = Annotated[PositiveInt, expects("a positive integer or {min: a number, max: a number}")]
Replicas = Annotated[
    Annotated[_Count, Tag("(number)")] | Annotated[ReplicasConfig, Tag("(range)")], Discriminator(_replicas_tag)
]


class TeachingSection(ModelSection):
    """`resources` are per replica."""

    replicas: Replicas = 1
    """Actors that answer for it in the pool; or `{min: 1, max: 8}`: more while students wait for it, fewer while it
    idles."""
    actor: Key | None = None
    """Teachers that name the same actor here live in it together: one call asks them all. Null: one of its own."""
    may_be_dropped: Flag = False
    """true: once it is lost for good, those whom it teaches go on without it. That is another student than all of its
    teachers would make, and is marked in the result."""
    chunk: Chunk = CHUNK_ON_CPU
    """Rows that it computes at once, padded: its answers do not depend on the batch. `auto`: 256 where `resources` name
    a GPU, else 32."""
    threads: Threads | None = None
    """Threads of torch within one operation; null: as many as whole CPU cores, at least 1."""
    channels_last: Flag = False
    """Weights and images lie in memory with the channels last, in which most convolutions are faster; false: as its
    model's code has them."""
    compile: Text | None = None
    """A backend of torch.compile, `inductor` say; it compiles when the teacher is loaded. Null: not compiled."""
    resources: ResourcesConfig = ResourcesConfig()
    """Of each replica."""

    def teacher_spec(self, name: str, weights: str) -> TeacherSpec:
        return TeacherSpec(
            name=name,
            model=self.model_spec(),
            weights=weights,
            chunk=self._chunk(),
            threads=self.threads or self.resources.spec().threads,
            channels_last=self.channels_last,
            compile=self.compile,
            replicas=self.replicas.min if isinstance(self.replicas, ReplicasConfig) else self.replicas,
            most_replicas=self.replicas.max if isinstance(self.replicas, ReplicasConfig) else None,
            resources=self.resources.spec(),
            actor=self.actor,
            may_be_dropped=self.may_be_dropped,
        )

    def _chunk(self) -> int:
        if self.chunk == "auto":
            return CHUNK_ON_GPU if self.resources.num_gpus else CHUNK_ON_CPU
        return self.chunk


class RecipeSection(Section):
    epochs: PositiveInt
    """Passes over the slice."""
    optimizer: ImportConfig
    """Called with the parameters."""
    scheduler: SchedulerConfig | None = None
    """Called with the optimiser."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of all gradients together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in the forward pass."""
    num_workers: PositiveInt = 1
    """Ray Train workers; 1 runs without Ray Train's start-up."""
    checkpoint_every_steps: PositiveInt | None = None
    """Checkpoints within an epoch too; null: after each epoch."""
    ema: Decay | None = None
    """Decay of an exponential moving average of the weights over the steps; the average is then what is evaluated and
    exported. 0.999, say, for runs of many thousands: over fewer than 1 / (1 - decay) it is their plain mean. Null: the
    weights themselves."""

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
            ema=self.ema,
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
    """The slice that it learns from."""
    batch_size: PositiveInt = Field(json_schema_extra={"type": ["integer", "null"]})
    """Over all workers; null: the data's."""
    seed: NaturalInt = Field(json_schema_extra={"type": ["integer", "null"]})
    """Null: the data's."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread over all classes."""

    def recipe_spec(self) -> RecipeSpec:
        return self.recipe(self.batch_size, self.seed)

    def loss_spec(self) -> LossSpec:
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss", smoothing), on="labels")


class TeacherConfig(TeachingSection):
    """A teacher: its weights stand in a file (`checkpoint`) or are trained first (`train`)."""

    checkpoint: Checkpoint | None = None
    """Weights: safetensors, or a torch checkpoint of tensors; or a model registered in MLflow, `models:/name@alias`."""
    train: TrainConfig | None = None
    """Trains it here, once."""
    precision: Precision = "fp32"
    """bf16, fp16: autocast when it teaches; what it sends is float32 all the same. On a CPU fp16 may be slower than
    fp32."""
    class_map: ClassMap | None = None
    """The data's class that each output stands for; null: all, in order."""

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherConfig:
        if (self.checkpoint is None) == (self.train is None):
            given = "neither" if self.train is None else "both"
            raise ValueError(f"expected exactly one of checkpoint and train, got {given}")
        return self

    def teacher_spec(self, name: str, weights: str) -> TeacherSpec:
        return replace(super().teacher_spec(name, weights), class_map=self.class_map, precision=self.precision)


class RungDataConfig(Section):
    """The slices that a rung learns from; may be written as the labelled one's bare name."""

    labelled: Text
    """A slice whose labels are used."""
    unlabelled: Text | None = None
    """A slice whose labels are hidden."""

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
    """The slices that it learns from."""
    resources: ResourcesConfig = ResourcesConfig()
    """Of each worker."""
    window: Window = "auto"
    """Batches under way at the teachers; `auto`: more while the student waits for them, within 256 MB."""
    alone: Flag = True
    """Whether the same student is also trained without teachers, as the baseline."""


INHERITED = (*RecipeSection.model_fields, "input", "data", "resources", "window")
# Stands in for a student that is wrong itself, so that this is said once.
NO_STUDENT = {"epochs": 1, "optimizer": "a:b", "data": "a"}


class AssistantConfig(RecipeSection, TeachingSection):
    """A student that then teaches. What is left out of its recipe, input and data is the student's.

    `resources` are per worker and, later, per replica.
    """

    model_config = _not_required(*INHERITED)

    data: RungDataConfig
    """The slices that it learns from."""
    window: Window = "auto"
    """Batches under way at the teachers; `auto`: more while the student waits for them, within 256 MB."""
    losses: dict[Key, LossConfig] | None = None
    """In place of the experiment's losses; null: those."""
    teaching_precision: Precision = "fp32"
    """bf16, fp16: autocast when it teaches; `precision` is that of its own training."""

    def teacher_spec(self, name: str, weights: str) -> TeacherSpec:
        return replace(super().teacher_spec(name, weights), precision=self.teaching_precision)
