"""Whether a store says what the teachers say: a random sample of its rows is computed again. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from actors.data import Rows
from actors.knowledge import Batch, KnowledgeRequest, Position, TeacherRequest
from actors.sources import LocalTeachers
from actors.specs import StoreSpec, StudentSpec
from actors.storage import Folder
from actors.store.keys import Piece, pieces, row_keys
from actors.store.shelf import Shelf


@dataclass(frozen=True)
class Verified:
    """Of one piece of a teacher's knowledge: rows that were compared; of these, whose pixels are others now, and which
    the teacher says otherwise, by how much at the most."""

    teacher: str
    piece: str
    compared: int
    other_pixels: int
    differing: int
    largest: float
    put_aside: tuple[str, ...]


def verified(
    spec: StudentSpec, store: StoreSpec, request: KnowledgeRequest, rows: Rows, samples: int, seed: int = 0
) -> Iterator[Verified]:
    """Each piece of what a rung asks; `rows`: the training set's."""
    teachers = LocalTeachers.load(spec.teachers)
    by_name = {teacher.name: teacher for teacher in spec.teachers}
    dice = np.random.Generator(np.random.Philox(seed))
    for one in request:
        for piece in pieces(one, by_name[one.teacher], store):
            shelf = Shelf(Folder(store.folder), piece)
            keys = shelf.keys()
            chosen = dice.permutation(keys)[:samples]
            yield _compared(teachers, one, shelf, chosen, rows)


def _compared(teachers: LocalTeachers, request: TeacherRequest, shelf: Shelf, keys: np.ndarray, rows: Rows) -> Verified:
    piece, nothing = shelf.piece, Verified(request.teacher, shelf.piece.name, 0, 0, 0, 0.0, tuple(shelf.put_aside))
    if not len(keys):
        return nothing
    batch = _batch(rows, keys)
    there = piece.encoding.empty(len(keys))
    found, _ = shelf.find(row_keys(batch.ids, batch.views), batch.digests, there)
    (said,) = teachers.ask(batch, (_alone(request, piece),)).result()
    anew = piece.encoding.encode(said.tensors[piece.name])
    same = np.logical_and.reduce([(anew[name] == there[name]).all(axis=1) for name in there])
    differing = found & ~same
    old, new = piece.encoding.decode(there), piece.encoding.decode(anew)
    distances = (old.double() - new.double()).abs().flatten(1).amax(dim=1).numpy()
    largest = float(distances[differing].max(initial=0.0))
    return replace(
        nothing,
        compared=int(found.sum()),
        other_pixels=int((~found).sum()),
        differing=int(differing.sum()),
        largest=largest,
    )


def _alone(request: TeacherRequest, piece: Piece) -> TeacherRequest:
    """What brings this piece and no other."""
    return TeacherRequest(
        request.teacher,
        logits=piece.name in request.sent[:1] and request.logits,
        taps=tuple(tap for tap in request.taps if tap == piece.name),
        reductions=tuple(one for one in request.reductions if piece.name in one.keys),
    )


def _batch(rows: Rows, keys: np.ndarray) -> Batch:
    ids = (keys >> np.uint64(32)).astype(np.int64)
    views = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    inputs, labels = rows.build(ids, views)
    return Batch(ids, views, inputs, labels, Position())
