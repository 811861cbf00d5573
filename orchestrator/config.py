"""ExperimentConfig: one YAML document in, checked sections out. Imports no torch, no Ray and no MLflow.

The parts stand in `sections`, `rungs` and `loss_config`; what they must agree on in `cross_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from orchestrator import document
from orchestrator.cross_checks import cross_check
from orchestrator.fields import (
    ExperimentName,
    Key,
    NaturalInt,
    Section,
    StoragePlace,
    TeacherName,
    Timeout,
    each_filled,
)
from orchestrator.loss_config import LossConfig, with_flat_losses
from orchestrator.problems import ConfigError, problems_of, unknown
from orchestrator.rungs import INHERITED, NO_STUDENT, AssistantConfig, StudentConfig, TeacherConfig
from orchestrator.sections import DataConfig, StoreConfig, TrackingConfig

OF_A_POOL = {"answer_timeout_s": 300.0, "inputs": "auto"}
"""Keys that only a pool has, and what they are when left out."""
NAMED = {"teachers": "teacher", "assistants": "assistant", "losses": "loss"}


class ExperimentConfig(Section):
    """A whole experiment. The student stands before the assistants, which inherit from it."""

    name: ExperimentName
    """Its runs lie in <storage>/<name>/."""
    seed: NaturalInt = 0
    """Of the student; the data has its own."""
    storage: StoragePlace = "runs"
    """A folder for runs and trained models: here, or `s3://bucket/prefix`, `gs://bucket/prefix`. Keys come from the
    environment; an endpoint of your own is an option: `?endpoint_override=host:9000&scheme=http`."""
    source: Literal["pool", "local"] = "pool"
    """Where teachers work: a pool of Ray actors, or the student's own process."""
    answer_timeout_s: Timeout | None = Field(default=None, validate_default=True)
    """The longest that one replica's answer, or another replica where none is left, is waited for, in seconds; null:
    300. A replica that is late by its own history is replaced long before."""
    inputs: Literal["auto", "sent", "derived"] | None = Field(default=None, validate_default=True)
    """What a pool is sent: the student's pixels (`sent`), or ids and views, from which every teacher builds the same
    pixels (`derived`); `auto`: what costs less. Null: auto."""
    store: StoreConfig | None = None
    """What teachers have said, kept: `true`, or a section; null or `false`: asked again for each epoch and run."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    data: DataConfig
    """Datasets, slices, views."""
    teachers: dict[TeacherName, TeacherConfig] = Field(min_length=1)
    """By name."""
    student: StudentConfig
    """The model that is wanted."""
    assistants: dict[TeacherName, AssistantConfig] = Field(default_factory=dict)
    """Rungs between teachers and student, largest first; each is taught by the one above."""
    losses: dict[Key, LossConfig] = Field(min_length=1)
    """By name; the criterion is their weighted sum."""

    @field_validator(*OF_A_POOL)
    @classmethod
    def _only_of_a_pool(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        if info.data.get("source") != "local":
            return OF_A_POOL[str(info.field_name)] if value is None else value
        if value is not None:
            raise ValueError("only a pool has this, and there is none (source: local); leave it out")
        return None

    @field_validator("store", mode="before")
    @classmethod
    def _expand_store(cls, value: Any) -> Any:
        return StoreConfig.expanded(value)

    @field_validator("teachers", mode="before")
    @classmethod
    def _fill_training(cls, teachers: Any, info: ValidationInfo) -> Any:
        data = info.data.get("data")
        defaults = {"batch_size": data.batch_size, "seed": data.seed} if data else {"batch_size": 1, "seed": 0}
        if not isinstance(teachers, Mapping):
            return teachers
        return {name: _with_training(teacher, defaults) for name, teacher in teachers.items()}

    @field_validator("assistants", mode="before")
    @classmethod
    def _fill_assistants(cls, assistants: Any, info: ValidationInfo) -> Any:
        student = info.data.get("student")
        defaults = {name: getattr(student, name) for name in INHERITED} if student else NO_STUDENT
        return each_filled(assistants, defaults)

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        problems = cross_check(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The experiment in a file, after overrides (`student.epochs=3`). Raises ConfigError."""
        raw = with_flat_losses(document.read(path))
        for text in overrides:
            _refuse_strangers(raw, text)
            raw = document.override(raw, [text])
        return cls.from_document(raw, origin=str(path))

    @classmethod
    def from_document(cls, raw: Mapping[str, Any], origin: str = "") -> Self:
        """The experiment in plain data. Raises ConfigError, a line per problem."""
        try:
            return cls.model_validate(with_flat_losses(raw))
        except ValidationError as error:
            raise ConfigError(problems_of(error, cls), origin) from None

    def to_yaml(self) -> str:
        """The whole config, every default filled in; it loads again to an equal one."""
        return document.dump(self.model_dump())

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """For editors: what a document may look like (the cross checks are not in it)."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}

    def teachers_of(self, rung: str) -> tuple[str, ...]:
        """Who teaches a rung by default: the rung above; all teachers, where that is the top."""
        above = [*self.assistants, "student"]
        index = above.index(rung)
        return (above[index - 1],) if index else tuple(self.teachers)

    def losses_path(self, rung: str) -> str:
        """The key of the losses that a rung learns by: its own or the experiment's."""
        return "losses" if self.losses_of(rung) is self.losses else f"assistants.{rung}.losses"

    def losses_of(self, rung: str) -> Mapping[str, LossConfig]:
        own = self.assistants[rung].losses if rung in self.assistants else None
        return self.losses if own is None else own


def _refuse_strangers(raw: Mapping[str, Any], override: str) -> None:
    """An override within a teacher, an assistant or a loss that is not there would begin another, half of one."""
    section, _, below = override.partition("=")[0].strip().partition(".")
    name, dot, _ = below.partition(".")
    known = raw.get(section)
    if section in NAMED and dot and isinstance(known, Mapping) and name not in known:
        raise ConfigError([f"override {override!r}: {unknown(name, known, NAMED[section])}"])


def _with_training(teacher: Any, defaults: Mapping[str, Any]) -> Any:
    train = teacher.get("train") if isinstance(teacher, Mapping) else None
    if not isinstance(train, Mapping):
        return teacher
    absent = {key: value for key, value in defaults.items() if train.get(key) is None}
    return {**teacher, "train": {**train, **absent}}
