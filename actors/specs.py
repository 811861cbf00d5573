"""What the worker side is told: frozen dataclasses, standard library only.

`ImportSpec` names any extension point; `InputSpec` and `ModelSpec` describe a model; `DataSpec` the data;
`TeacherSpec`, `LossSpec` and `StudentSpec` what a teacher, a loss and a training rung need. Nothing here imports
torch or Ray.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Shape = tuple[int, ...]
Precision = Literal["fp32", "bf16", "fp16"]
EncodingName = Literal["float32", "float16", "bfloat16", "int16", "int8"]
SCHEDULE_LENGTHS = ("total_steps", "T_max")
"""What torch's schedulers call the number of times that they will be stepped; filled in where it is left out."""

ENSEMBLE_RULES = (
    "mean_losses",
    "mean_logits",
    "mean_probabilities",
    "confidence",
    "entropy",
    "random",
    "label_routing",
    "learned",
)
"""Our own ensemble rules: names in `actors.ensemble`."""
RULE_ARGUMENTS = ("targets", "shares", "temperature", "teachers", "classes", "everyone", "labels", "logits", "dice")
"""What an ensemble rule may ask for by name; `actors.ensemble` says what each is."""
ANSWERS_FILE = "predictions.parquet"
"""In a run's folder: every model's answers on the test set."""
PARTNERS = "partners"
"""The argument by which a view asks for the ids of its sample's slice."""
FIXED_WEIGHTS = "weights"
"""The key in an ensemble rule's kwargs from which its `shares` come."""


@dataclass(frozen=True)
class ImportSpec:
    """A `module:attribute` and the keyword arguments it is called with."""

    target: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> Any:
        module, _, attribute = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
        return found

    def build(self, *args: Any, **more: Any) -> Any:
        return self.resolve()(*args, **{**self.kwargs, **more})


