"""What an experiment found: `ExperimentResult`, written as `result.json` (docs/result.md says what each key means)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from actors.serving import POOL_FILE
from actors.storage import Folder
from actors.store.passes import PASSES, summed

CONFIG_FILE = "config.yaml"
RESULT_FILE = "result.json"
STUDENT_FILE = "student.safetensors"
REPORT_FILE = "report.html"
DROPPED_FILE = "dropped.json"
"""In a rung's folder, if it lost teachers and went on without them."""


@dataclass(frozen=True)
class ModelResult:
    """One model, or the ensemble, on the test set. `cross_entropy` in nats; `samples`: the test rows whose class it
    knows; `ece`: the expected calibration error over the bins of `reliability`; `flops`: of one image; `latency_ms`: by
    size of the batch, on one CPU thread, None where it does not run there.
    """

    name: str
    role: Literal["teacher", "ensemble", "assistant", "alone", "student"]
    accuracy: float
    cross_entropy: float
    parameters: int
    samples: int
    ece: float
    per_class: list[float | None]
    reliability: list[dict[str, float]]
    bytes_on_disk: int
    flops: int | None
    latency_ms: dict[str, float] | None
    weights: str | None = None


@dataclass(frozen=True)
class RungResult:
    """How a rung was trained. `shares`: of the seconds of worker 0; `bytes_per_sample`: knowledge received; `pool`:
    what its pool.json says, None where no pool served it; `passes`: rows asked of each teacher, read from the store,
    computed, written into it; `unwritten`: why writing ended, if it did; `dropped`: the cause by teacher that was lost
    on the way: the rung is not what all of its teachers would have made.
    """

    name: str
    role: str
    seconds: dict[str, float]
    shares: dict[str, float]
    images_per_s: float
    bytes_per_sample: float
    teachers: dict[str, str]
    history: list[dict[str, Any]]
    reused: bool
    pool: dict[str, Any] | None
    passes: dict[str, dict[str, int]]
    unwritten: str
    dropped: dict[str, str]


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one run. `folder` holds the resolved config, the student and this as JSON; `store`: where what
    teachers said is kept, and in which encodings, None if it is not."""

    name: str
    seed: int
    folder: str
    models: tuple[ModelResult, ...]
    rungs: tuple[RungResult, ...]
    wall_s: float
    store: dict[str, Any] | None
    test_samples: int
    classes: list[str]
    agreement: dict[str, Any]
    against_alone: dict[str, int] | None
    contributions: list[dict[str, Any]]
    disagreements: list[dict[str, Any]]

    def model(self, role: str) -> ModelResult:
        """The one model of a role such as `student`, `alone` or `ensemble`."""
        return next(model for model in self.models if model.role == role)

    @property
    def student_file(self) -> str:
        return Folder(self.folder).file(STUDENT_FILE)

    @property
    def result_file(self) -> str:
        return Folder(self.folder).file(RESULT_FILE)

    @property
    def report_file(self) -> str:
        return Folder(self.folder).file(REPORT_FILE)

    def save(self) -> None:
        Folder(self.folder).write(RESULT_FILE, json.dumps(asdict(self), indent=1).encode())


def read_dropped(rung: Folder) -> dict[str, str]:
    """The teachers that a rung lost and went on without, each with the cause."""
    return json.loads(rung.read(DROPPED_FILE)) if rung.has(DROPPED_FILE) else {}


def shown_cause(cause: str) -> str:
    """Of a traceback the line that matters."""
    return cause.strip().splitlines()[-1]


def read_pool(rung: Folder) -> dict[str, Any] | None:
    """What the pool left in a rung's folder; None where there was none."""
    return json.loads(rung.read(POOL_FILE)) if rung.has(POOL_FILE) else None


def read_passes(rung: Folder) -> tuple[dict[str, dict[str, int]], str]:
    """What its workers say in the rung's folder of all that they asked; and why writing ended, if it did."""
    told = [json.loads(rung.read(name)) for name in rung.names() if name.startswith(PASSES)]
    ended = [one["writing_ended"] for one in told if one["writing_ended"]]
    return summed([one["teachers"] for one in told]), ended[0] if ended else ""
