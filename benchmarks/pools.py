"""Teachers for the benchmarks and the pool that serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from torch import nn

from actors.data import SharedDataset
from actors.memory import keep_freed_memory
from actors.pool.keeper import PoolSettings, TeacherPool
from actors.pool.members import Inputs, PoolHandle
from actors.probe import probe_shapes
from actors.specs import ImportSpec, ModelSpec, TeacherSpec
from actors.weights import fit_weights, read_weights, weights_as_bytes
from benchmarks.fashion import DATA, INPUT, Fashion
from orchestrator.cluster import connected

SPARE_CPUS = 8
"""For whoever asks the pool."""
Result = TypeVar("Result")


def computing_teacher(name: str, folder: Path, target: str, taps: Sequence[str] = (), **kwargs: Any) -> TeacherSpec:
    """A teacher with the weights that it was drawn with: they change no speed."""
    model = ModelSpec(ImportSpec(target, kwargs), INPUT, {tap: tap for tap in taps})
    torch.manual_seed(0)
    built = model.model.build()
    weights = folder / f"{name}.safetensors"
    weights.write_bytes(weights_as_bytes(built))
    return TeacherSpec(name, model, str(weights), probe_shapes(built, model.taps, torch.zeros(1, 1, 28, 28), name))


def bare_model(spec: TeacherSpec) -> nn.Module:
    """The same model without Collegium."""
    model = spec.model.model.build()
    fit_weights(model, read_weights(spec.weights, spec.name), spec.name)
    return model.eval().requires_grad_(False)


@contextmanager
def pool_of(teachers: Sequence[TeacherSpec], dataset: Fashion, inputs: Inputs = "sent") -> Iterator[PoolHandle]:
    """A pool of these teachers for as long as the block lasts, on a cluster that is there or on one of its own."""
    with connected(None, {"CPU": SPARE_CPUS + sum(one.replicas * one.resources.num_cpus for one in teachers)}):
        shared = ray.put(SharedDataset.of(dataset))
        pool = TeacherPool.start(teachers, shared, DATA, PoolSettings(inputs))
        try:
            yield pool.handle
        finally:
            pool.stop()


def in_its_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """As a student worker runs: beside the process that tends the pool, not in it."""

    def like_a_student() -> Result:
        keep_freed_memory()
        return function(*arguments)

    return ray.get(ray.remote(like_a_student).options(num_cpus=1).remote())
