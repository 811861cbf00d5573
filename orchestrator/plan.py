"""What a config will do, before anything starts: rungs, who teaches whom, what travels, what it takes of a cluster.
Pure.

`Plan` is made from a config and what `checking` found; `Need` is what one rung holds of a cluster while it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.hearing import Hearing
from actors.knowledge import TeacherRequest, merged
from actors.pool.members import Inputs, by_host
from actors.reductions import raw_bytes_per_row
from actors.specs import LossSpec, Resources, TeacherSpec
from orchestrator.checking import Findings
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import Rung, ladder, section_of, teachers
from orchestrator.storing import stored_bytes
from orchestrator.targets import not_here

DIGEST_BYTES = 8
SENT_BYTES_PER_S = 100e6
"""Of a network of 1 Gbit/s, about; within a node ten times as much goes through shared memory."""


@dataclass(frozen=True)
class Teaching:
    """What one teacher sends one rung at the most. `bytes_per_step`: over all student workers; `unreduced`: bytes per
    sample if nothing were reduced at the teacher. None where only the cluster knows."""

    teacher: str
    outputs: tuple[str, ...]
    bytes_per_sample: int | None = None
    unreduced: int | None = None
    bytes_per_step: int | None = None


@dataclass(frozen=True)
class Need:
    """Amounts by resource name, each with its parts in words and the config keys that make it so large."""

    amounts: dict[str, float] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)

    def add(self, resources: Resources, count: int, what: str, key: str, count_key: str) -> None:
        """`key`: of the resources; `count_key`: of how many there are."""
        for name, each in {"CPU": resources.num_cpus, "GPU": resources.num_gpus, **resources.custom}.items():
            if each:
                self.amounts[name] = self.amounts.get(name, 0) + each * count
                self.parts.setdefault(name, []).append(f"{each * count:g} {what}")
                of_each = {"CPU": "num_cpus", "GPU": "num_gpus"}.get(name, f"custom.{name}")
                self.keys.setdefault(name, []).extend([count_key] * (count > 1) + [f"{key}.{of_each}"])


@dataclass(frozen=True)
class PlannedRung:
    """One rung and what it takes."""

    rung: Rung
    steps_per_epoch: int
    parameters: int
    teaching: tuple[Teaching, ...]
    need: Need


@dataclass(frozen=True)
class Plan:
    """All rungs in order. `elsewhere`: what only the cluster can check; `unheard`: teachers that teach nobody;
    `inputs`: how pixels come to the pool, None without one; `stored`: bytes that each rung's knowledge takes in the
    store, once it is all there."""

    name: str
    rungs: tuple[PlannedRung, ...]
    elsewhere: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    inputs: Inputs | None = None
    stored: Mapping[str, int] = field(default_factory=dict)

    @property
    def side_by_side(self) -> dict[str, float]:
        """What all rungs would take at once, by resource."""
        totals: dict[str, float] = {}
        for planned in self.rungs:
            for name, amount in planned.need.amounts.items():
                totals[name] = totals.get(name, 0) + amount
        return totals

    def refuse_if_elsewhere(self) -> None:
        """Raises ValueError where a package is missing that a run needs here."""
        if self.elsewhere:
            raise ValueError("\n".join(map(not_here, self.elsewhere)))

    def refuse_if_larger(self, cluster: Mapping[str, float]) -> None:
        """Raises ValueError where one rung alone needs more than the whole cluster has."""
        problems = [
            f"placement: {planned.rung.name} needs {amount:g} {name} "
            f"({' + '.join(planned.need.parts[name])}), the cluster "
            f"has {cluster.get(name, 0):g}; lower {' or '.join(planned.need.keys[name])}"
            for planned in self.rungs
            for name, amount in planned.need.amounts.items()
            if amount > cluster.get(name, 0)
        ]
        if problems:
            raise ValueError("\n".join(dict.fromkeys(problems)))


def make_plan(config: ExperimentConfig, findings: Findings) -> Plan:
    inputs = inputs_of(config, findings)
    rungs = tuple(
        PlannedRung(
            rung=rung,
            steps_per_epoch=findings.steps_per_epoch.get(rung.name, 0),
            parameters=findings.parameters.get("student" if rung.role == "alone" else rung.name, 0),
            teaching=tuple(_teaching(rung, name, findings.teachers.get(name), inputs) for name in rung.teachers),
            need=_need(config, rung),
        )
        for rung in ladder(config)
    )
    heard = {name for planned in rungs for name in planned.rung.teachers}
    unheard = tuple(name for name in config.teachers if name not in heard)
    stored = {} if config.store is None else _stored(config, findings)
    return Plan(config.name, rungs, findings.elsewhere, unheard, inputs, stored)


def _stored(config: ExperimentConfig, findings: Findings) -> dict[str, int]:
    """What only the cluster knows counts nothing."""
    assert config.store is not None
    data, validation = config.data.spec(), config.data.validation
    found = {}
    for rung in ladder(config):
        if rung.teachers and all(name in findings.teachers for name in rung.teachers):
            spec = rung.spec(data, validation, findings.num_classes, findings.teachers)
            found[rung.name] = stored_bytes(spec, config.store.encoding, config.store.encodings)
    return found


def inputs_of(config: ExperimentConfig, findings: Findings) -> Inputs | None:
    """Whether students send their pixels, which costs bytes, or every host builds them again, which costs time."""
    if config.source == "local":
        return None
    if config.inputs in ("sent", "derived"):
        return "sent" if config.inputs == "sent" else "derived"
    return "sent" if findings.row_bytes / SENT_BYTES_PER_S <= findings.row_seconds else "derived"


def _teaching(rung: Rung, name: str, teacher: TeacherSpec | None, inputs: Inputs | None) -> Teaching:
    listened = [loss for loss in rung.losses if name in loss.teachers]
    if teacher is None:
        return Teaching(name, tuple(dict.fromkeys(output for loss in listened for output in loss.outputs)))
    sent, unreduced = (
        _request(listened, teacher),
        _request([replace(loss, reduce="student") for loss in listened], teacher),
    )
    outputs = (*sent.sent, *(reduction.label for reduction in sent.reductions))
    digest = DIGEST_BYTES if inputs == "derived" else 0
    each = _bytes_per_row(sent, teacher) + digest
    return Teaching(name, outputs, each, _bytes_per_row(unreduced, teacher) + digest, rung.recipe.batch_size * each)


def _request(losses: Sequence[LossSpec], teacher: TeacherSpec) -> TeacherRequest:
    return merged([Hearing(loss, teacher).request for loss in losses])


def _bytes_per_row(request: TeacherRequest, teacher: TeacherSpec) -> int:
    reduced = sum(reduction.bytes_per_row(teacher.shapes) for reduction in request.reductions)
    return raw_bytes_per_row(request.sent, teacher.shapes) + reduced


def _need(config: ExperimentConfig, rung: Rung) -> Need:
    need = Need()
    noun = "worker" if rung.num_workers == 1 else "workers"
    trained = f"{rung.where}.train" if rung.role == "teacher" else rung.where
    workers = f"for {rung.num_workers} {rung.name} {noun}"
    need.add(rung.resources, rung.num_workers, workers, f"{rung.where}.resources", f"{trained}.num_workers")
    if config.source == "pool":
        for host, group in by_host([teachers(config)[name] for name in rung.teachers]).items():
            first, where = group[0], section_of(config, group[0].name)
            replicas = f"for {first.replicas} x teacher {host}"
            need.add(first.resources, first.replicas, replicas, f"{where}.resources", f"{where}.replicas")
    return need
