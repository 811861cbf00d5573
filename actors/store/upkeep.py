"""What lies in a store, whether it is whole, and what may go. Imports no Ray."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.storage import Folder
from actors.store.encodings import Encoding
from actors.store.keys import KEY_LENGTH, Piece
from actors.store.leases import held
from actors.store.shard import SUFFIX, ShardError, mapped, metadata_of
from actors.store.shelf import Shelf

LEFT_BEHIND_S = 3600.0
SHELF = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")


@dataclass(frozen=True)
class ShelfReport:
    """`identity`: what its rows depend on; `samples` and `views`: how many different ones it has; `changed_s`: when it
    was last written into; `put_aside`: shards that are torn or altered."""

    key: str
    identity: dict[str, Any]
    rows: int
    samples: int
    views: int
    shards: int
    num_bytes: int
    changed_s: float
    put_aside: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of all its samples in all its views."""
        return self.rows / max(1, self.samples * self.views)

    @property
    def teacher(self) -> str:
        """The hash of its weights."""
        return str(self.identity.get("teacher", {}).get("weights", "?"))


def listed(store: Folder) -> list[ShelfReport]:
    """Every shelf, after each of its shards was read and checked; what is torn is set aside. The newest last."""
    reports = [report for key in _keys(store) if (report := _reported(store, key))]
    return sorted(reports, key=lambda report: report.changed_s)


def _keys(store: Folder) -> list[str]:
    return [name for name in store.folders() if SHELF.fullmatch(name)]


def _reported(store: Folder, key: str) -> ShelfReport | None:
    folder = store / key
    entries = [entry for entry in folder.entries() if entry.name.endswith(SUFFIX)]
    identity = next(_identities(folder, [entry.name for entry in entries]), None)
    if identity is None:
        return None
    shelf = Shelf(store, Piece("", _encoding(identity), identity))
    keys = shelf.keys()
    return ShelfReport(
        key,
        json.loads(identity),
        len(keys),
        len(np.unique(keys >> np.uint64(32))),
        len(np.unique(keys & np.uint64(0xFFFFFFFF))),
        len(entries) - len(shelf.put_aside),
        sum(entry.num_bytes for entry in entries),
        max(entry.changed_s for entry in entries),
        tuple(shelf.put_aside),
    )


def _identities(folder: Folder, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        try:
            yield metadata_of(mapped(folder.local(name)))["identity"]
        except (ShardError, FileNotFoundError):
            continue


def _encoding(identity: str) -> Encoding:
    of = json.loads(identity)["encoding"]
    return Encoding(of["name"], tuple(of["shape"]), of["dtype"])


@dataclass(frozen=True)
class Pruned:
    """What a prune took away, and what it left because somebody reads it."""

    removed: tuple[ShelfReport, ...]
    read_now: tuple[ShelfReport, ...]


def prune(
    store: Folder,
    *,
    teacher: str | None = None,
    older_than_s: float | None = None,
    to_bytes: int | None = None,
    dry: bool = False,
) -> Pruned:
    """Removes the shelves of a teacher (by the beginning of its weights' hash), those not written into for so long, or
    the oldest until the others take no more than so many bytes. Several conditions: what all of them say."""
    reports, now_s = listed(store), time.time()
    conditions: list[Callable[[ShelfReport], bool]] = []
    if teacher is not None:
        conditions.append(lambda report: report.teacher.startswith(teacher))
    if older_than_s is not None:
        conditions.append(lambda report: now_s - report.changed_s > older_than_s)
    if to_bytes is not None:
        surplus = _beyond(reports, to_bytes)
        conditions.append(lambda report: report.key in surplus)
    chosen = [report for report in reports if conditions and all(says(report) for says in conditions)]
    read_now = held(store)
    removed = tuple(report for report in chosen if report.key not in read_now)
    if not dry:
        for report in removed:
            (store / report.key).remove_all()
        for key in _keys(store):
            (store / key).clean(LEFT_BEHIND_S)
    return Pruned(removed, tuple(report for report in chosen if report.key in read_now))


def _beyond(reports: Sequence[ShelfReport], most_bytes: int) -> set[str]:
    """The oldest, without which the others take no more."""
    total, surplus = sum(report.num_bytes for report in reports), set()
    for report in reports:
        if total > most_bytes:
            surplus.add(report.key)
            total -= report.num_bytes
    return surplus
