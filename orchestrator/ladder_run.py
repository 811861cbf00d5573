"""Trains the rungs of one experiment: each in a thread that waits for its teachers and then on Ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import ray

from actors.data import SharedDataset
from actors.errors import NotStoredError, TeacherLostError
from actors.fingerprints import dataset_fingerprint
from actors.policies.dropping import may_go_on
from actors.pool.chronicle import joined
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.progress import ProgressBoard
from actors.serving import POOL_FILE
from actors.specs import StoreSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.store.shared_claims import start_claims
from actors.training import OUTCOME_FILE, WEIGHTS_FILE, TrainJob
from actors.views import MapDataset
from orchestrator.checking import Findings
from orchestrator.config import ExperimentConfig
from orchestrator.identity import file_hash, rung_key
from orchestrator.ladder import Rung, ladder
from orchestrator.launch import fill_rung, train_rung
from orchestrator.live import LiveView
from orchestrator.plan import inputs_of
from orchestrator.result import DROPPED_FILE, read_dropped, read_passes, read_pool, shown_cause
from orchestrator.storing import encodings_of, judged_by, lacking, requests_by_view, store_name, store_of, told
from orchestrator.tracking.journal import FAILED, FINISHED, KILLED, Status
from orchestrator.tracking.telling import epoch_values, rung_params, rung_values
from orchestrator.tracking.tracker import Tracker
from orchestrator.trained import Trained, models_folder, read_trained, refuse_other_rung

POLL_S = 0.25
DROPPED_TAG = "collegium.dropped"
NOT_WHOLE = "so it will not be what all of its teachers would make"


@dataclass(frozen=True)
class Filled:
    """A rung whose teachers' knowledge lies in the store."""

    spec: StudentSpec
    store: StoreSpec
    passes: Mapping[str, Mapping[str, int]]


Work = Callable[[Rung, LiveView], Trained | Filled]


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
        self._models = models_folder(config)
        self._data = config.data.spec()
        self._dataset = self._data.train.build()
        self._fingerprint = dataset_fingerprint(self._dataset, self._data)
        self._store = store_of(config, self._dataset)
        self._shared = ray.put(shared(self._dataset, "data.train"))
        alive = {"max_restarts": -1, "max_task_retries": -1}
        self._board: Any = ray.remote(ProgressBoard).options(num_cpus=0, **alive).remote()
        self._done: dict[str, Future[Any]] = {}
        self._pools: list[TeacherPool] = []
        self._told: list[str] = []
        self._ended = False

    @property
    def store(self) -> dict[str, Any] | None:
        """For the result: where knowledge is kept and how."""
        return told(self._store)

    def train(self, view: LiveView) -> dict[str, Trained]:
        """Raises what ended the first rung that failed."""
        return self._work(view, {rung.name: (rung, self._train_and_tell) for rung in ladder(self._config)})

    def fill(self, view: LiveView) -> dict[str, Filled]:
        """The store, with all that those who teach say; they are trained first where need be."""
        rungs = ladder(self._config)
        teaching = {name for rung in rungs for name in rung.teachers}
        trained = {rung.name: (rung, self._train_and_tell) for rung in rungs if rung.name in teaching}
        filled = {store_name(rung.name): (rung, self._fill) for rung in rungs if rung.teachers}
        done = self._work(view, {**trained, **filled})
        return {name: done[name] for name in filled}

    def _work(self, view: LiveView, works: Mapping[str, tuple[Rung, Work]]) -> dict[str, Any]:
        self._done = {name: Future() for name in works}
        view.say(f"starting {', '.join(self._done)}; each waits for its teachers")
        for name, (rung, work) in works.items():
            threading.Thread(target=self._settle, args=(name, rung, work, view), name=name, daemon=True).start()
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
        passes, _ = read_passes(trained.folder)
        self._tracker.values(name, rung_values(trained.outcome, read_pool(trained.folder), passes))
        self._tracker.end(name, FINISHED)

    def _settle(self, name: str, rung: Rung, work: Work, view: LiveView) -> None:
        try:
            for teacher in set(rung.teachers) & set(self._done):
                self._done[teacher].result()
            self._done[name].set_result(work(rung, view))
        except BaseException as error:
            self._done[name].set_exception(error)

    def _train_and_tell(self, rung: Rung, view: LiveView) -> Trained:
        trained = self._train(rung, view)
        self._tell(trained)
        if rung.name in self.teachers:
            self.teachers[rung.name] = replace(self.teachers[rung.name], weights=trained.weights)
        if trained.reused:
            view.say(f"{rung.name}  found trained: {trained.folder}")
        return trained

    def _fill(self, rung: Rung, view: LiveView) -> Filled:
        spec = rung.spec(self._data, self._config.data.validation, self._num_classes, self.teachers)
        folder = self._folder / "rungs" / store_name(rung.name)
        assert self._store is not None
        store = judged_by(self._store, spec.teachers)
        asked = set(lacking(spec, store, len(self._dataset)))
        if asked:
            pool = self._pool(store_name(rung.name), [teacher for teacher in spec.teachers if teacher.name in asked])
            try:
                job = TrainJob(spec, self._shared, folder, pool and pool.handle, self._board, store)
                fill_rung(job, requests_by_view(spec, asked))
            finally:
                if pool is not None:
                    pool.stop()
        return Filled(spec, store, read_passes(folder)[0])

    def _train(self, rung: Rung, view: LiveView) -> Trained:
        spec = rung.spec(self._data, self._config.data.validation, self._num_classes, self.teachers)
        folder = self._folder / "rungs" / rung.name
        key = rung_key(spec, self._dataset, self._fingerprint, encodings_of(self._store))
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
        """Trains a rung; on from its last checkpoint without teachers that were lost, where it may go on so, and with
        those of whom the store turns out to lack something."""
        unstored: set[str] = set()
        while True:
            dropped = read_dropped(folder)
            for name, cause in dropped.items():
                view.say(f"{spec.name}  goes on without {name}, {NOT_WHOLE} ({shown_cause(cause)})")
            try:
                self._teach_by(replace(spec, dropped=tuple(dropped)), folder, unstored, view)
                return
            except NotStoredError as error:
                unstored |= set(error.teachers)
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

    def _teach_by(self, spec: StudentSpec, folder: Folder, unstored: Collection[str], view: LiveView) -> None:
        """Trains a rung by those of its teachers who were not dropped; starts those whom it will have to ask, and the
        `unstored`."""
        heard = [teacher for teacher in spec.teachers if teacher.name not in spec.dropped]
        store = judged_by(self._store, spec.teachers) if self._store and heard else None
        asked = {*unstored, *lacking(spec, store, len(self._dataset))} if store else {one.name for one in heard}
        if known := [teacher.name for teacher in heard if teacher.name not in asked]:
            view.say(f"{spec.name}  is taught from the store by {', '.join(known)}, who need not be started")
        pool = self._pool(spec.name, [teacher for teacher in heard if teacher.name in asked])
        claims = start_claims() if store and asked and spec.num_workers > 1 else None
        is_stored = self._config.source == "pool" and not asked
        try:
            train_rung(
                TrainJob(spec, self._shared, folder, pool and pool.handle, self._board, store, is_stored, claims)
            )
        finally:
            if claims is not None:
                ray.kill(claims)
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


def shared(dataset: MapDataset, where: str) -> SharedDataset:
    """Raises ValueError where the dataset cannot be sent to other processes."""
    try:
        return SharedDataset.of(dataset)
    except Exception as error:
        raise ValueError(
            f"{where}: {type(dataset).__name__} cannot be sent to other processes ({error}); "
            "open files when a row is read"
        ) from error
