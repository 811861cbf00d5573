"""All that a store holds of one piece of knowledge: its shards and what is not written yet. Imports no Ray."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock

import numpy as np

from actors.storage import Folder
from actors.store.encodings import Columns
from actors.store.index import MISSING, Index
from actors.store.keys import Piece
from actors.store.shard import SUFFIX, Rows, ShardError, joined, name_of, opened, packed

logger = logging.getLogger(__name__)

ASIDE = "set-aside"
PLACE_BITS = 32
PLACE_MASK = (1 << PLACE_BITS) - 1


class Shelf:
    """Safe for threads: one trains and reads while another writes. `put_aside`: shards that were torn or altered."""

    def __init__(self, store: Folder, piece: Piece) -> None:
        self.piece = piece
        self.put_aside: list[str] = []
        self._folder = store / piece.key
        self._lock = Lock()
        self._shards: dict[str, Rows] = {}
        self._unwritten: list[Rows] = []
        self._index = Index()
        self._segments: list[Rows] = []
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Takes in what others have written."""
        known = set(self._shards)
        names = [name for name in self._folder.names() if name.endswith(SUFFIX) and name not in known]
        found = {name: rows for name in names if (rows := self._open(name))}
        with self._lock:
            new = {name: rows for name, rows in found.items() if name not in self._shards}
            if new:
                self._shards |= new
                self._register(list(new.values()))

    def consolidate(self) -> None:
        """The same, and forgets what is gone; what came piece by piece lies together from now on."""
        self.refresh()
        there = set(self._folder.names())
        with self._lock:
            gone = [name for name in self._shards if name not in there]
            if gone or len(self._segments) > len(self._shards) + len(self._unwritten):
                for name in gone:
                    del self._shards[name]
                self._lay_out()

    def _lay_out(self) -> None:
        self._segments, self._index = [], Index()
        for several in (list(self._shards.values()), self._unwritten):
            if several:
                self._register(several)

    def _register(self, several: Sequence[Rows]) -> None:
        first = len(self._segments)
        self._segments += several
        places = [np.arange(len(rows)) | (number << PLACE_BITS) for number, rows in enumerate(several, first)]
        keys, digests = [rows.keys for rows in several], [rows.digests for rows in several]
        self._index.add(np.concatenate(keys), np.concatenate(digests), np.concatenate(places))

    def _open(self, name: str) -> Rows | None:
        try:
            return opened(self._folder.local(name), name, self.piece.encoding, self.piece.identity)
        except FileNotFoundError:  # removed by somebody since
            return None
        except ShardError as error:
            self._set_aside(name, str(error))
            return None
        except OSError as error:
            self._warn(name, f"it cannot be read: {error}")
            return None

    def _set_aside(self, name: str, cause: str) -> None:
        """What a reader cannot use is kept for people, out of the readers' way."""
        try:
            content = self._folder.read(name)
            (self._folder / ASIDE).write(name, content)
            self._folder.remove(name)
        except OSError as error:
            cause += f"; it could not be set aside: {error}"
        self._warn(name, cause)

    def _warn(self, name: str, cause: str) -> None:
        if name not in self.put_aside:
            self.put_aside.append(name)
            where = self._folder.file(name)
            logger.warning("store: %s is not used, %s; its rows are computed again", where, cause)

    def find(self, keys: np.ndarray, digests: np.ndarray, into: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Copies the rows that are there `into` columns of as many rows. Which were; and which were there with other
        pixels alone."""
        with self._lock:
            places, others = self._index.find(keys, digests)
            found = places != MISSING
            self._gather(places, found, into)
        return found, others

    def _gather(self, places: np.ndarray, found: np.ndarray, into: Columns) -> None:
        rows = np.flatnonzero(found)
        if not len(rows):
            return
        numbers, within = places[rows] >> PLACE_BITS, places[rows] & PLACE_MASK
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        for part in np.split(order, ends):
            segment = self._segments[int(numbers[part[0]])]
            for name, column in into.items():
                if len(part) == len(column):
                    np.take(segment.columns[name], within, axis=0, out=column, mode="clip")
                else:
                    column[rows[part]] = segment.columns[name][within[part]]

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key is there, whatever its pixels."""
        with self._lock:
            return self._index.holds(keys)

    def add(self, rows: Rows) -> None:
        """Rows that are still to be written."""
        if not len(rows):
            return
        with self._lock:
            self._unwritten.append(rows)
            self._register([rows])

    def write(self) -> Rows | None:
        """Makes a shard of what is not written; which rows. Raises OSError where it cannot be written."""
        with self._lock:
            waiting = list(self._unwritten)
        if not waiting:
            return None
        rows = joined(waiting)
        content = packed(rows, self.piece.encoding, self.piece.identity)
        name = name_of(content)
        self._folder.write(name, content)
        written = self._open(name)
        with self._lock:
            self._unwritten = self._unwritten[len(waiting) :]
            if written is not None:
                self._shards[name] = written
                self._replace(waiting, written)
        return rows

    def _replace(self, waiting: Sequence[Rows], written: Rows) -> None:
        """Rows in memory by the same rows of the file, in their places."""
        start, places = 0, {id(rows): number for number, rows in enumerate(self._segments)}
        for rows in waiting:
            if id(rows) in places:
                self._segments[places[id(rows)]] = written.at(slice(start, start + len(rows)))
            start += len(rows)

    def forget_unwritten(self) -> None:
        with self._lock:
            self._unwritten = []
            self._lay_out()
