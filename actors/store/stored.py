"""Knowledge from the store where it is there, from another source where it is not. Imports no Ray."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from actors.errors import KnowledgeError, NotStoredError
from actors.fingerprints import content_hash
from actors.knowledge import Batch, Knowledge, KnowledgeRequest, TeacherRequest, at_rows, refuse_other_pixels
from actors.serving import Served, ServingLog
from actors.sources import TeacherSource
from actors.specs import StoreSpec, TeacherSpec
from actors.storage import Folder
from actors.store.claims import Claims, NobodyElse
from actors.store.keys import pieces, row_keys
from actors.store.leases import Lease
from actors.store.passes import Passes
from actors.store.shard import Rows
from actors.store.shelf import Shelf
from actors.store.wanted import Fetch, Wanted
from actors.store.writing import Writer

STORE = "store"
"""What the store is called among replicas."""
LOOKS_EACH_S = 0.02
PATIENCE_S = 60.0
"""Who computes what others wait for may itself wait for them: after so long, it is computed twice."""


Tell = Callable[[Mapping[str, Passes], str], None]
"""Is told the passes so far, and why nothing is written any more, or ``."""


class StoredTeachers:
    """Reads through: what it returns is always what the store gives back. `serves`: the teachers of whom `inner` can
    be asked. For one thread."""

    def __init__(
        self,
        store: StoreSpec,
        teachers: Sequence[TeacherSpec],
        inner: TeacherSource | None = None,
        serves: Collection[str] = (),
        claims: Claims | None = None,
        tell: Tell = lambda passes, ended: None,
    ) -> None:
        self.log = ServingLog() if inner is None else inner.log
        self.passes = {teacher.name: Passes() for teacher in teachers}
        self.digests_s = 0.0
        self._store = store
        self._folder = Folder(store.folder)
        self._inner = inner
        self._serves = serves
        self._specs = {teacher.name: teacher for teacher in teachers}
        self._judges = {name: content_hash([name, store.judges[name], store.data]) for name in self._specs}
        self._claims = claims or NobodyElse()
        self._tell = tell
        self._lease = Lease(self._folder)
        self._writer = Writer(self._claims, self._lease, self._written)
        self._shelves: dict[str, Shelf] = {}
        self._shelves_of: dict[TeacherRequest, list[Shelf]] = {}
        self._under_way: dict[str, dict[int, Fetch]] = {name: {} for name in self._specs}
        self._fetches: deque[Fetch] = deque()
        self._epoch = -1
        self._version = 0

    @property
    def likes_ahead(self) -> int:
        return 1 if self._inner is None else self._inner.likes_ahead

    def __enter__(self) -> StoredTeachers:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._writer.close()
        self._tell(self.passes, self._writer.ended)

    def ask(self, batch: Batch, request: KnowledgeRequest) -> StoredAnswer:
        if batch.position.epoch != self._epoch:
            self._epoch = batch.position.epoch
            self._writer.flush()
            for shelf in self._shelves.values():
                shelf.consolidate()
        keys = row_keys(batch.ids, batch.views)
        wanted = [self._wanted(batch, one, at_rows(keys, one.rows)) for one in request]
        self._fetch(batch, wanted)
        return StoredAnswer(self, batch, wanted)

    def unknown(self, ids: np.ndarray, view: int, request: KnowledgeRequest) -> np.ndarray:
        """The ids of which the store lacks something that is requested, in this view."""
        keys, known = row_keys(ids, np.full(len(ids), view)), np.ones(len(ids), dtype=bool)
        for shelf in {shelf for one in request for shelf in self._shelves_for(one)}:
            known &= shelf.holds(keys)
        return ids[~known]

    def _wanted(self, batch: Batch, request: TeacherRequest, keys: np.ndarray) -> Wanted:
        began, start = time.time(), time.perf_counter()
        batch_digests = batch.digests
        self.digests_s += time.perf_counter() - start
        wanted = Wanted.of(request, self._shelves_for(request), keys, at_rows(batch_digests, request.rows))
        read = len(keys) - int(wanted.missing.sum())
        self.passes[request.teacher].asked += len(keys)
        if read:
            num_bytes = read * sum(shelf.piece.encoding.bytes_per_row for shelf in wanted.shelves)
            seconds = time.perf_counter() - start
            self.log.answer(Served(request.teacher, STORE, read, num_bytes, seconds, 0.0, began, 0))
        return wanted

    def _shelves_for(self, request: TeacherRequest) -> list[Shelf]:
        asked = request if request.rows is None else replace(request, rows=None)
        if asked not in self._shelves_of:
            found = pieces(asked, self._specs[request.teacher], self._store)
            self._lease.hold({piece.key for piece in found})
            for piece in found:
                if piece.key not in self._shelves:
                    self._shelves[piece.key] = Shelf(self._folder, piece)
            self._shelves_of[asked] = [self._shelves[piece.key] for piece in found]
        return self._shelves_of[asked]

    def _fetch(self, batch: Batch, several: Sequence[Wanted]) -> None:
        """Asks for what is missing and nobody is computing."""
        incomplete = [(number, one) for number, one in enumerate(several) if not one.is_whole]
        rows = {number: lacking for number, one in incomplete if len(lacking := self._not_under_way(one))}
        if not rows:
            return
        claimed = self._claims.claim(
            {self._judges[several[n].request.teacher]: several[n].keys[r] for n, r in rows.items()}
        )
        self._see(claimed.version, [several[number] for number in rows])
        mine = {}
        for number, lacking in rows.items():
            granted = lacking[claimed.rows[self._judges[several[number].request.teacher]]]
            still = granted[several[number].missing[granted]]
            self._give_back(several[number], np.setdiff1d(granted, still))
            if len(still):
                mine[number] = still
        if mine:
            self._ask_inner(batch, [(several[number], still) for number, still in mine.items()])

    def _not_under_way(self, wanted: Wanted) -> np.ndarray:
        """The first row of each key that is missing; notes the fetches that will bring the others."""
        under_way = self._under_way[wanted.request.teacher]
        alone: dict[int, int] = {}
        for row in np.flatnonzero(wanted.missing).tolist():
            key = int(wanted.keys[row])
            if fetch := under_way.get(key):
                if fetch not in wanted.fetches:
                    wanted.fetches.append(fetch)
            else:
                alone.setdefault(key, row)
        return np.fromiter(alone.values(), dtype=np.int64, count=len(alone))

    def _see(self, version: int, several: Sequence[Wanted]) -> None:
        """What others have written by now: perhaps what was missing when it was last looked for."""
        if version != self._version:
            self._version = version
            for shelf in self._shelves.values():
                shelf.refresh()
        for one in several:
            one.find()

    def _give_back(self, wanted: Wanted, rows: np.ndarray) -> None:
        if len(rows):
            self._claims.release({self._judges[wanted.request.teacher]: wanted.keys[rows]})

    def _ask_inner(self, batch: Batch, several: Sequence[tuple[Wanted, np.ndarray]]) -> None:
        inner, names = self._inner, [wanted.request.teacher for wanted, _ in several]
        absent = [name for name in names if name not in self._serves]
        if inner is None or absent:
            raise NotStoredError(absent or names)
        fetch = Fetch(batch, [(wanted, wanted.narrowed(rows), rows) for wanted, rows in several], inner)
        self._fetches.append(fetch)
        for wanted, rows in several:
            wanted.fetches.append(fetch)
            self._under_way[wanted.request.teacher] |= dict.fromkeys(wanted.keys[rows].tolist(), fetch)
            passes = self.passes[wanted.request.teacher]
            passes.computed += len(rows)
            passes.other_pixels += int(wanted.others[rows].sum())

    def use(self, batch: Batch, several: Sequence[Wanted]) -> list[Knowledge]:
        """Waits for what is missing, be it computed for this source or for another.

        Raises:
            KnowledgeError: a teacher sent what cannot be learned from, or kept.
            NotStoredError: something is missing and there is nobody to ask.
        """
        for fetch in dict.fromkeys(fetch for wanted in several for fetch in wanted.fetches):
            self._take(fetch)
        since_s = time.monotonic()
        while lacking := [wanted for wanted in self._filled(several) if not wanted.is_whole]:
            self._await_others(batch, lacking, time.monotonic() - since_s)
        for wanted in several:
            computed = sum(len(rows) for fetch in wanted.fetches for one, _, rows in fetch.parts if one is wanted)
            self.passes[wanted.request.teacher].read += len(wanted.keys) - computed
        return [wanted.knowledge(self._store.judges[wanted.request.teacher]["weights"]) for wanted in several]

    def _filled(self, several: Sequence[Wanted]) -> Sequence[Wanted]:
        for wanted in several:
            for fetch in wanted.fetches:
                if fetch.taken:
                    wanted.fill(fetch.taken[wanted.request.teacher])
        return several

    def _await_others(self, batch: Batch, lacking: Sequence[Wanted], waited_s: float) -> None:
        """Others may wait for what is under way here: it comes first."""
        began, start = time.time(), time.perf_counter()
        for fetch in list(self._fetches):
            self._take(fetch)
        self._writer.flush()
        self._fetch(batch, lacking)
        if waited_s > PATIENCE_S:
            self._ask_inner(batch, [(wanted, np.flatnonzero(wanted.missing)) for wanted in lacking])
        for fetch in list(self._fetches):
            self._take(fetch)
        if not all(wanted.is_whole for wanted in self._filled(lacking)):
            time.sleep(LOOKS_EACH_S)
        self.log.waited(lacking[0].request.teacher, began, time.perf_counter() - start)

    def _take(self, fetch: Fetch) -> None:
        if fetch.taken:
            return
        for (wanted, request, rows), knowledge in zip(fetch.parts, fetch.result(), strict=True):
            refuse_other_pixels(fetch.batch, knowledge)
            self._refuse_other_weights(knowledge)
            fetched = self._encoded(wanted, request, rows, knowledge)
            fetch.taken[request.teacher] = {shelf.piece.name: new for shelf, new in fetched.items()}
            new = {shelf: all_rows.at(wanted.unknown(shelf, rows)) for shelf, all_rows in fetched.items()}
            self._writer.add(request.teacher, self._judges[request.teacher], wanted.keys[rows], new)
            for key in wanted.keys[rows].tolist():
                self._under_way[request.teacher].pop(key, None)
        self._fetches.remove(fetch)

    def _encoded(
        self, wanted: Wanted, request: TeacherRequest, rows: np.ndarray, knowledge: Knowledge
    ) -> dict[Shelf, Rows]:
        encoded = {}
        for shelf in self._shelves_for(request):
            try:
                columns = shelf.piece.encoding.encode(knowledge.tensors[shelf.piece.name])
            except ValueError as error:
                raise KnowledgeError(
                    f"teacher {request.teacher!r}, {shelf.piece.name!r}: {error}; give it another of store.encodings"
                ) from error
            encoded[shelf] = Rows(wanted.keys[rows], wanted.digests[rows], columns)
        return encoded

    def _refuse_other_weights(self, knowledge: Knowledge) -> None:
        expected = self._store.judges[knowledge.teacher]["weights"]
        if knowledge.version != expected:
            raise KnowledgeError(
                f"teacher {knowledge.teacher!r} has weights {knowledge.version[:12]}, the store is told of "
                f"{expected[:12]}; its file has changed: start the run again"
            )

    def _written(self, rows: Mapping[str, int]) -> None:
        for teacher, count in rows.items():
            self.passes[teacher].written += count
        self._tell(self.passes, self._writer.ended)


class StoredAnswer:
    """The answers of several teachers to one batch."""

    def __init__(self, source: StoredTeachers, batch: Batch, wanted: Sequence[Wanted]) -> None:
        self._source = source
        self._batch = batch
        self._wanted = wanted

    def result(self) -> list[Knowledge]:
        return self._source.use(self._batch, self._wanted)
