"""What the sections of a config must agree on; what losses need stands in `loss_checks`.

A check yields problems, `(key path, text)`. Each section is well-formed by itself when it comes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.loss_checks import check_losses
from orchestrator.problems import unknown

if TYPE_CHECKING:
    from orchestrator.config import ExperimentConfig

Problems = Iterator[tuple[str, str]]


def cross_check(config: ExperimentConfig) -> list[str]:
    """One line per disagreement."""
    checks = (_check_names, _check_slices, _check_batches, _check_source, _check_actors, _check_encodings, check_losses)
    lines = [f"{path}: {text}" for check in checks for path, text in check(config)]
    return list(dict.fromkeys(lines))


def _check_names(config: ExperimentConfig) -> Problems:
    for name in config.assistants:
        if name in config.teachers:
            yield f"assistants.{name}", f"teachers has a {name!r} too; give one of them another name"


def _check_slices(config: ExperimentConfig) -> Problems:
    slices, validation = config.data.slices, config.data.validation
    if validation not in slices:
        yield "data.validation", f"data.slices has {unknown(validation, slices, 'slice')}"
    for path, name in _slices_to_train_on(config):
        if name not in slices:
            yield path, f"data.slices has {unknown(name, slices, 'slice')}"
        elif name == validation:
            yield path, f"{name!r} is the slice for validation (data.validation); train on another"
    if config.student.data.labelled == config.student.data.unlabelled:
        yield "student.data.unlabelled", f"{config.student.data.labelled!r} is the labelled slice; name another"


def _slices_to_train_on(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    for name, teacher in config.teachers.items():
        if teacher.train:
            yield f"teachers.{name}.train.slice", teacher.train.slice
    own = {f"assistants.{n}": a.data for n, a in config.assistants.items() if a.data != config.student.data}
    for rung, data in {"student": config.student.data, **own}.items():
        yield f"{rung}.data.labelled", data.labelled
        if data.unlabelled is not None:
            yield f"{rung}.data.unlabelled", data.unlabelled


def _check_encodings(config: ExperimentConfig) -> Problems:
    heard = {"logits"} | {tap for one in (*config.teachers.values(), *config.assistants.values()) for tap in one.taps}
    for name in config.store.encodings if config.store else ():
        if name not in heard:
            yield f"store.encodings.{name}", f"{unknown(name, heard, 'tap')} (of those who teach; or logits)"


def _check_batches(config: ExperimentConfig) -> Problems:
    batch_size, student = config.data.batch_size, config.student
    own = {f"assistants.{n}": a for n, a in config.assistants.items() if a.num_workers != student.num_workers}
    for rung, section in {"student": student, **own}.items():
        yield from _check_batch("data.batch_size", batch_size, rung, section.num_workers)
    for name, teacher in config.teachers.items():
        if teacher.train:
            rung = f"teachers.{name}.train"
            yield from _check_batch(f"{rung}.batch_size", teacher.train.batch_size, rung, teacher.train.num_workers)


def _check_batch(path: str, batch_size: int, rung: str, num_workers: int) -> Problems:
    below = batch_size - batch_size % num_workers
    if below != batch_size:
        sizes = " and ".join(str(size) for size in (below, below + num_workers) if size)
        yield (
            path,
            f"expected a multiple of {rung}.num_workers ({num_workers}), got {batch_size}; nearest: {sizes}",
        )


def _check_actors(config: ExperimentConfig) -> Problems:
    """Teachers of one actor are as many as it, take what it takes, and are lost with it."""
    first: dict[str, str] = {}
    sections = {f"teachers.{name}": teacher for name, teacher in config.teachers.items()}
    sections |= {f"assistants.{name}": assistant for name, assistant in config.assistants.items()}
    for path, section in sections.items():
        if section.actor is None:
            continue
        other = first.setdefault(section.actor, path)
        for key in ("replicas", "resources", "may_be_dropped"):
            if getattr(section, key) != getattr(sections[other], key):
                yield f"{path}.{key}", f"it shares the actor {section.actor!r} with {other}; give both the same {key}"
        if section.actor in (*config.teachers, *config.assistants):
            yield f"{path}.actor", f"a teacher is called {section.actor!r} already; choose another name for the actor"


def _check_source(config: ExperimentConfig) -> Problems:
    for kind, teachers in (("teachers", config.teachers), ("assistants", config.assistants)):
        for name, teacher in teachers.items():
            if config.source == "local" and teacher.replicas != 1:
                got = teacher.replicas if isinstance(teacher.replicas, int) else "a range"
                yield (
                    f"{kind}.{name}.replicas",
                    f"expected 1 with source: local, where teachers run in the student's process, got "
                    f"{got}; set source: pool",
                )
            if config.source == "local" and teacher.actor is not None:
                yield f"{kind}.{name}.actor", "only a pool has actors (source: local); leave it out"
            if config.source == "local" and teacher.may_be_dropped:
                yield (
                    f"{kind}.{name}.may_be_dropped",
                    "only a pool loses teachers (source: local); leave it out",
                )
            reserved = teacher.resources.num_gpus or teacher.resources.custom
            if config.source == "local" and kind == "teachers" and reserved:
                yield (
                    f"{kind}.{name}.resources",
                    "with source: local a teacher runs where the student does; set student.resources or source: pool",
                )
