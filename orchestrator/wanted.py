"""Every import of a config, with what our own code calls it with, bound before anything starts. Imports neither torch
nor Ray by itself; its targets may.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from actors.specs import FIXED_WEIGHTS, PARTNERS, RULE_ARGUMENTS, SCHEDULE_LENGTHS, ImportSpec
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import Rung, ladder
from orchestrator.targets import NotHere, bind


@dataclass(frozen=True)
class Wanted:
    """A target with what our code itself calls it with."""

    where: str
    spec: ImportSpec
    positional: int = 0
    names: tuple[str, ...] = ()
    key: str = "target"


def wanted_targets(config: ExperimentConfig) -> Iterator[Wanted]:
    """Every import of the config, in the order of the document."""
    data = config.data
    yield Wanted("data.train", data.train.spec())
    yield Wanted("data.test", data.test.spec())
    yield Wanted("data.views", data.views.spec(), positional=3, names=(PARTNERS,))
    yield Wanted("data.evaluation_view", data.evaluation_view.spec(), positional=3, names=(PARTNERS,))
    for name, teacher in config.teachers.items():
        yield Wanted(f"teachers.{name}.model", teacher.model.spec())
    for rung in ladder(config):
        if rung.role == "alone":
            continue
        recipe_where = f"{rung.where}.train" if rung.role == "teacher" else rung.where
        if rung.role != "teacher":
            yield Wanted(f"{rung.where}.model", rung.model.model)
        yield Wanted(f"{recipe_where}.optimizer", rung.recipe.optimizer, positional=1)
        if scheduler := rung.recipe.scheduler:
            given = tuple(name for name in SCHEDULE_LENGTHS if name not in scheduler.kwargs)
            yield Wanted(f"{recipe_where}.scheduler", scheduler, positional=1, names=given)
        if rung.role != "teacher":
            yield from _loss_targets(rung)


def _loss_targets(rung: Rung) -> Iterator[Wanted]:
    for loss in rung.losses:
        tensors = 2 * max(1, len(loss.outputs))
        yield Wanted(loss.key, loss.loss, positional=tensors, names=("labels", "ids", "reduction"), key="loss")
        rule = replace(loss.ensemble, kwargs={k: v for k, v in loss.ensemble.kwargs.items() if k != FIXED_WEIGHTS})
        yield Wanted(f"{loss.key}.ensemble", rule, names=RULE_ARGUMENTS)
        if loss.connector:
            yield Wanted(f"{loss.key}.connector", loss.connector, positional=2)


def bind_all(config: ExperimentConfig) -> tuple[str, ...]:
    """The targets whose package is not installed here. Raises ValueError where one cannot be called so."""
    elsewhere = []
    for wanted in wanted_targets(config):
        try:
            bind(wanted.spec, wanted.where, wanted.positional, wanted.names, key=wanted.key)
        except NotHere:
            elsewhere.append(f"{wanted.where}.{wanted.key}: {wanted.spec.target}")
    return tuple(dict.fromkeys(elsewhere))
