"""A finished run as its folder records it: result, config and predictions. Imports no torch and no Ray."""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.serving import timeline_file
from actors.specs import ANSWERS_FILE
from actors.storage import Folder
from orchestrator import document
from orchestrator.config import ExperimentConfig
from orchestrator.result import CONFIG_FILE, RESULT_FILE

if TYPE_CHECKING:
    import numpy as np

Values = Mapping[str, Any]

_OF_A_RESULT = ("test_samples", "classes", "agreement", "contributions", "disagreements")
_OF_A_MODEL = ("ece", "bytes_on_disk", "flops", "latency_ms", "per_class", "reliability")
_OF_AN_EPOCH = ("weights",)


@dataclass(frozen=True)
class RecordedRun:
    """What one run left behind. `document`: the plain data of its resolved config."""

    folder: Folder
    result: Values
    document: Values

    @property
    def label(self) -> str:
        """The run among others: the name of its folder."""
        return self.folder.name

    @property
    def models(self) -> Sequence[Values]:
        return self.result["models"]

    def model(self, role: str) -> Values | None:
        """The one model of a role such as `student`, `alone` or `ensemble`."""
        return next((model for model in self.models if model["role"] == role), None)

    @property
    def student(self) -> Values:
        found = self.model("student")
        assert found is not None
        return found

    @property
    def rungs(self) -> Sequence[Values]:
        return self.result["rungs"]

    @property
    def student_rung(self) -> Values:
        return next(rung for rung in self.rungs if rung["role"] == "student")

    @property
    def dropped(self) -> dict[str, dict[str, str]]:
        """By rung, the teachers that it lost and went on without, with the causes."""
        return {rung["name"]: rung["dropped"] for rung in self.rungs if rung.get("dropped")}

    @property
    def lost(self) -> list[str]:
        """The teachers that some rung went on without; none of them was judged."""
        return list(dict.fromkeys(name for dropped in self.dropped.values() for name in dropped))

    @cached_property
    def config(self) -> ExperimentConfig:
        return ExperimentConfig.from_document(self.document, self.folder.file(CONFIG_FILE))

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """The columns of predictions.parquet: `label`, and each model's answers."""
        from pyarrow import parquet

        table = parquet.read_table(self.folder.local(ANSWERS_FILE))
        return {name: table[name].to_numpy() for name in table.column_names}

    def timelines(self, rung: str) -> list[Values]:
        """Who worked when in one epoch of a rung, by rank; none where nobody recorded it."""
        folder = self.folder / "rungs" / rung
        names = fnmatch.filter(folder.names(), timeline_file("*"))
        return [json.loads(folder.read(name)) for name in sorted(names, key=lambda name: (len(name), name))]

    def right(self, model: str) -> np.ndarray:
        """Whether a model is right, per test sample."""
        return self.predictions[model] == self.predictions["label"]


def read_run(folder: str) -> RecordedRun:
    """The run in a folder. Raises ValueError where there is none, an unfinished one, or one without these figures."""
    run = Folder.found_at(folder)
    if not run.has(CONFIG_FILE):
        inside = [name for name in run.folders() if (run / name).has(CONFIG_FILE)]
        way_out = f"; it holds the runs {', '.join(inside)}: give one or several of them" if inside else ""
        there = "found no " + CONFIG_FILE + f" in {folder!r}" if _is_there(run) else f"there is no {folder!r}"
        raise ValueError(f"report: expected the folder of a run, {there}{way_out}")
    if not run.has(RESULT_FILE):
        raise ValueError(
            f"report: {folder}: this run is not finished; go on with: collegium run --resume {shlex.quote(folder)}"
        )
    result = json.loads(run.read(RESULT_FILE))
    absent = _absent(result) if run.has(ANSWERS_FILE) else ANSWERS_FILE
    if absent:
        again = f"collegium run {shlex.quote(run.file(CONFIG_FILE))}"
        raise ValueError(f"report: {folder}: no {absent}: made by an earlier version; run it again: {again}")
    return RecordedRun(run, result, document.read(run.file(CONFIG_FILE)))


def finished_beside(run: RecordedRun) -> list[RecordedRun]:
    """The other runs in the same <storage>/<name>/ that can be read, oldest first."""
    parent = run.folder.parent
    found = []
    for name in parent.folders():
        if name == run.folder.name or not (parent / name).has(RESULT_FILE):
            continue
        try:
            found.append(read_run((parent / name).path))
        except ValueError:
            continue
    return found


def _is_there(folder: Folder) -> bool:
    return bool(folder.names() or folder.folders()) if folder.is_remote else Path(folder.path).is_dir()


def _absent(result: Values) -> str:
    """The first key that a report needs and this result lacks."""
    # A teacher found trained may come from an earlier version: only the student's epochs must have them.
    epochs = [epoch for rung in result["rungs"] if rung["role"] == "student" for epoch in rung["history"]]
    needed = [(_OF_A_RESULT, [result]), (_OF_A_MODEL, result["models"]), (_OF_AN_EPOCH, epochs)]
    return next((key for keys, parts in needed for key in keys if any(key not in part for part in parts)), "")
