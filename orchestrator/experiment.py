"""One experiment: `Experiment.from_yaml(path).run()` trains a ladder of rungs on Ray and gives an `ExperimentResult`.

`Experiment` checks, opens the run's folder and the cluster, and evaluates; `LadderRun` trains the rungs, those that
do not need each other side by side.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import ray

from actors.data import SharedDataset
from actors.pool import TeacherPool
from actors.predictions import TrainedModel
from actors.progress import ProgressBoard
from actors.specs import TeacherSpec
from actors.storage import Folder
from actors.training import OUTCOME_FILE, WEIGHTS_FILE, TrainJob
from orchestrator.checking import Findings, check
from orchestrator.cluster import connected
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation import Scored, evaluate
from orchestrator.identity import rung_key
from orchestrator.ladder import Role, Rung, ladder
from orchestrator.launch import train_rung
from orchestrator.live import LiveView
from orchestrator.plan import Plan, make_plan
from orchestrator.result import STUDENT_FILE, ExperimentResult, ModelResult, RungResult

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
POLL_S = 0.25


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


class Experiment:
    """A checked config that can be run."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Raises ConfigError where the file or an override (`student.epochs=3`) cannot be honoured."""
        return cls(ExperimentConfig.from_yaml(path, overrides))

    @classmethod
    def of_run(cls, folder: str | Path) -> Self:
        """The experiment of an earlier run, from the config beside it."""
        config = Path(folder, CONFIG_FILE)
        if not config.is_file():
            raise ValueError(f"resume: expected the folder of a run, found no {CONFIG_FILE} in {str(folder)!r}")
        return cls.from_yaml(config)

    @cached_property
    def findings(self) -> Findings:
        return check(self.config)

    def check(self) -> Plan:
        """What a run would do. Raises ValueError where it could not."""
        return make_plan(self.config, self.findings)

    def run(
        self, *, resume: str | Path | None = None, address: str | None = None, view: LiveView | None = None
    ) -> ExperimentResult:
        """Trains all rungs, scores them on the test set and writes the run's folder.

        `resume`: the folder of a run of this config that was interrupted. `address`: of a Ray cluster; else one is
        started here. Raises ValueError before anything starts where the config cannot work.
        """
        started = time.monotonic()
        plan = self.check()
        if plan.elsewhere:
            raise ValueError("not installed here:\n" + "\n".join(plan.elsewhere))
        folder = Folder(str(Path(resume).absolute())) if resume else self._new_folder()
        view = view or LiveView()
        with connected(address, plan.side_by_side) as resources:
            plan.refuse_if_larger(resources)
            folder.write(CONFIG_FILE, self.config.to_yaml().encode())
            view.say(f"run {folder}")
            try:
                return self._run_on_cluster(folder, view, started)
            except BaseException:
                view.say(f"ended early; go on with: collegium run --resume {folder}")
                raise

    def _run_on_cluster(self, folder: Folder, view: LiveView, started: float) -> ExperimentResult:
        data = self.config.data.spec()
        run = LadderRun(self.config, self.findings, folder)
        with view:
            trained = run.train(view)
            test = ray.put(SharedDataset.of(data.test.build()))
            models = [TrainedModel(s.name, s.model, s.weights, s.class_map) for s in run.teachers.values()]
            models += [
                TrainedModel(rung.name, rung.model, trained[rung.name].weights)
                for rung in ladder(self.config)
                if rung.role in ("alone", "student")
            ]
            gpus = self.config.student.resources.num_gpus
            scores, ensemble = evaluate(models, list(self.config.teachers), self.findings.num_classes, test, data, gpus)
        folder.write(STUDENT_FILE, Path(trained["student"].weights).read_bytes())
        result = ExperimentResult(
            name=self.config.name,
            seed=self.config.seed,
            folder=folder.path,
            models=self._models(scores, ensemble, {model.name: model.weights for model in models}),
            rungs=tuple(_rung_result(one) for one in trained.values()),
            wall_s=time.monotonic() - started,
        )
        result.save()
        return result

    def _models(
        self, scores: Mapping[str, Scored], ensemble: Scored, weights: Mapping[str, str]
    ) -> tuple[ModelResult, ...]:
        roles: dict[str, Role] = dict.fromkeys(self.config.teachers, "teacher")
        roles |= dict.fromkeys(self.config.assistants, "assistant")
        roles |= {"alone": "alone", "student": "student"}
        found = [
            ModelResult(name, roles[name], **scores[name], weights=weights[name]) for name in roles if name in scores
        ]
        found.insert(len(self.config.teachers), ModelResult("ensemble", "ensemble", **ensemble))
        return tuple(found)

    def _new_folder(self) -> Folder:
        parent = Path(self.config.storage).absolute() / self.config.name
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(100):
            folder = parent / (stamp if not attempt else f"{stamp}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return Folder(str(folder))
        raise ValueError(f"storage: no folder could be made in {parent}")


class LadderRun:
    """Trains the rungs of one experiment, each in a thread that waits for its teachers and then on Ray."""

    def __init__(self, config: ExperimentConfig, findings: Findings, folder: Folder) -> None:
        self.teachers: dict[str, TeacherSpec] = dict(findings.teachers)
        self._config = config
        self._num_classes = findings.num_classes
        self._folder = folder
        self._models = Folder(str(Path(config.storage).absolute())) / "models"
        self._data = config.data.spec()
        self._dataset = self._data.train.build()
        self._shared = ray.put(SharedDataset.of(self._dataset))
        self._board: Any = ray.remote(ProgressBoard).options(num_cpus=0).remote()
        self._done: dict[str, Future[Trained]] = {}

    def train(self, view: LiveView) -> dict[str, Trained]:
        """Raises what ended the first rung that failed."""
        self._done = {rung.name: Future() for rung in ladder(self._config)}
        for rung in ladder(self._config):
            threading.Thread(target=self._settle, args=(rung, view), name=rung.name, daemon=True).start()
        while True:
            finished, unfinished = wait(self._done.values(), timeout=POLL_S, return_when=FIRST_EXCEPTION)
            for progress in ray.get(self._board.take.remote()):
                view.update(progress)
            done = {name: future.result() for name, future in self._done.items() if future in finished}
            if not unfinished:
                return done

    def _settle(self, rung: Rung, view: LiveView) -> None:
        try:
            for name in rung.teachers:
                if name in self._done:
                    self.teachers[name] = replace(self.teachers[name], weights=self._done[name].result().weights)
            trained = self._train(rung)
        except BaseException as error:
            self._done[rung.name].set_exception(error)
            return
        if trained.reused:
            view.say(f"{rung.name}  found trained: {trained.folder}")
        self._done[rung.name].set_result(trained)

    def _train(self, rung: Rung) -> Trained:
        spec = rung.spec(self._data, self._config.data.validation, self._num_classes, self.teachers)
        folder = self._folder / "rungs" / rung.name
        model = self._models / rung_key(spec, self._dataset)
        if rung.role != "student" and model.has(OUTCOME_FILE):
            return _trained(rung, model, reused=True)
        if not folder.has(OUTCOME_FILE):
            pool = self._pool(spec.teachers)
            try:
                train_rung(TrainJob(spec, self._shared, folder, pool, self._board))
            finally:
                if pool is not None and ray.is_initialized():
                    pool.stop()
        for name in (WEIGHTS_FILE, OUTCOME_FILE):
            model.write(name, folder.read(name))
        return _trained(rung, folder, reused=False)

    def _pool(self, specs: Sequence[TeacherSpec]) -> TeacherPool | None:
        if self._config.source == "local" or not specs:
            return None
        return TeacherPool.start(specs, self._shared, self._data, answer_timeout_s=self._config.answer_timeout_s)


def _trained(rung: Rung, folder: Folder, *, reused: bool) -> Trained:
    return Trained(rung, folder, json.loads(folder.read(OUTCOME_FILE)), reused)


def _rung_result(trained: Trained) -> RungResult:
    outcome = {key: value for key, value in trained.outcome.items() if key != "parameters"}
    return RungResult(trained.rung.name, trained.rung.role, reused=trained.reused, **outcome)
