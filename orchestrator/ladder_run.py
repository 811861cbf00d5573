"""Trains the rungs of one experiment: each in a thread that waits for its teachers and then on Ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import ray

from actors.data import SharedDataset
from actors.errors import TeacherLostError
from actors.fingerprints import dataset_fingerprint
from actors.policies.dropping import may_go_on
from actors.pool.chronicle import joined
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.progress import ProgressBoard
from actors.serving import POOL_FILE
from actors.specs import StudentSpec, TeacherSpec
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
from orchestrator.result import DROPPED_FILE, read_dropped, read_pool, shown_cause
from orchestrator.tracking.journal import FAILED, FINISHED, KILLED, Status
from orchestrator.tracking.telling import epoch_values, rung_params, rung_values
from orchestrator.tracking.tracker import Tracker

POLL_S = 0.25
KEY_FILE = "key"
DROPPED_TAG = "collegium.dropped"
NOT_WHOLE = "so it will not be what all of its teachers would make"


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
        self._models = Folder.at(config.storage) / MODELS_FOLDER
        self._data = config.data.spec()
        self._dataset = self._data.train.build()
        self._fingerprint = dataset_fingerprint(self._dataset, self._data)
        self._shared = ray.put(shared(self._dataset, "data.train"))
        alive = {"max_restarts": -1, "max_task_retries": -1}
        self._board: Any = ray.remote(ProgressBoard).options(num_cpus=0, **alive).remote()
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
            trained = self._train(rung, view)
            self._tell(trained)
        except BaseException as error:
            self._done[rung.name].set_exception(error)
            return
        if rung.name in self.teachers:
            self.teachers[rung.name] = replace(self.teachers[rung.name], weights=trained.weights)
        if trained.reused:
            view.say(f"{rung.name}  found trained: {trained.folder}")
        self._done[rung.name].set_result(trained)

    def _train(self, rung: Rung, view: LiveView) -> Trained:
        spec = rung.spec(self._data, self._config.data.validation, self._num_classes, self.teachers)
        folder = self._folder / "rungs" / rung.name
        key = rung_key(spec, self._dataset, self._fingerprint)
        refuse_other_rung(folder, key, rung.name)
        model = self._models / key
        reused = rung.role != "student" and model.has(OUTCOME_FILE) and not read_dropped(folder)
        teachers = {f"teachers.{teacher.name}.sha256": file_hash(teacher.weights) for teacher in spec.teachers}
        tags = {"collegium.key": key, "collegium.role": rung.role, "collegium.reused": str(reused).lower(), **teachers}
        self._told.append(rung.name)
        self._tracker.start(rung.name, rung_params(self._config, rung), {**tags, "data.sha256": self._fingerprint})
        if reused:
            return read_trained(rung, model, reused=True)
        if not folder.has(OUTCOME_FILE):
            self._teach(spec, folder, view)
        if rung.role != "student" and not read_dropped(folder):
            for name in (WEIGHTS_FILE, OUTCOME_FILE):
                model.write(name, folder.read(name))
        return read_trained(rung, folder, reused=False)

    def _teach(self, spec: StudentSpec, folder: Folder, view: LiveView) -> None:
        """Trains a rung; on from its last checkpoint without teachers that were lost, where it may go on so."""
        while True:
            dropped = read_dropped(folder)
            for name, cause in dropped.items():
                view.say(f"{spec.name}  goes on without {name}, {NOT_WHOLE} ({shown_cause(cause)})")
            try:
                self._teach_by(replace(spec, dropped=tuple(dropped)), folder)
                return
            except TeacherLostError as error:
                droppable = [teacher.name for teacher in spec.teachers if teacher.may_be_dropped]
                heard = [loss.teachers for loss in spec.losses]
                if self._ended or not may_go_on(error.teachers, droppable, dropped, heard):
                    raise
                self._drop(spec.name, folder, {**dropped, **dict.fromkeys(error.teachers, str(error))})

    def _drop(self, rung: str, folder: Folder, dropped: Mapping[str, str]) -> None:
        folder.write(DROPPED_FILE, json.dumps(dropped).encode())
        self._tracker.start(rung, {}, {DROPPED_TAG: ", ".join(dropped)})
        self._tracker.start(None, {}, {f"{DROPPED_TAG}.{rung}": ", ".join(dropped)})

    def _teach_by(self, spec: StudentSpec, folder: Folder) -> None:
        """Trains a rung by those of its teachers who were not dropped."""
        pool = self._pool(spec.name, [teacher for teacher in spec.teachers if teacher.name not in spec.dropped])
        try:
            train_rung(TrainJob(spec, self._shared, folder, pool and pool.handle, self._board))
        finally:
            if pool is not None:
                pool.stop()
                record, earlier = pool.chronicle.record(spec.dropped), read_pool(folder)
                record = joined(earlier, record) if spec.dropped and earlier else record
                folder.write(POOL_FILE, json.dumps(record).encode())

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
