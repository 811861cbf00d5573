"""Models in MLflow: written by `save_mlflow_model`, logged to a run that is there, registered, and read again by
`fetch_registered_weights`, which unpickles nothing.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.tracking.client import alone, connect, set_defaults
from orchestrator.tracking.delivery import reason, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from torch import Tensor, nn

WEIGHTS_IN_MODEL = "student.safetensors"
SUFFIX = ".safetensors"
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}


@dataclass(frozen=True)
class FetchedWeights:
    """`path`: the file here; `uri`: of the very version, `models:/name/3`."""

    path: str
    uri: str


def save_mlflow_model(model: nn.Module, example: Tensor, weights_file: str, folder: str) -> None:
    """Writes `model`, for the CPU, as an MLflow model (a graph by torch.export, no pickle) with its safetensors file.

    `example`: two or more rows of what it takes; with one the number of rows would be fixed.

    Raises:
        ValueError: it does not take the example, or torch.export cannot trace it.
    """
    set_defaults()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from mlflow import __version__ as mlflow_version
        from mlflow.models import infer_signature
        from mlflow.pytorch import save_model

        aside = Path(f"{folder}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            own, rows = copy.deepcopy(model).cpu().eval(), example.detach().cpu()
            with torch.no_grad():
                answer = own(rows)
            save_model(
                own,
                str(aside),
                signature=infer_signature(rows.numpy(), answer.numpy()),
                input_example=rows.numpy(),
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow_version}"],
                serialization_format="pt2",
            )
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise ValueError(
                f"student.model: expected a model that torch.export can trace, got {type(model).__name__}: "
                f"{reason(error)}; its weights are in {weights_file}"
            ) from error
    shutil.copyfile(weights_file, aside / WEIGHTS_IN_MODEL)
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)


def logged_model(client: MlflowClient, experiment: str, run_id: str, name: str) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput

    query = f"source_run_id = '{run_id}' AND name = '{name}'"
    found = list(client.search_logged_models([experiment], query))
    model = found[0] if found else client.create_logged_model(experiment, name, run_id)
    outputs = client.get_run(run_id).outputs
    if not outputs or model.model_id not in [output.model_id for output in outputs.model_outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def upload_model(client: MlflowClient, model: LoggedModel, run_id: str, folder: Path) -> None:
    from mlflow.models import Model

    client.log_model_artifacts(model.model_id, str(folder))
    described = Model.load(str(folder))
    described.model_id, described.run_id, described.artifact_path = model.model_id, run_id, model.artifact_location
    with tempfile.TemporaryDirectory() as aside:
        described.save(os.path.join(aside, "MLmodel"))
        client.log_model_artifact(model.model_id, os.path.join(aside, "MLmodel"))
    client.finalize_logged_model(model.model_id, "READY")


def register(client: MlflowClient, model: LoggedModel, run_id: str, name: str, alias: str | None) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = [one for one in client.search_model_versions(f"run_id = '{run_id}'") if one.name == name]
    version = (
        versions[0]
        if versions
        else client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)
    )
    if alias:
        client.set_registered_model_alias(name, alias, version.version)


def fetch_registered_weights(uri: str, tracking_uri: str, into: str, where: str = "checkpoint") -> FetchedWeights:
    """The safetensors file of a registered model, kept in `into` by name and version.

    `uri`: `models:/name@alias` or `models:/name/3`.

    Raises:
        ValueError: no such model, alias or version, no safetensors file in it, or the server is not there.
    """
    from mlflow.exceptions import MlflowException

    with alone(tracking_uri):
        client = connect(tracking_uri)
    try:
        version = _version(client, uri, where)
        source = _source(client, version)
    except MlflowException as error:
        shown = without_password(tracking_uri)
        if error.error_code not in ABSENT:
            raise ValueError(f"{where}: {uri} cannot be read from {shown}: {reason(error)}; is it running?") from error
        raise ValueError(
            f"{where}: expected a registered model, found no {uri} at {shown} ({reason(error)}); "
            "check the name and the alias or version"
        ) from error
    resolved = f"models:/{version.name}/{version.version}"
    kept = Path(into, f"{version.name}-{version.version}-{hashlib.sha256(source.encode()).hexdigest()[:8]}{SUFFIX}")
    if not kept.is_file():
        _download(source, tracking_uri, kept, f"{where}: {resolved}")
    return FetchedWeights(str(kept), resolved)


def _version(client: MlflowClient, uri: str, where: str) -> ModelVersion:
    parts = MODEL_URI.fullmatch(uri)
    if parts is None:
        raise ValueError(f"{where}: expected models:/NAME@ALIAS or models:/NAME/VERSION, got {uri!r}")
    if parts["alias"]:
        return client.get_model_version_by_alias(parts["name"], parts["alias"])
    return client.get_model_version(parts["name"], parts["version"])


def _source(client: MlflowClient, version: ModelVersion) -> str:
    """Where its files lie. One that was registered from a logged model may only name that."""
    source = client.get_model_version_download_uri(version.name, version.version)
    if source.startswith("models:/"):
        return client.get_logged_model(source.removeprefix("models:/")).artifact_location
    return source


def _download(source: str, tracking_uri: str, kept: Path, where: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source, tracking_uri=tracking_uri)
    try:
        files = _weights_files(repository)
        named = [file for file in files if Path(file).name == WEIGHTS_IN_MODEL] or files
        if not files:
            raise ValueError(
                f"{where}: its weights are not safetensors; nothing of it was unpickled; "
                f"log the weights as {WEIGHTS_IN_MODEL}"
            )
        if len(named) > 1:
            raise ValueError(f"{where}: expected one file of weights, got {', '.join(named)}; leave one")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetched-") as aside:
            Path(repository.download_artifacts(named[0], dst_path=aside)).replace(kept)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{where}: its files cannot be read from {source} ({reason(error)})") from error


def _weights_files(repository: ArtifactRepository, folder: str | None = None) -> list[str]:
    found: list[str] = []
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            found += _weights_files(repository, entry.path)
        elif entry.path.endswith(SUFFIX):
            found.append(entry.path)
    return sorted(found)
