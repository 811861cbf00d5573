"""The config's parts below a rung: imports, inputs, resources, data. `spec()` is the worker's form of each.

An import may be written as a bare string, `module:attribute`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic_core import CoreSchema

from actors.specs import ENSEMBLE_RULES, DataSpec, EncodingName, ImportSpec, InputSpec, Resources, TapPair
from orchestrator.fields import (
    Flag,
    Gpus,
    Key,
    NaturalFloat,
    NaturalInt,
    Number,
    Numbers,
    NumViews,
    PositiveInt,
    Section,
    StoragePlace,
    Taps,
    Text,
    TrackingUri,
    expects,
)
from orchestrator.problems import did_you_mean


class ImportConfig(Section):
    """A `module:attribute` and the keyword arguments that it is called with."""

    target: str
    """`module:attribute`, importable where it runs."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments that it is called with."""

    @classmethod
    def read_target(cls, text: str) -> str:
        if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", text):
            return text
        module, dot, attribute = text.rpartition(".")
        hint = f"; did you mean '{module}:{attribute}'?" if dot and ":" not in text else ""
        raise ValueError(f"expected 'module:attribute', got {text!r}{hint}")

    @field_validator("target")
    @classmethod
    def _read_target(cls, text: str) -> str:
        return cls.read_target(text)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {"target": cls.read_target(value)} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return or_string(handler(core))

    def spec(self) -> ImportSpec:
        return ImportSpec(self.target, self.kwargs)


class SchedulerConfig(ImportConfig):
    """A learning-rate schedule and how often it steps."""

    every: Literal["epoch", "step"] = "epoch"
    """When it steps: after each epoch, or after each training step."""


class EnsembleConfig(ImportConfig):
    """An ensemble rule: one of our own by its bare name, or any import."""

    @classmethod
    def read_target(cls, text: str) -> str:
        if text in ENSEMBLE_RULES:
            return f"actors.ensemble:{text}"
        try:
            return super().read_target(text)
        except ValueError:
            rules = ", ".join(ENSEMBLE_RULES)
            hint = did_you_mean(text, ENSEMBLE_RULES)
            raise ValueError(f"expected {rules} or 'module:attribute', got {text!r}{hint}") from None


