"""Writes what was computed into shards, in a thread of its own: every few seconds, and when somebody waits for it.

Imports no Ray.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread

import numpy as np

from actors.store.claims import Claims
from actors.store.leases import Lease
from actors.store.shard import Rows
from actors.store.shelf import Shelf

logger = logging.getLogger(__name__)

EACH_S = 2.0
TICK_S = 0.25
MOST_BYTES = 1 << 26
MANY_SHARDS = 32
"""So many small ones of a writer's own become a large one."""


class Writer:
    """`ended`: why nothing is written any more. `written`: is told how many rows of each teacher were."""

    def __init__(self, claims: Claims, lease: Lease, written: Callable[[Mapping[str, int]], None]) -> None:
        self.ended = ""
        self._lease = lease
        self._claims = claims
        self._written = written
        self._shelves: dict[str, Shelf] = {}
        self._small: dict[str, list[str]] = {}
        self._claimed: list[tuple[str, str, np.ndarray]] = []
        self._num_bytes = 0
        self._flushed_s = time.monotonic()
        self._lock, self._flushing = Lock(), Lock()
        self._closing, self._full = Event(), Event()
        self._thread = Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def add(self, teacher: str, judge: str, keys: np.ndarray, rows: Mapping[Shelf, Rows]) -> None:
        """What one teacher said anew, for its shelves; `keys` are claimed under `judge`."""
        if self.ended:
            self._claims.release({judge: keys})
            return
        for shelf, new in rows.items():
            shelf.add(new)
        with self._lock:
            self._shelves = self._shelves | {shelf.piece.key: shelf for shelf in rows}
            self._claimed.append((teacher, judge, keys))
            self._num_bytes += sum(column.nbytes for new in rows.values() for column in new.columns.values())
        if self._num_bytes > MOST_BYTES:
            self._full.set()

    def flush(self) -> None:
        """Everybody can read all that was added before, unless writing has ended."""
        with self._flushing:
            with self._lock:
                claimed, self._claimed = self._claimed, []
                self._num_bytes, self._flushed_s = 0, time.monotonic()
            if not claimed:
                return
            try:
                for shelf in self._shelves.values():
                    self._write(shelf)
            except (OSError, ValueError) as error:  # ValueError: a bucket that does not answer
                self._end(error)
            rows: Counter[str] = Counter()
            for teacher, judge, keys in claimed:
                self._claims.release({judge: keys})
                rows[teacher] += 0 if self.ended else len(keys)
            self._written(rows)

    def _write(self, shelf: Shelf, few: int = MANY_SHARDS) -> None:
        name = shelf.write()
        small = self._small.setdefault(shelf.piece.key, [])
        small += [name] if name else []
        if len(small) >= few:
            shelf.merge(small)
            small.clear()

    def close(self) -> None:
        self._closing.set()
        self._full.set()
        self._thread.join()
        self.flush()
        with suppress(OSError, ValueError):
            for shelf in self._shelves.values():
                self._write(shelf, few=2)
        self._lease.end()

    def _end(self, error: Exception) -> None:
        self.ended = str(error)
        logger.warning(
            "store: nothing is written any more: %s; training goes on, and asks teachers again for what is missing; "
            "make room, or give store.folder another place",
            error,
        )
        for shelf in self._shelves.values():
            shelf.forget_unwritten()

    def _run(self) -> None:
        while not self._closing.is_set():
            is_full = self._full.wait(TICK_S)
            self._full.clear()
            self._lease.renew()
            is_due = time.monotonic() - self._flushed_s > EACH_S
            try:
                if self._claims.is_waited_for() or is_full or is_due:
                    self.flush()
            except Exception as error:  # without this thread what is not written would pile up
                self._end(error)
