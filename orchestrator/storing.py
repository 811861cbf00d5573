"""What a run keeps of its teachers' knowledge, and whether that is already all it needs. Imports no Ray."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from actors.data import slice_ids, view_of
from actors.hearing import Hearing
from actors.knowledge import KnowledgeRequest, TeacherRequest, merged
from actors.specs import EncodingName, StoreSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.store.keys import data_identity, judge_identity, pieces, row_keys
from actors.store.shelf import Shelf
from actors.teacher import weights_version
from actors.views import MapDataset
from orchestrator.config import ExperimentConfig
from orchestrator.fields import STORE_FOLDER
from orchestrator.identity import file_hash

BYTES_OF_A_KEY = 16
"""Of the id, the view and the digest of a row."""


def store_folder(config: ExperimentConfig) -> Folder:
    """Where the knowledge of a config lies, if it keeps any."""
    own = None if config.store is None else config.store.folder
    return Folder.at(own) if own else Folder.at(config.storage) / STORE_FOLDER


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
    return list(dict.fromkeys(one.teacher for one in coverage(spec, store, length) if one.there < one.needed))


@dataclass(frozen=True)
class Covered:
    """Of one piece of a teacher's knowledge: how many of the rows that a rung needs are there."""

    teacher: str
    piece: str
    there: int
    needed: int


def coverage(spec: StudentSpec, store: StoreSpec, length: int) -> list[Covered]:
    """Of each piece that a rung will ask for, in all views that it uses it in."""
    by_name = {teacher.name: teacher for teacher in spec.teachers}
    ids, views_of = _ids(spec, length), _views_of_requests(spec)
    shelves: dict[str, Shelf] = {}
    views_of_piece: dict[tuple[str, str, str], set[int]] = {}
    for request, views in views_of.items():
        for piece in pieces(request, by_name[request.teacher], store):
            shelves.setdefault(piece.key, Shelf(Folder(store.folder), piece))
            views_of_piece.setdefault((request.teacher, piece.name, piece.key), set()).update(views)
    return [
        Covered(teacher, name, sum(_held(shelves[key], ids, view) for view in views), len(ids) * len(views))
        for (teacher, name, key), views in views_of_piece.items()
    ]


def _views_of_requests(spec: StudentSpec) -> dict[TeacherRequest, set[int]]:
    views: dict[TeacherRequest, set[int]] = {}
    for epoch in range(spec.recipe.epochs):
        for request in _requests(spec, epoch):
            views.setdefault(request, set()).add(view_of(spec.data.num_views, epoch))
    return views


def requests_by_view(spec: StudentSpec, teachers: Collection[str]) -> dict[int, KnowledgeRequest]:
    """All that a rung asks of these teachers in each view, as one request each."""
    by_view: dict[int, dict[str, list[TeacherRequest]]] = {}
    for request, views in _views_of_requests(spec).items():
        for view in views if request.teacher in teachers else ():
            by_view.setdefault(view, {}).setdefault(request.teacher, []).append(request)
    return {view: tuple(map(_together, by_view[view].values())) for view in sorted(by_view)}


def _together(several: Sequence[TeacherRequest]) -> TeacherRequest:
    """All of it: unlike `merged`, also what could be made of something else."""
    return TeacherRequest(
        several[0].teacher,
        any(one.logits for one in several),
        tuple(dict.fromkeys(tap for one in several for tap in one.taps)),
        None,
        tuple(dict.fromkeys(reduction for one in several for reduction in one.reductions)),
    )


def _requests(spec: StudentSpec, epoch: int) -> Iterator[TeacherRequest]:
    active = [loss for loss in spec.losses if loss.weight.at(epoch) != 0]
    for teacher in spec.teachers:
        heard = [Hearing(loss, teacher).request for loss in active if teacher.name in loss.teachers]
        if heard and teacher.name not in spec.dropped:
            yield merged(heard)


def _ids(spec: StudentSpec, length: int) -> np.ndarray:
    slices = slice_ids(spec.data.slices, length, spec.data.seed)
    return np.concatenate([slices[name] for name in (spec.labelled, spec.unlabelled) if name])


def _held(shelf: Shelf, ids: np.ndarray, view: int) -> int:
    return int(shelf.holds(row_keys(ids, np.full(len(ids), view))).sum())


def stored_bytes(spec: StudentSpec, encoding: EncodingName, encodings: Mapping[str, EncodingName]) -> int:
    """What all that a rung asks takes in a store; pieces that several rungs share are counted for each."""
    store = StoreSpec("", encoding, encodings, judges={teacher.name: {} for teacher in spec.teachers})
    by_name = {teacher.name: teacher for teacher in spec.teachers}
    rows = sum(spec.data.slices[name] for name in (spec.labelled, spec.unlabelled) if name)
    views_of_piece: dict[tuple[str, str], tuple[int, set[int]]] = {}
    for request, views in _views_of_requests(spec).items():
        for piece in pieces(request, by_name[request.teacher], store):
            each = piece.encoding.bytes_per_row + BYTES_OF_A_KEY
            views_of_piece.setdefault((request.teacher, piece.name), (each, set()))[1].update(views)
    return sum(rows * each * len(views) for each, views in views_of_piece.values())


def store_name(rung: str) -> str:
    """What filling the store for a rung is called."""
    return f"store for {rung}"


def refuse_storeless(config: ExperimentConfig) -> None:
    """Raises ValueError where nothing is kept."""
    if config.store is None:
        raise ValueError("store: this config keeps nothing; add `store: true`")


def refuse_placeless(config: ExperimentConfig) -> None:
    """Makes the store's folder; raises ValueError where it cannot be."""
    folder = store_folder(config)
    if config.store is None or folder.is_remote:
        return
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"store.folder: {folder} cannot be made: {error.strerror}; choose another folder") from error


def refuse_endless(config: ExperimentConfig) -> None:
    """Raises ValueError where there is no store, or no end of what could be put into it."""
    refuse_storeless(config)
    if config.data.num_views == "fresh":
        raise ValueError(
            "data.num_views: expected a number, got 'fresh': every epoch would ask for views that no other run uses; "
            "say how many each sample has, 4 say"
        )


def told(store: StoreSpec | None) -> dict[str, Any] | None:
    """For the result."""
    if store is None:
        return None
    return {key: value for key, value in asdict(store).items() if key in ("folder", "encoding", "encodings")}