def or_string(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a section that may also be written as a bare string."""
    return {"anyOf": [{"type": "string"}, dict(schema)]}


class InputConfig(Section):
    """How a model wants its input; what is left out stays as the data has it."""

    name: Key = "image"
    """Which of the data's named inputs the model takes."""
    size: PositiveInt | None = None
    """Height and width that images are resized to; null: the data's."""
    channels: PositiveInt | None = None
    """1 averages colours, 3 repeats grey; null: the data's."""
    mean: Numbers = (0.0,)
    """Of pixels in 0 .. 1; one number, or one per channel."""
    std: Numbers = (1.0,)
    """Of pixels in 0 .. 1; one number, or one per channel."""

    @field_validator("mean", "std")
    @classmethod
    def _one_per_channel(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        channels = info.data.get("channels")
        if channels and len(values) not in (1, channels):
            raise ValueError(f"expected 1 or {channels} numbers (channels: {channels}), got {len(values)}")
        if info.field_name == "std" and min(values) <= 0:
            raise ValueError(f"expected positive numbers, got {min(values)}")
        return values

    def spec(self) -> InputSpec:
        return InputSpec(self.name, self.size, self.channels, self.mean, self.std)


class ResourcesConfig(Section):
    """What one replica or one worker takes of the cluster."""

    num_cpus: NaturalFloat = 1.0
    """CPU cores, and threads of torch."""
    num_gpus: Gpus = 0.0
    """GPUs; a fraction shares one."""
    custom: dict[Text, NaturalFloat] = Field(default_factory=dict)
    """Amounts of the cluster's custom resources by name."""

    def spec(self) -> Resources:
        return Resources(self.num_cpus, self.num_gpus, self.custom)


class DataConfig(Section):
    """Datasets, disjoint slices of the training set, views. `batch_size` is over all workers."""

    seed: NaturalInt = 0
    """Of slices, views and teachers: other student seeds reuse the teachers."""
    train: ImportConfig
    """A map-style dataset of (image, label); the slices are cut from it."""
    test: ImportConfig
    """The dataset on which everything is scored at the end."""
    slices: dict[Key, PositiveInt] = Field(min_length=1)
    """Numbers of samples by name; seeded and disjoint."""
    validation: Text = "validation"
    """The name of the slice on which every epoch is scored."""
    views: ImportConfig = ImportConfig(target="actors.views:plain")
    """The augmentation: (dataset, sample_id, generator) -> (pixels, label)."""
    evaluation_view: ImportConfig = ImportConfig(target="actors.views:plain")
    """The view under which validation and test are scored."""
    num_views: NumViews = "fresh"
    """Augmentation draws per sample: epoch e uses draw e mod num_views; `fresh`: a new one each epoch."""
    batch_size: PositiveInt = 128
    """Over all workers."""

    def spec(self) -> DataSpec:
        return DataSpec(
            train=self.train.spec(),
            test=self.test.spec(),
            slices=self.slices,
            seed=self.seed,
            views=self.views.spec(),
            evaluation_view=self.evaluation_view.spec(),
            num_views=None if self.num_views == "fresh" else self.num_views,
        )


class RampConfig(Section):
    """A weight that goes from the first number to the second over so many epochs, then stays."""

    ramp: Annotated[tuple[Number, Number], expects("a list of two numbers")]
    """The first and the last weight."""
    epochs: PositiveInt
    """How many epochs the way takes."""


class TapPairConfig(Section):
    """Which of the student's taps learns from which of the teacher's; or two from two, as `fsp_loss` has it."""

    student: Taps
    """A name in the taps of the one who learns, or two."""
    teacher: Taps
    """A name in the taps of its teachers, or as many as of the student."""

    @model_validator(mode="after")
    def _as_many(self) -> TapPairConfig:
        if isinstance(self.student, str) != isinstance(self.teacher, str):
            raise ValueError(f"expected as many taps of student and teacher, got {self.student!r} and {self.teacher!r}")
        return self

    def spec(self) -> TapPair:
        return TapPair(self.student, self.teacher)


class StoreConfig(Section):
    """What teachers have said is kept, and read where it is asked for again; `true` for the whole section: as it is by
    default."""

    folder: StoragePlace | None = None
    """Where it is kept, for all runs that name the same; null: store/ in the storage folder."""
    encoding: EncodingName = "int8"
    """How numbers are kept: float32, float16, bfloat16, or as 65,536 or 256 levels from each row's smallest to its
    largest (int16, int8). The student hears them as they are kept, also when they are new."""
    encodings: dict[Key, EncodingName] = Field(default_factory=dict)
    """The same for single taps, by name, and for `logits`."""

    @classmethod
    def expanded(cls, value: Any) -> Any:
        """`true` and `false` as they may stand for the section."""
        return ({} if value else None) if isinstance(value, bool) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, handler(core)]}


class TrackingConfig(Section):
    """Where MLflow keeps what a run tells it."""

    uri: TrackingUri | None = None
    """A tracking server or database; null: that of MLFLOW_TRACKING_URI, else sqlite in the storage folder (in `runs`
    here, where that is a bucket)."""
    send: Flag = True
    """false: kept beside the run alone; `collegium sync` may send it later."""
    registered_as: Text | None = None
    """The registered model that the student becomes a version of."""
    alias: Key | None = None
    """The alias that this version gets, `champion` say."""

    @model_validator(mode="after")
    def _alias_of_something(self) -> TrackingConfig:
        if self.alias is not None and self.registered_as is None:
            raise ValueError("an alias belongs to a registered model and would be ignored; give registered_as too")
        return self
