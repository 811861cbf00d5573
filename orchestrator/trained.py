"""Rungs that are trained, and where they are found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.fingerprints import dataset_fingerprint
from actors.specs import StoreSpec, TeacherSpec
from actors.storage import Folder
from actors.training import OUTCOME_FILE, WEIGHTS_FILE
from actors.views import MapDataset
from orchestrator.checking import Findings
from orchestrator.config import ExperimentConfig
from orchestrator.fields import MODELS_FOLDER
from orchestrator.identity import rung_key
from orchestrator.ladder import Rung, ladder
from orchestrator.storing import encodings_of

KEY_FILE = "key"


class CannotResume(ValueError):
    """A run that was begun under something else."""


@dataclass(frozen=True)
class Trained:
    """A rung that is done. `reused`: an earlier run had trained the same."""

    rung: Rung
    folder: Folder
    outcome: Mapping[str, Any]
    reused: bool

    @property
    def weights(self) -> str:
        return self.folder.file(WEIGHTS_FILE)


def refuse_other_rung(folder: Folder, key: str, name: str) -> None:
    """Marks a rung's folder with its key; raises ValueError where it was begun under another."""
    if not folder.has(KEY_FILE):
        folder.write(KEY_FILE, key.encode())
    begun = folder.read(KEY_FILE).decode()
    if begun != key:
        raise CannotResume(
            f"resume: {name} was begun as {begun}, it would go on as {key}: its data, recipe, teachers or code "
            "(Collegium's, yours, or a package's version) have changed; start a new run"
        )


def read_trained(rung: Rung, folder: Folder, *, reused: bool) -> Trained:
    return Trained(rung, folder, json.loads(folder.read(OUTCOME_FILE)), reused)


def models_folder(config: ExperimentConfig) -> Folder:
    """Where all runs find what another has trained."""
    return Folder.at(config.storage) / MODELS_FOLDER


def found_trained(
    config: ExperimentConfig, findings: Findings, dataset: MapDataset, store: StoreSpec | None
) -> dict[str, TeacherSpec]:
    """All who teach, with their weights. Raises ValueError where one is not trained yet."""
    data, models = config.data.spec(), models_folder(config)
    fingerprint, found = dataset_fingerprint(dataset, data), dict(findings.teachers)
    rungs = ladder(config)
    teaching = {name for rung in rungs for name in rung.teachers}
    for rung in rungs:
        if rung.name in teaching:
            spec = rung.spec(data, config.data.validation, findings.num_classes, found)
            model = models / rung_key(spec, dataset, fingerprint, encodings_of(store))
            if not model.has(OUTCOME_FILE):
                raise ValueError(f"{rung.where}: it is not trained yet, so the store has nothing of it; run first")
            found[rung.name] = replace(found[rung.name], weights=model.file(WEIGHTS_FILE))
    return found
