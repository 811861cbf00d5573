"""One entry of `losses`: a loss, what it compares, its weight and whom it listens to.

`loss: {target, kwargs}`, as imports are written elsewhere, is read as `loss: target` with `kwargs` beside it: one path,
`losses.soft.kwargs.temperature`, for files, overrides, errors and searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from actors.specs import ImportSpec, LossSpec, TapPair, WeightSpec
from orchestrator.fields import Names, Number, PositiveInt, Section, expects
from orchestrator.problems import ConfigError, unknown
from orchestrator.sections import EnsembleConfig, ImportConfig, RampConfig, TapPairConfig

IMPORT_KEYS = tuple(ImportConfig.model_fields)


def _weight_tag(value: Any) -> str:
    return "(ramp)" if isinstance(value, (Mapping, RampConfig)) else "(number)"


def _on_tag(value: Any) -> str:
    return "(tap pair)" if isinstance(value, (Mapping, TapPairConfig)) else "(word)"


_Scalar = Annotated[Number, expects("a number or {ramp: [from, to], epochs: n}")]
_Word = Annotated[Literal["labels", "logits"], expects("labels, logits or {student: a tap, teacher: a tap}")]
Weight = Annotated[
    Annotated[_Scalar, Tag("(number)")] | Annotated[RampConfig, Tag("(ramp)")], Discriminator(_weight_tag)
]
Compared = Annotated[
    Annotated[_Word, Tag("(word)")] | Annotated[TapPairConfig, Tag("(tap pair)")], Discriminator(_on_tag)
]
_NESTED = {
    "type": "object",
    "properties": {"target": {"type": "string"}, "kwargs": {"type": "object"}},
    "required": ["target"],
    "additionalProperties": False,
}
Loss = Annotated[
    str, AfterValidator(ImportConfig.read_target), WithJsonSchema({"anyOf": [{"type": "string"}, _NESTED]})
]


class LossConfig(Section):
    """Without `teachers` it listens to the rung above. On labels, to none: the last six keys stay null."""

    loss: Loss
    """A pure function of (student, teacher) tensors, or of (student, labels), as `module:attribute`."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """The loss's keyword arguments, such as its temperature."""
    on: Compared
    """What it compares: logits with labels, logits with teachers' logits, or two taps."""
    weight: Weight = 1.0
    """A number, or a ramp over epochs; a loss whose weight is always 0 is dropped."""
    teachers: Names | None = None
    """Whom it listens to; null: the rung above."""
    ensemble: EnsembleConfig | None = None
    """How several teachers become one target; null: mean_losses."""
    connector: ImportConfig | None = None
    """A module (student shape, teacher shape) -> nn.Module; null: chosen by the shapes."""
    top_k: PositiveInt | None = None
    """Of a loss on logits: the k largest of each teacher's are heard, and the mass of the others; null: all."""
    rest: Literal["spread", "bucket", "ignore"] | None = None
    """With `top_k`: what becomes of the others. `spread`: they share their mass evenly; `bucket`: they are one class
    more, of the student too; `ignore`: left out, on both sides. null: spread."""
    reduce: Literal["teacher", "student"] | None = None
    """Where the teacher's side is reduced, by `top_k` or by the `phi` that the loss declares; null: at the teacher, so
    that less travels."""

    @model_validator(mode="before")
    @classmethod
    def _default_rule(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("on") != "labels" and value.get("ensemble") is None:
            return {**value, "ensemble": "mean_losses"}
        return value

    def listeners(self, default_teachers: Sequence[str]) -> tuple[str, ...]:
        """The names of the teachers whose knowledge this loss needs."""
        return () if self.on == "labels" else self.teachers or tuple(default_teachers)

    @property
    def is_dropped(self) -> bool:
        """Whether its weight is 0 all through: it is not computed, and asks nothing of its teachers."""
        return self._weight().is_zero

    def spec(self, name: str, default_teachers: Sequence[str], section: str = "losses") -> LossSpec:
        spec = LossSpec(
            name=name,
            loss=ImportSpec(self.loss, self.kwargs),
            on=self._on(),
            weight=self._weight(),
            teachers=self.listeners(default_teachers),
            connector=self.connector.spec() if self.connector else None,
            top_k=self.top_k,
            rest=self.rest or "spread",
            reduce=self.reduce,
            section=section,
        )
        return replace(spec, ensemble=self.ensemble.spec()) if self.ensemble else spec

    def _on(self) -> Literal["labels", "logits"] | TapPair:
        return self.on.spec() if isinstance(self.on, TapPairConfig) else self.on

    def _weight(self) -> WeightSpec:
        if isinstance(self.weight, RampConfig):
            return WeightSpec(*self.weight.ramp, self.weight.epochs)
        return WeightSpec(self.weight, self.weight, 0)


def with_flat_losses(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A raw document with every loss in the form that `LossConfig` has."""
    flat = _with_flat(document, "losses")
    assistants = flat.get("assistants")
    if not isinstance(assistants, Mapping):
        return flat
    below = {name: _with_flat(section, f"assistants.{name}.losses") for name, section in assistants.items()}
    return {**flat, "assistants": below}


def _with_flat(section: Any, path: str) -> Any:
    losses = section.get("losses") if isinstance(section, Mapping) else None
    if not isinstance(losses, Mapping):
        return section
    return {**section, "losses": {name: _flat(entry, f"{path}.{name}") for name, entry in losses.items()}}


def _flat(entry: Any, path: str) -> Any:
    loss = entry.get("loss") if isinstance(entry, Mapping) else None
    if not isinstance(loss, Mapping):
        return entry
    strangers = [f"{path}.loss: {unknown(str(key), IMPORT_KEYS, 'key')}" for key in loss if key not in IMPORT_KEYS]
    if strangers:
        raise ConfigError(strangers)
    if "kwargs" in loss and "kwargs" in entry:
        raise ConfigError([f"{path}.loss.kwargs: {path}.kwargs is there too; keep that one"])
    kwargs = {"kwargs": loss["kwargs"]} if "kwargs" in loss else {}
    return {**entry, "loss": loss.get("target"), **kwargs}
