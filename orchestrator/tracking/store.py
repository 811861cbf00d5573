"""One run of ours in a tracking store: `Store` finds it, or makes it, and takes events."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from actors.storage import Folder
from orchestrator.tracking.client import METRICS_AT_ONCE, PARAMS_AT_ONCE, allowed_name, alone, chunks, connect
from orchestrator.tracking.delivery import Refused, reason
from orchestrator.tracking.journal import Ended, Event, Kept, Measured, Modelled, RunRecord, Started
from orchestrator.tracking.models import logged_model, register, upload_model
from orchestrator.trees import fetch

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "collegium.run"
RUNG_TAG = "collegium.rung"
PARENT_TAG = "mlflow.parentRunId"
LONGEST_PARAM = 6000
LONGEST_TAG = 8000


class Store:
    """One experiment's run and its rungs' runs in a store; found again by our own tags."""

    def __init__(self, record: RunRecord, uri: str, run_folder: Folder) -> None:
        self._record = record
        self._folder = run_folder
        with alone(uri):
            self._client = connect(uri)
            self._experiment = _experiment(self._client, record, uri)
        self._runs = _runs(self._client, self._experiment, record.id)

    @property
    def is_empty(self) -> bool:
        """Whether it knows nothing of this run."""
        return not self._runs

    def send(self, group: Sequence[Event], *, compare: bool) -> None:
        """Raises Refused for what can never be sent, anything else where the server is not there.

        `compare`: the server may have some of it already.
        """
        match group[0]:
            case Measured():
                self._measure([event for event in group if isinstance(event, Measured)], compare)
            case Started() as started:
                self._start(started)
            case Kept() as kept:
                self._keep(kept)
            case Modelled() as modelled:
                self._model(modelled)
            case Ended(rung, status, time_ms):
                self._client.set_terminated(self._run(rung), status, end_time=time_ms)

    def _run(self, rung: str | None, time_ms: int | None = None) -> str:
        if rung not in self._runs:
            tags = {RUN_TAG: self._record.id}
            if rung is not None:
                tags |= {RUNG_TAG: rung, PARENT_TAG: self._run(None, time_ms)}
            name = self._record.name if rung is None else rung
            created = self._client.create_run(self._experiment, start_time=time_ms, tags=tags, run_name=name)
            self._runs[rung] = created.info.run_id
        return self._runs[rung]

    def _start(self, event: Started) -> None:
        from mlflow.entities import Param, RunTag

        run_id = self._run(event.rung, event.time_ms)
        run = self._client.get_run(run_id)
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        params = {allowed_name(name): value[:LONGEST_PARAM] for name, value in event.params.items()}
        new = [Param(name, value) for name, value in params.items() if name not in run.data.params]
        tags = [RunTag(allowed_name(name), value[:LONGEST_TAG]) for name, value in event.tags.items()]
        for some in chunks(new, PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=some, synchronous=True)
        for some in chunks(tags, PARAMS_AT_ONCE):
            self._client.log_batch(run_id, tags=some, synchronous=True)

    def _measure(self, events: Iterable[Measured], compare: bool) -> None:
        from mlflow.entities import Metric

        by_run: dict[str, list[Metric]] = {}
        for event in events:
            metrics = by_run.setdefault(self._run(event.rung, event.time_ms), [])
            metrics += [Metric(allowed_name(k), v, event.time_ms, event.step) for k, v in event.values.items()]
        for run_id, metrics in by_run.items():
            there = self._there(run_id, {metric.key for metric in metrics}) if compare else set()
            new = [metric for metric in metrics if (metric.key, metric.step) not in there]
            for some in chunks(new, METRICS_AT_ONCE):
                self._client.log_batch(run_id, metrics=some, synchronous=True)

    def _there(self, run_id: str, keys: Iterable[str]) -> set[tuple[str, int]]:
        return {(key, metric.step) for key in keys for metric in self._client.get_metric_history(run_id, key)}

    def _keep(self, event: Kept) -> None:
        with self._local(event.file) as path:
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(self._run(event.rung), str(path), event.into or None)

    @contextmanager
    def _local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() if self._folder.is_remote else nullcontext("") as aside:
            path = Path(self._folder.path, name)
            try:
                path = fetch(self._folder, name, Path(aside)) if aside else path
            except FileNotFoundError:
                path = Path(aside, name)
            if not path.exists():
                raise Refused(f"{path if not aside else self._folder.file(name)} is not there any more")
            yield path

    def _model(self, event: Modelled) -> None:
        from mlflow.entities import LoggedModelStatus
        from mlflow.exceptions import MlflowException

        run_id = self._run(None)
        with self._local(event.folder) as folder:
            model = logged_model(self._client, self._experiment, run_id, event.name)
            if model.status != LoggedModelStatus.READY:
                upload_model(self._client, model, run_id, folder)
        if event.register:
            try:
                register(self._client, model, run_id, event.register, event.alias)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                raise Refused(f"{event.name} as {event.register!r}: {reason(error)}") from error


def _experiment(client: MlflowClient, record: RunRecord, uri: str) -> str:
    """Its id. Where no server keeps files they lie beside the store, not in the working folder."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(record.experiment)
    if found is None:
        location = None if re.match(r"https?:|databricks", uri) else Path(record.artifacts).as_uri()
        try:
            return client.create_experiment(record.experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(record.experiment)
    if found is None or found.lifecycle_stage != "active":
        raise RuntimeError(f"the MLflow experiment {record.experiment!r} was deleted; restore it")
    return found.experiment_id


def _runs(client: MlflowClient, experiment: str, run: str) -> dict[str | None, str]:
    """By rung. A server that hung may have made one twice, the second time for nothing."""
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000)
    runs: dict[str | None, str] = {}
    for one in sorted(found, key=lambda one: (-len(one.data.params) - len(one.data.metrics), one.info.run_id)):
        if runs.setdefault(one.data.tags.get(RUNG_TAG), one.info.run_id) != one.info.run_id:
            client.delete_run(one.info.run_id)
    return runs
