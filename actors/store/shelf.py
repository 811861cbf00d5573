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
        while not self._take_in():  # a file was merged into another one meanwhile: that one is there
            pass

    def _take_in(self) -> bool:
        """Whether every file was there that the folder had named."""
        names = [name for name in self._names() if name not in self._shards]
        found = {name: self._open(name) for name in names}
        new = {name: rows for name, rows in found.items() if rows is not None and name not in self._shards}
        with self._lock:
            if new:
                self._shards |= new
                self._register(list(new.values()))
        return all(rows is not None or name in self.put_aside for name, rows in found.items())

    def consolidate(self) -> None:
        """The same, and forgets what is gone; what came piece by piece lies together from now on."""
        gone = set(self._shards) - set(self._names())
        self.refresh()  # after it was seen to be gone: what it was merged into is there
        with self._lock:
            self._shards = {name: rows for name, rows in self._shards.items() if name not in gone}
            if gone or len(self._segments) > len(self._shards) + len(self._unwritten):
                self._lay_out()

    def _names(self) -> list[str]:
        return [name for name in self._folder.names() if name.endswith(SUFFIX)]

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
        if len(self._segments) == 1 and found.all():
            self._take(0, places & PLACE_MASK, into)
            return
        rows = np.flatnonzero(found)
        rows = rows[np.argsort(places[rows] >> PLACE_BITS, kind="stable")]
        numbers, within = places[rows] >> PLACE_BITS, places[rows] & PLACE_MASK
        ends = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
        for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
            if end > start:
                part, segment = slice(start, end), self._segments[int(numbers[start])]
                for name, column in into.items():
                    column[rows[part]] = segment.columns[name].take(within[part], axis=0)

    def _take(self, number: int, within: np.ndarray, into: Columns) -> None:
        for name, column in into.items():
            np.take(self._segments[number].columns[name], within, axis=0, out=column, mode="clip")

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

    def keys(self) -> np.ndarray:
        """Of all rows, each once."""
        with self._lock:
            return self._index.keys()

    def write(self) -> str | None:
        """Makes a shard of what is not written; its name. Raises OSError where it cannot be written."""
        with self._lock:
            waiting = list(self._unwritten)
        if not waiting:
            return None
        name, written = self._written(joined(waiting))
        with self._lock:
            self._unwritten = self._unwritten[len(waiting) :]
            if written is not None:
                self._shards[name] = written
                self._replace(waiting, written)
        return name

    def merge(self, names: Sequence[str]) -> None:
        """Makes one shard of several small ones. Raises OSError where it cannot be written: then they stay."""
        with self._lock:
            parts = [self._shards[name] for name in names if name in self._shards]
        merged, rows = self._written(joined(parts))
        if rows is None:
            return
        for name in set(names) - {merged}:
            self._folder.remove(name)
        with self._lock:
            self._shards = {name: rows for name, rows in self._shards.items() if name not in names} | {merged: rows}
            self._lay_out()

    def _written(self, rows: Rows) -> tuple[str, Rows | None]:
        content = packed(rows, self.piece.encoding, self.piece.identity)
        name = name_of(content)
        self._folder.write(name, content)
        return name, self._open(name)

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
