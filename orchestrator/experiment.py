"""One experiment: `Experiment.from_yaml(path).run()` trains a ladder of rungs on Ray; gives an `ExperimentResult`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import ray

from actors.predictions import TrainedModel
from actors.storage import Folder
from orchestrator.checking import Findings, check
from orchestrator.cluster import connected
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation import Scored, evaluate
from orchestrator.ladder import Role, ladder
from orchestrator.ladder_run import CannotResume, LadderRun, Trained, shared
from orchestrator.live import LiveView
from orchestrator.plan import Plan, make_plan
from orchestrator.result import RESULT_FILE, STUDENT_FILE, ExperimentResult, ModelResult, RungResult

CONFIG_FILE = "config.yaml"


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
        if config.with_name(RESULT_FILE).is_file():
            raise ValueError(f"resume: this run is finished, its result is {config.with_name(RESULT_FILE)}")
        storage = str(config.resolve().parents[2])
        return cls(ExperimentConfig.from_yaml(config).model_copy(update={"storage": storage}))

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
        view = view or LiveView()
        with connected(address, plan.side_by_side) as resources:
            plan.refuse_if_larger(resources)
            folder = Folder(str(Path(resume).resolve())) if resume else self._new_folder()
            if not folder.has(CONFIG_FILE):
                folder.write(CONFIG_FILE, self.config.to_yaml().encode())
            view.say(f"run {folder}")
            try:
                return self._run_on_cluster(folder, view, started)
            except CannotResume:
                raise
            except BaseException:
                view.say(f"ended early; go on with: collegium run --resume {folder}")
                raise

    def _run_on_cluster(self, folder: Folder, view: LiveView, started: float) -> ExperimentResult:
        data = self.config.data.spec()
        run = LadderRun(self.config, self.findings, folder)
        with view:
            test = ray.put(shared(data.test.build(), "data.test"))
            trained = run.train(view)
            folder.write(STUDENT_FILE, Path(trained["student"].weights).read_bytes())
            models = [TrainedModel(s.name, s.model, s.weights, s.class_map) for s in run.teachers.values()]
            models += [
                TrainedModel(rung.name, rung.model, trained[rung.name].weights)
                for rung in ladder(self.config)
                if rung.role in ("alone", "student")
            ]
            gpus = self.config.student.resources.num_gpus
            view.say("scoring every model on the test set")
            scores, ensemble = evaluate(models, list(self.config.teachers), self.findings.num_classes, test, data, gpus)
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
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"storage: {parent} cannot be made: {error.strerror}; choose another folder") from error
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(100):
            folder = parent / (stamp if not attempt else f"{stamp}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return Folder(str(folder))
        raise ValueError(f"storage: no folder could be made in {parent}")


def _rung_result(trained: Trained) -> RungResult:
    outcome = {key: value for key, value in trained.outcome.items() if key != "parameters"}
    return RungResult(trained.rung.name, trained.rung.role, reused=trained.reused, **outcome)
