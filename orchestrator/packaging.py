"""The student as an MLflow model, made in a Ray task: the driver holds no tensors."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from actors.data import SharedDataset, evaluation_rows
from actors.inputs import prepare
from actors.predictions import TrainedModel
from actors.specs import DataSpec
from actors.storage import Folder, local_file
from orchestrator.trees import write_tree

MODEL_FOLDER = "mlflow-model"
EXAMPLE_ROWS = 2


class Packaging:
    """Writes the model into the run's folder while others work."""

    def __init__(self, student: TrainedModel, dataset: ray.ObjectRef, data: DataSpec, folder: Folder) -> None:
        packaging: Any = ray.remote(_package)
        self._done = packaging.remote(student, dataset, data, folder)

    def wait(self) -> str:
        """Why there is no model, or nothing."""
        try:
            ray.get(self._done)
        except RayError as error:
            return str(error.cause if isinstance(error, RayTaskError) else error)
        return ""


def _package(student: TrainedModel, dataset: SharedDataset, data: DataSpec, folder: Folder) -> None:
    from orchestrator.tracking.models import save_mlflow_model

    test = dataset.open()
    rows = evaluation_rows(test, data)
    first = np.arange(EXAMPLE_ROWS) % len(test)
    inputs, _ = rows.build(first, np.zeros(EXAMPLE_ROWS, dtype=np.int32))
    example = prepare(inputs, student.model.input, student.name)
    weights = local_file(student.weights)
    if not folder.is_remote:
        save_mlflow_model(student.load(), example, weights, folder.file(MODEL_FOLDER))
        return
    with tempfile.TemporaryDirectory() as aside:
        save_mlflow_model(student.load(), example, weights, os.path.join(aside, MODEL_FOLDER))
        write_tree(Path(aside, MODEL_FOLDER), folder / MODEL_FOLDER)