@dataclass(frozen=True)
class Resources:
    """What one replica or one student worker takes of the cluster."""

    num_cpus: float = 1
    num_gpus: float = 0
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        return max(1, int(self.num_cpus))


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its input; `None` keeps what the data has. `mean` and `std` are of pixels in 0..1."""

    name: str = "image"
    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class ModelSpec:
    """A model by import path, the input it takes and its taps: name -> module path."""

    model: ImportSpec
    input: InputSpec = InputSpec()
    taps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """Datasets, seeded disjoint slices of the training set, and views. `num_views=None`: a fresh view every epoch."""

    train: ImportSpec
    test: ImportSpec
    slices: Mapping[str, int]
    seed: int = 0
    views: ImportSpec = ImportSpec("actors.views:plain")
    evaluation_view: ImportSpec = ImportSpec("actors.views:plain")
    num_views: int | None = None


@dataclass(frozen=True)
class TeacherSpec:
    """One teacher. `weights` is a file; `class_map[j]` is the data's class that output j stands for.

    `shapes`: of its logits and of the feature at each tap, `input_shape`: of what its model is given; all without the
    rows. `compile`: a backend of torch.compile. `replicas`: at first, and the fewest; `most_replicas`: to which the
    pool may grow (None: it does not). `actor`: teachers of one name live in the same actors. `may_be_dropped`: a rung
    goes on without it once it is lost.
    """

    name: str
    model: ModelSpec
    weights: str
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    class_map: tuple[int, ...] | None = None
    chunk: int = 32
    threads: int = 1
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: str | None = None
    input_shape: Shape = ()
    replicas: int = 1
    most_replicas: int | None = None
    resources: Resources = Resources()
    actor: str | None = None
    may_be_dropped: bool = False

    @property
    def host(self) -> str:
        """What its replicas are called."""
        return self.actor or self.name


@dataclass(frozen=True)
class WeightSpec:
    """A loss weight: goes from `start` to `end` in a straight line over the first `epochs` epochs, then stays."""

    start: float = 1.0
    end: float = 1.0
    epochs: int = 0

    def at(self, epoch: int) -> float:
        if epoch >= self.epochs:
            return self.end
        return self.start + (self.end - self.start) * epoch / self.epochs

    @property
    def is_zero(self) -> bool:
        return self.start == self.end == 0

    @property
    def turns(self) -> set[int]:
        """Epochs among which there is one of weight 0 where there is any: the first, the last of the ramp, and where
        the ramp crosses 0."""
        crossing = self.epochs * self.start / (self.start - self.end) if self.start * self.end < 0 else 0
        return {0, self.epochs, round(crossing)}


@dataclass(frozen=True)
class TapPair:
    """Which student tap learns from which teacher tap; or two taps of each, for a loss on how two layers relate."""

    student: str | tuple[str, str]
    teacher: str | tuple[str, str]

    @property
    def student_taps(self) -> tuple[str, ...]:
        return (self.student,) if isinstance(self.student, str) else self.student

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


@dataclass(frozen=True)
class LossSpec:
    """One weighted loss of a criterion and whom it listens to. `teachers` is empty for a loss on labels.

    `top_k`: of each teacher's logits it hears the largest alone, and the mass of the others. `rest`: what becomes of
    that mass: `spread` evenly over the others, one `bucket` for all of them, or `ignore`. `reduce`: where the
    teacher's side is reduced to these, or by the phi that the loss declares; None: at the teacher. `section`: the
    config key of the losses that it is one of.
    """

    name: str
    loss: ImportSpec
    on: Literal["labels", "logits"] | TapPair
    weight: WeightSpec = WeightSpec()
    teachers: tuple[str, ...] = ()
    ensemble: ImportSpec = ImportSpec("actors.ensemble:mean_losses")
    connector: ImportSpec | None = None
    top_k: int | None = None
    rest: Literal["spread", "bucket", "ignore"] = "spread"
    reduce: Literal["teacher", "student"] | None = None
    section: str = "losses"

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What of a teacher it is computed from: `logits` or taps; nothing for a loss on labels."""
        if isinstance(self.on, TapPair):
            return self.on.teacher_taps
        return () if self.on == "labels" else (self.on,)


@dataclass(frozen=True)
class RecipeSpec:
    """How a model is trained. `batch_size` is over all workers; the scheduler steps once per `scheduler_every`; `ema`:
    the decay of an average of its weights, which is then what is evaluated and exported."""

    epochs: int
    batch_size: int
    seed: int
    optimizer: ImportSpec
    scheduler: ImportSpec | None = None
    scheduler_every: Literal["epoch", "step"] = "epoch"
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every_steps: int | None = None
    ema: float | None = None


@dataclass(frozen=True)
class StoreSpec:
    """Where knowledge is kept, and what finds it beside the request. `encoding`: how numbers lie there, and by tap (or
    `logits`) in `encodings`; `data`: what pixels depend on; `judges`: what each teacher's answers depend on, its
    `weights` by their hash."""

    folder: str
    encoding: EncodingName = "int8"
    encodings: Mapping[str, EncodingName] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudentSpec:
    """Everything a training rung needs: a student, an assistant, or a teacher that is trained here.

    `window`: batches under way at the teachers; None: as many as it takes.
    `rows_per_epoch`: the labelled rows are repeated to so many; None: each row once. `dropped`: teachers that were lost
    on the way; nobody asks them.
    """

    name: str
    model: ModelSpec
    recipe: RecipeSpec
    data: DataSpec
    labelled: str
    unlabelled: str | None
    validation: str
    num_classes: int
    losses: tuple[LossSpec, ...]
    teachers: tuple[TeacherSpec, ...] = ()
    num_workers: int = 1
    resources: Resources = Resources()
    window: int | None = None
    rows_per_epoch: int | None = None
    dropped: tuple[str, ...] = ()

    @property
    def teacher_names(self) -> tuple[str, ...]:
        return tuple(teacher.name for teacher in self.teachers)
