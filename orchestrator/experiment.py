"""One experiment: `Experiment.from_yaml(path).run()` trains a ladder of rungs on Ray; gives an `ExperimentResult`."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal, Self

import ray

from actors.judgement import Panel
from actors.predictions import TrainedModel
from actors.specs import ANSWERS_FILE
from actors.storage import Folder
from actors.training import WEIGHTS_FILE
from orchestrator.checking import Findings, check
from orchestrator.cluster import connected
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation import add_costs, judged
from orchestrator.ladder import Role, ladder
from orchestrator.ladder_run import LadderRun, shared
from orchestrator.live import LiveView
from orchestrator.packaging import MODEL_FOLDER, Packaging
from orchestrator.plan import Plan, make_plan
from orchestrator.pools import alone, announced
from orchestrator.reporting.report import write_report
from orchestrator.result import (
    CONFIG_FILE,
    REPORT_FILE,
    RESULT_FILE,
    STUDENT_FILE,
    ExperimentResult,
    ModelResult,
    RungResult,
    read_dropped,
    read_passes,
    read_pool,
)
from orchestrator.storing import refuse_placeless
from orchestrator.tracking.journal import FAILED, FINISHED, KILLED
from orchestrator.tracking.telling import experiment_params, result_values
from orchestrator.tracking.tracker import Tracker, tracking_uri
from orchestrator.trained import CannotResume, Trained


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
        run = Folder.found_at(folder)
        if not run.has(CONFIG_FILE):
            raise ValueError(f"resume: expected the folder of a run, found no {CONFIG_FILE} in {str(folder)!r}")
        if run.has(RESULT_FILE) and run.has(REPORT_FILE):
            raise ValueError(f"resume: this run is finished, its result is {run.file(RESULT_FILE)}")
        storage = run.parent.parent.path
        return cls(ExperimentConfig.from_yaml(run.file(CONFIG_FILE)).model_copy(update={"storage": storage}))

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
        plan.refuse_if_elsewhere()
        refuse_placeless(self.config)
        view = view or LiveView()
        begun = Folder.found_at(resume) if resume else None
        with alone(begun) if begun else nullcontext(), connected(address, plan.side_by_side) as resources:
            plan.refuse_if_larger(resources)
            folder = begun or self._new_folder()
            if not folder.has(CONFIG_FILE):
                folder.write(CONFIG_FILE, self.config.to_yaml().encode())
            view.say(f"run {folder}")
            held = nullcontext() if begun else alone(folder)
            with held, announced(folder, address) as namespace, self._tracker(folder, view) as tracker:
                return self._tracked(folder, view, tracker, namespace, started)

    def _tracked(
        self, folder: Folder, view: LiveView, tracker: Tracker, namespace: str, started: float
    ) -> ExperimentResult:
        tracker.start(None, experiment_params(self.config), self._tags())
        try:
            result = self._run_on_cluster(folder, view, tracker, namespace, started)
        except CannotResume:
            tracker.end(None, FAILED)
            raise
        except BaseException as error:
            tracker.end(None, KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
            view.say(f"ended early; go on with: collegium run --resume {shlex.quote(str(folder))}")
            raise
        tracker.end(None, FINISHED)
        return result

    @property
    def tracking_uri(self) -> str:
        """The store that MLflow keeps the runs in."""
        return tracking_uri(self.config.tracking.uri, self.config.storage)

    @contextmanager
    def _tracker(self, folder: Folder, view: LiveView) -> Iterator[Tracker]:
        config, send = self.config, self.config.tracking.send
        tracker = Tracker.open(folder, experiment=config.name, uri=self.tracking_uri, storage=config.storage, send=send)
        try:
            yield tracker
        finally:
            try:
                if unsent := tracker.close():
                    view.say(unsent)
            except KeyboardInterrupt:
                view.say(f"tracking: interrupted; send the rest with: collegium sync {shlex.quote(str(folder))}")
                raise

    def _tags(self) -> dict[str, str]:
        given = {f"teachers.{name}.registered": uri for name, uri in self.findings.registered.items()}
        return {"collegium.name": self.config.name, "collegium.seed": str(self.config.seed), **given}

    def _run_on_cluster(
        self, folder: Folder, view: LiveView, tracker: Tracker, namespace: str, started: float
    ) -> ExperimentResult:
        data = self.config.data.spec()
        run = LadderRun(self.config, self.findings, folder, tracker, namespace)
        with view:
            test = ray.put(shared(data.test.build(), "data.test"))
            trained = run.train(view)
            folder.write(STUDENT_FILE, trained["student"].folder.read(WEIGHTS_FILE))
            models = self._trained_models(run, trained)
            view.say("judging every model on the test set")
            packaging = Packaging(models[-1], test, data, folder)
            panel = self._panel(models, trained["student"].outcome["history"])
            gpus = self.config.student.resources.num_gpus
            found = judged(models, panel, self.findings.num_classes, test, data, folder, gpus)
            without_model = packaging.wait()
            add_costs(found, models, panel, test, data)
            result = self._result(folder, found, models, trained, run, started)
            result.save()
            view.say("writing the report")
            self._tell(result, tracker, view)
            self._tell_model(without_model, tracker, view)
        return result

    def _trained_models(self, run: LadderRun, trained: Mapping[str, Trained]) -> list[TrainedModel]:
        """Not those who were lost on the way: what failed may fail again."""
        judged = [rung for rung in ladder(self.config) if rung.role != "teacher"]
        models = [
            *(
                TrainedModel(one.name, one.model, one.weights, one.class_map)
                for one in run.teachers.values()
                if one.name in self.config.teachers
            ),
            *(TrainedModel(rung.name, rung.model, trained[rung.name].weights) for rung in judged),
        ]
        lost = {name for one in trained.values() for name in read_dropped(one.folder)}
        return [model for model in models if model.name not in lost]

    def _panel(self, models: Sequence[TrainedModel], history: Sequence[Mapping[str, Any]]) -> Panel:
        """The ensemble is of the teachers that anybody hears."""
        heard = {name for rung in ladder(self.config) for name in rung.teachers}
        names = tuple(model.name for model in models)
        return Panel(
            models=names,
            ensemble=tuple(name for name in self.config.teachers if name in heard and name in names),
            weights=mean_weights(history),
        )

    def _result(
        self,
        folder: Folder,
        found: Mapping[str, Any],
        models: Sequence[TrainedModel],
        trained: Mapping[str, Trained],
        run: LadderRun,
        started: float,
    ) -> ExperimentResult:
        scores: Mapping[str, Any] = found["models"]
        weights = {model.name: model.weights for model in models}
        roles: dict[str, Role | Literal["ensemble"]] = dict.fromkeys(self.config.teachers, "teacher")
        roles |= {"ensemble": "ensemble", **dict.fromkeys(self.config.assistants, "assistant")}
        roles |= {"alone": "alone", "student": "student"}
        return ExperimentResult(
            name=self.config.name,
            seed=self.config.seed,
            folder=folder.path,
            models=tuple(
                ModelResult(name, role, **scores[name], weights=weights.get(name))
                for name, role in roles.items()
                if name in scores
            ),
            rungs=tuple(_rung_result(one) for one in trained.values()),
            wall_s=time.monotonic() - started,
            store=run.store,
            **{key: value for key, value in found.items() if key != "models"},
        )

    def _tell(self, result: ExperimentResult, tracker: Tracker, view: LiveView) -> None:
        folder = Folder(result.folder)
        tracker.values(None, result_values(result))
        try:
            write_report(result.folder)
        except Exception as error:  # the result is there: the run does not fail by its report, but says so
            again = f"collegium report {shlex.quote(str(folder))}"
            view.say(f"no report: {type(error).__name__}: {error}; try again with: {again}")
        for name in (CONFIG_FILE, RESULT_FILE, REPORT_FILE, STUDENT_FILE, ANSWERS_FILE):
            if folder.has(name):
                tracker.artifact(None, name)

    def _tell_model(self, problem: str, tracker: Tracker, view: LiveView) -> None:
        if problem:
            view.say(f"no MLflow model: {problem}")
            return
        tracking = self.config.tracking
        tracker.model(MODEL_FOLDER, "student", tracking.registered_as, tracking.alias)
        if tracking.registered_as:
            alias = f", the alias {tracking.alias} moves to it" if tracking.alias else ""
            view.say(f"the student is a new version of the registered model {tracking.registered_as}{alias}")

    def _new_folder(self) -> Folder:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        storage = Folder.at(self.config.storage)
        if storage.is_remote:  # nobody can be kept from taking the same name there
            return storage / self.config.name / f"{stamp}-{uuid.uuid4().hex[:6]}"
        parent = Path(storage.path) / self.config.name
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"storage: {parent} cannot be made: {error.strerror}; choose another folder") from error
        for attempt in range(100):
            folder = parent / (stamp if not attempt else f"{stamp}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return Folder(str(folder))
        raise ValueError(f"storage: no folder could be made in {parent}")


def mean_weights(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of each teacher that a rung hears: its weight, the mean over epochs and losses."""
    said: dict[str, list[float]] = {}
    for record in history:
        for weights in record["weights"].values():
            for teacher, weight in weights.items():
                said.setdefault(teacher, []).append(weight)
    return {teacher: mean(weights) for teacher, weights in said.items()}


def _rung_result(trained: Trained) -> RungResult:
    outcome = {key: value for key, value in trained.outcome.items() if key != "parameters"}
    passes, unwritten = read_passes(trained.folder)
    return RungResult(
        trained.rung.name,
        trained.rung.role,
        reused=trained.reused,
        pool=read_pool(trained.folder),
        passes=passes,
        unwritten=unwritten,
        dropped=read_dropped(trained.folder),
        **outcome,
    )
