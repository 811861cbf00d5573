"""Whether every rung can be taught by its losses: the teachers, taps, classes and weights that they name.

The experiment's losses are checked for the student and for each assistant that has none of its own; what is
wrong for the student already is said once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.problems import unknown
from orchestrator.sections import TapPairConfig

if TYPE_CHECKING:
    from orchestrator.config import ExperimentConfig
    from orchestrator.loss_config import LossConfig
    from orchestrator.rungs import TeachingSection

Problems = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class _Rung:
    """A model that is distilled: where it and its losses stand in the document, and who may teach it."""

    path: str
    taps: Mapping[str, str]
    losses_path: str
    losses: Mapping[str, LossConfig]
    above: Mapping[str, TeachingSection]
    default_teachers: Sequence[str]


def check_losses(config: ExperimentConfig) -> Problems:
    student, *assistants = _rungs(config)
    of_student = dict(_check_rung(student))
    yield from of_student.items()
    for rung in assistants:
        inherited = rung.losses_path == "losses"
        for path, text in _check_rung(rung):
            if not inherited:
                yield path, text
            elif path not in of_student:
                yield path, f"for {rung.path}, which has no losses of its own: {text}"


def _rungs(config: ExperimentConfig) -> Iterator[_Rung]:
    above: dict[str, TeachingSection] = {**config.teachers, **config.assistants}
    yield _Rung("student", config.student.taps, "losses", config.losses, above, config.teachers_of("student"))
    above = dict(config.teachers)
    for name, assistant in config.assistants.items():
        path = f"assistants.{name}"
        losses_path = config.losses_path(name)
        default_teachers = config.teachers_of(name)
        yield _Rung(path, assistant.taps, losses_path, config.losses_of(name), dict(above), default_teachers)
        above[name] = assistant


def _check_rung(rung: _Rung) -> Problems:
    if all(loss.on == "labels" or loss.is_dropped for loss in rung.losses.values()):
        yield rung.losses_path, "no loss listens to a teacher; give at least one on logits or on taps, with a weight"
    for name, loss in rung.losses.items():
        path = f"{rung.losses_path}.{name}"
        strangers = list(_check_teachers(path, loss, rung))
        yield from strangers or _check_loss(path, loss, rung)


def _check_teachers(path: str, loss: LossConfig, rung: _Rung) -> Problems:
    for name in loss.teachers or ():
        if loss.on != "labels" and name not in rung.above:
            yield f"{path}.teachers", f"{unknown(name, rung.above, 'teacher')} (above {rung.path})"


def _check_loss(path: str, loss: LossConfig, rung: _Rung) -> Problems:
    if loss.on == "labels":
        yield from _check_on_labels(path, loss)
        return
    if loss.on == "logits" and loss.connector is not None:
        yield f"{path}.connector", "a connector joins taps and would be ignored on logits; leave it out"
    yield from _check_largest(path, loss)
    teachers = {name: rung.above[name] for name in loss.listeners(rung.default_teachers)}
    yield from _check_taps(path, loss, rung, teachers)
    yield from _check_ensemble(path, loss, teachers)
    if not loss.is_dropped:
        yield from _check_dropping(path, teachers)


def _check_on_labels(path: str, loss: LossConfig) -> Problems:
    for key in ("teachers", "ensemble", "connector", "top_k", "rest", "reduce"):
        if getattr(loss, key) is not None:
            yield (
                f"{path}.{key}",
                "a loss on labels listens to no teacher and would ignore this; leave it out",
            )


def _check_largest(path: str, loss: LossConfig) -> Problems:
    for key in ("top_k", "rest"):
        if loss.on != "logits" and getattr(loss, key) is not None:
            yield f"{path}.{key}", "the largest are heard of logits alone, this loss is on taps; leave it out"
    if loss.on == "logits" and loss.rest is not None and loss.top_k is None:
        yield (
            f"{path}.rest",
            "without top_k all logits are heard, and this would be ignored; give a top_k or leave it out",
        )
    if loss.rest == "ignore" and loss.top_k == 1:
        yield f"{path}.top_k", "expected 2 at least with rest: ignore, got 1, of which a softmax is always 1; hear more"


def _check_taps(path: str, loss: LossConfig, rung: _Rung, teachers: Mapping[str, TeachingSection]) -> Problems:
    if not isinstance(loss.on, TapPairConfig):
        return
    pair = loss.on.spec()
    for tap in pair.student_taps:
        if tap not in rung.taps:
            yield f"{path}.on.student", f"{rung.path}.taps has {unknown(tap, rung.taps, 'tap')}"
    for name, teacher in teachers.items():
        for tap in pair.teacher_taps:
            if tap not in teacher.taps:
                yield f"{path}.on.teacher", f"the taps of {name!r} have {unknown(tap, teacher.taps, 'tap')}"


def _check_dropping(path: str, teachers: Mapping[str, TeachingSection]) -> Problems:
    """Whoever is lost with a teacher lives in the same actor."""
    for name, teacher in teachers.items():
        lost = {other for other, one in teachers.items() if teacher.actor and one.actor == teacher.actor} | {name}
        if teacher.may_be_dropped and lost == set(teachers):
            yield (
                f"{path}.teachers",
                f"{name!r} may be dropped, and then this loss would hear nobody; give it another teacher, or leave "
                f"may_be_dropped of {name!r} out",
            )


def _check_ensemble(path: str, loss: LossConfig, teachers: Mapping[str, TeachingSection]) -> Problems:
    rule = loss.ensemble
    assert rule is not None
    weights = rule.kwargs.get("weights")
    for name in weights if isinstance(weights, Mapping) else ():
        if name not in teachers:
            yield (
                f"{path}.ensemble.kwargs.weights",
                f"{unknown(str(name), teachers, 'teacher')} (of this loss)",
            )
