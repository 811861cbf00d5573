"""What a run keeps of its teachers' knowledge, and whether that is already all it needs. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from actors.data import slice_ids, view_of
from actors.hearing import Hearing
from actors.knowledge import TeacherRequest, merged
from actors.specs import StoreSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.store.keys import data_identity, judge_identity, pieces, row_keys
from actors.store.shelf import Shelf
from actors.teacher import weights_version
from actors.views import MapDataset
from orchestrator.config import ExperimentConfig
from orchestrator.fields import STORE_FOLDER
from orchestrator.identity import file_hash


def store_folder(config: ExperimentConfig) -> Folder:
    """Where the knowledge of a config lies, if it keeps any."""
    own = None if config.store is None else config.store.folder
    return Folder(str(Path(own).absolute())) if own else Folder(str(Path(config.storage).absolute())) / STORE_FOLDER


def store_of(config: ExperimentConfig, dataset: MapDataset) -> StoreSpec | None:
    """None where nothing is kept. Who judges is told by `judged_by`."""
    section = config.store
    if section is None:
        return None
    data = data_identity(dataset, config.data.spec())
    return StoreSpec(store_folder(config).path, section.encoding, section.encodings, data)


def judged_by(store: StoreSpec, teachers: Sequence[TeacherSpec]) -> StoreSpec:
    """The store as one rung uses it, whose teachers are trained by now."""
    return replace(store, judges={one.name: judge_identity(one, _version(one)) for one in teachers})


def _version(teacher: TeacherSpec) -> str:
    return _version_of(_Weighed(teacher), file_hash(teacher.weights))


@dataclass(frozen=True)
class _Weighed:
    """A teacher as a key: a spec holds mappings, which have no hash."""

    spec: TeacherSpec

    def __hash__(self) -> int:
        return hash(self.spec.weights)


@cache
def _version_of(teacher: _Weighed, content: str) -> str:
    return weights_version(teacher.spec)


def encodings_of(store: StoreSpec | None) -> Mapping[str, Any] | None:
    """What of a store makes the student another one; None where it is as without: float32 keeps all bits."""
    if store is None or {store.encoding, *store.encodings.values()} == {"float32"}:
        return None
    return {"encoding": store.encoding, "encodings": store.encodings}


def lacking(spec: StudentSpec, store: StoreSpec, length: int) -> list[str]:
    """The teachers of a rung who must be asked something. `length`: of the training set. Whether pixels are still the
    same is seen while training."""
    by_name = {teacher.name: teacher for teacher in spec.teachers if teacher.name not in spec.dropped}
    views_of: dict[TeacherRequest, set[int]] = {}
    for epoch in range(spec.recipe.epochs):
        for request in _requests(spec, by_name, epoch):
            views_of.setdefault(request, set()).add(view_of(spec.data.num_views, epoch))
    ids = _ids(spec, length)
    shelves: dict[str, Shelf] = {}
    found = []
    for request, views in views_of.items():
        for piece in pieces(request, by_name[request.teacher], store):
            shelf = shelves.setdefault(piece.key, Shelf(Folder(store.folder), piece))
            if not all(_holds(shelf, ids, view) for view in views):
                found.append(request.teacher)
    return [name for name in by_name if name in found]


def _requests(spec: StudentSpec, teachers: Mapping[str, TeacherSpec], epoch: int) -> Iterator[TeacherRequest]:
    active = [loss for loss in spec.losses if loss.weight.at(epoch) != 0]
    for name, teacher in teachers.items():
        if heard := [Hearing(loss, teacher).request for loss in active if name in loss.teachers]:
            yield merged(heard)


def _ids(spec: StudentSpec, length: int) -> np.ndarray:
    slices = slice_ids(spec.data.slices, length, spec.data.seed)
    return np.concatenate([slices[name] for name in (spec.labelled, spec.unlabelled) if name])


def _holds(shelf: Shelf, ids: np.ndarray, view: int) -> bool:
    return len(shelf) >= len(ids) and bool(shelf.holds(row_keys(ids, np.full(len(ids), view))).all())


def told(store: StoreSpec | None) -> dict[str, Any] | None:
    """For the result."""
    if store is None:
        return None
    return {key: value for key, value in asdict(store).items() if key in ("folder", "encoding", "encodings")}
