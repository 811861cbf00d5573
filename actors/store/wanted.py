"""One batch's way through the store: what of it is filled, and what another source was asked for. Imports no Ray.

`Wanted` is what one teacher is asked about a batch; `Fetch` brings the rows of several that were missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from actors.knowledge import LOGITS, Batch, Knowledge, TeacherRequest
from actors.sources import Answer, TeacherSource
from actors.store.encodings import Columns
from actors.store.shard import Rows
from actors.store.shelf import Shelf


@dataclass
class Wanted:
    """`columns`: of each shelf, one row for each that is asked about, filled where it was `found`, (shelves, rows);
    `others`: the rows that are known of other pixels alone."""

    request: TeacherRequest
    shelves: Sequence[Shelf]
    keys: np.ndarray
    digests: np.ndarray
    columns: Sequence[Columns]
    found: np.ndarray
    others: np.ndarray
    fetches: list[Fetch] = field(default_factory=list)

    @property
    def missing(self) -> np.ndarray:
        """Whether a row lacks anything."""
        return ~np.logical_and.reduce(self.found)

    @property
    def is_whole(self) -> bool:
        return bool(self.found.all())

    @classmethod
    def of(cls, request: TeacherRequest, shelves: Sequence[Shelf], keys: np.ndarray, digests: np.ndarray) -> Wanted:
        """With what the shelves have."""
        columns = [shelf.piece.encoding.empty(len(keys)) for shelf in shelves]
        found, others = np.zeros((2, len(shelves), len(keys)), dtype=bool)
        for place, shelf in enumerate(shelves):
            found[place], others[place] = shelf.find(keys, digests, columns[place])
        return cls(request, shelves, keys, digests, columns, found, np.logical_or.reduce(others))

    def find(self) -> None:
        """Takes what the shelves have by now."""
        for place, shelf in enumerate(self.shelves):
            rows = np.flatnonzero(~self.found[place])
            into = shelf.piece.encoding.empty(len(rows))
            found, other = shelf.find(self.keys[rows], self.digests[rows], into)
            self.others[rows] |= other
            self._put(place, rows[found], {name: column[found] for name, column in into.items()})

    def fill(self, fetched: Mapping[str, Rows]) -> None:
        """Takes what was fetched, by the name of the piece."""
        for place, shelf in enumerate(self.shelves):
            rows = fetched.get(shelf.piece.name)
            if rows is None:
                continue
            order = np.argsort(rows.keys)
            at = order[np.minimum(np.searchsorted(rows.keys, self.keys, sorter=order), len(rows) - 1)]
            fits = (rows.keys[at] == self.keys) & (rows.digests[at] == self.digests)
            self._put(place, np.flatnonzero(fits), rows.at(at[fits]).columns)

    def _put(self, place: int, rows: np.ndarray, columns: Columns) -> None:
        for name, column in columns.items():
            self.columns[place][name][rows] = column
        self.found[place][rows] = True

    def narrowed(self, rows: np.ndarray) -> TeacherRequest:
        """The request for what these rows lack."""
        request, found = self.request, zip(self.shelves, self.found, strict=True)
        lacking = {shelf.piece.name for shelf, there in found if not there[rows].all()}
        numbers = rows if request.rows is None else np.array(request.rows)[rows]
        is_all = request.rows is None and len(rows) == len(self.keys)
        return TeacherRequest(
            request.teacher,
            logits=LOGITS in lacking,
            taps=tuple(tap for tap in request.taps if tap in lacking),
            rows=None if is_all else tuple(numbers.tolist()),
            reductions=tuple(one for one in request.reductions if lacking.intersection(one.keys)),
        )

    def unknown(self, shelf: Shelf, rows: np.ndarray) -> np.ndarray:
        """Of these rows whether the shelf had none of its own."""
        return ~self.found[self.shelves.index(shelf)][rows]

    def knowledge(self, version: str) -> Knowledge:
        tensors = {
            shelf.piece.name: shelf.piece.encoding.decode(columns)
            for shelf, columns in zip(self.shelves, self.columns, strict=True)
        }
        return Knowledge(self.request.teacher, tensors.pop(LOGITS, None), tensors, None, version, self.request.rows)


Part = tuple[Wanted, TeacherRequest, np.ndarray]
"""What one teacher is asked, narrowed to what is missing; the rows that this is about."""


class Fetch:
    """What another source was asked about one batch. `taken`: by teacher and piece, once the answer was taken."""

    def __init__(self, batch: Batch, parts: Sequence[Part], inner: TeacherSource) -> None:
        self.batch = batch
        self.parts = parts
        self.taken: dict[str, Mapping[str, Rows]] = {}
        self._answer: Answer = inner.ask(batch, tuple(request for _, request, _ in parts))

    def result(self) -> list[Knowledge]:
        answers = zip(self.parts, self._answer.result(), strict=True)
        return [replace(one, rows=request.rows) for (_, request, _), one in answers]
