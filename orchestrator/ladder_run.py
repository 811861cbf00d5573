"""Trains the rungs of one experiment: each in a thread that waits for its teachers and then on Ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from actors.data import SharedDataset
from actors.fingerprints import dataset_fingerprint
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.progress import ProgressBoard
from actors.serving import POOL_FILE
from actors.specs import TeacherSpec
from actors.storage import Folder
from actors.training import OUTCOME_FILE, WEIGHTS_FILE, TrainJob
from actors.views import MapDataset
from orchestrator.checking import Findings
from orchestrator.config import ExperimentConfig
from orchestrator.fields import MODELS_FOLDER
from orchestrator.identity import file_hash, rung_key
from orchestrator.ladder import Rung, ladder
from orchestrator.launch import train_rung
from orchestrator.live import LiveView
from orchestrator.plan import inputs_of
from orchestrator.result import read_pool
from orchestrator.tracking.journal import FAILED, FINISHED, KILLED, Status
from orchestrator.tracking.telling import epoch_values, rung_params, rung_values
from orchestrator.tracking.tracker import Tracker

POLL_S = 0.25
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


class LadderRun:
    """The rungs of one experiment under way, those that do not need each other side by side."""

    def __init__(
        self, config: ExperimentConfig, findings: Findings, folder: Folder, tracker: Tracker, namespace: str
    ) -> None:
        self.teachers: dict[str, TeacherSpec] = dict(findings.teachers)
        self._config = config
        self._num_classes = findings.num_classes
        self._findings = findings
        self._folder = folder
        self._tracker = tracker
        self._namespace = namespace
        self._models = Folder(str(Path(config.storage).absolute())) / MODELS_FOLDER
        self._data = config.data.spec()
        self._dataset = self._data.train.build()
        self._fingerprint = dataset_fingerprint(self._dataset, self._data)
        self._shared = ray.put(shared(self._dataset, "data.train"))
        self._board: Any = ray.remote(ProgressBoard).options(num_cpus=0).remote()
        self._done: dict[str, Future[Trained]] = {}
        self._pools: list[TeacherPool] = []
        self._told: list[str] = []
        self._ended = False

    def train(self, view: LiveView) -> dict[str, Trained]:
        """Raises what ended the first rung that failed."""
        self._done = {rung.name: Future() for rung in ladder(self._config)}
        view.say(f"starting {', '.join(self._done)}; each waits for its teachers")
        for rung in ladder(self._config):
            threading.Thread(target=self._settle, args=(rung, view), name=rung.name, daemon=True).start()
        try:
            return self._wait(view)
        except BaseException as error:
            self._tell_end(KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
            raise
        finally:
            self._ended = True
            for pool in self._pools:
                pool.stop()
            ray.kill(self._board)

    def _wait(self, view: LiveView) -> dict[str, Trained]:
        while True:
            finished, unfinished = wait(self._done.values(), timeout=POLL_S, return_when=FIRST_EXCEPTION)
            for progress in ray.get(self._board.take.remote()):
                view.update(progress)
                if progress.record is not None:
                    self._tracker.epoch(progress.rung, progress.epoch, epoch_values(progress.record))
            done = {name: future.result() for name, future in self._done.items() if future in finished}
            if not unfinished:
                return done

    def _tell_end(self, status: Status) -> None:
        for name in self._told:
            if not self._done[name].done() or self._done[name].exception() is not None:
                self._tracker.end(name, status)

    def _tell(self, trained: Trained) -> None:
        """All that a rung has to tell, also where it was found trained, or its driver was killed in between."""
        name = trained.rung.name
        for record in trained.outcome["history"]:
            self._tracker.epoch(name, record["epoch"], epoch_values(record))
        self._tracker.values(name, rung_values(trained.outcome, read_pool(trained.folder)))
        self._tracker.end(name, FINISHED)

    def _settle(self, rung: Rung, view: LiveView) -> None:
        try:
            for name in set(rung.teachers) & set(self._done):
                self._done[name].result()
            trained = self._train(rung)
            self._tell(trained)
        except BaseException as error:
            self._done[rung.name].set_exception(error)
            return
        if rung.name in self.teachers:
            self.teachers[rung.name] = replace(self.teachers[rung.name], weights=trained.weights)
        if trained.reused:
            view.say(f"{rung.name}  found trained: {trained.folder}")
        self._done[rung.name].set_result(trained)

    def _train(self, rung: Rung) -> Trained:
        spec = rung.spec(self._data, self._config.data.validation, self._num_classes, self.teachers)
        folder = self._folder / "rungs" / rung.name
        key = rung_key(spec, self._dataset, self._fingerprint)
        refuse_other_rung(folder, key, rung.name)
        model = self._models / key
        reused = rung.role != "student" and model.has(OUTCOME_FILE)
        teachers = {f"teachers.{teacher.name}.sha256": file_hash(teacher.weights) for teacher in spec.teachers}
        tags = {"collegium.key": key, "collegium.role": rung.role, "collegium.reused": str(reused).lower(), **teachers}
        self._told.append(rung.name)
        self._tracker.start(rung.name, rung_params(self._config, rung), {**tags, "data.sha256": self._fingerprint})
        if reused:
            return read_trained(rung, model, reused=True)
        if not folder.has(OUTCOME_FILE):
            pool = self._pool(rung.name, spec.teachers)
            try:
                train_rung(TrainJob(spec, self._shared, folder, pool and pool.handle, self._board))
            finally:
                if pool is not None:
                    pool.stop()
                    folder.write(POOL_FILE, json.dumps(pool.chronicle.record()).encode())
        if rung.role != "student":
            for name in (WEIGHTS_FILE, OUTCOME_FILE):
                model.write(name, folder.read(name))
        return read_trained(rung, folder, reused=False)

    def _pool(self, rung: str, specs: Sequence[TeacherSpec]) -> TeacherPool | None:
        if self._config.source == "local" or not specs:
            return None
        timeout_s, inputs = self._config.answer_timeout_s, inputs_of(self._config, self._findings)
        assert timeout_s is not None and inputs is not None
        settings = PoolSettings(inputs, timeout_s, rung, self._namespace)
        pool = TeacherPool.start(specs, self._shared, self._data, settings)
        self._pools.append(pool)
        if self._ended:
            pool.stop()
        return pool


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


def shared(dataset: MapDataset, where: str) -> SharedDataset:
    """Raises ValueError where the dataset cannot be sent to other processes."""
    try:
        return SharedDataset.of(dataset)
    except Exception as error:
        raise ValueError(
            f"{where}: {type(dataset).__name__} cannot be sent to other processes ({error}); "
            "open files when a row is read"
        ) from error


def read_trained(rung: Rung, folder: Folder, *, reused: bool) -> Trained:
    return Trained(rung, folder, json.loads(folder.read(OUTCOME_FILE)), reused)
