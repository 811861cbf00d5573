"""Random rows out of a large store in the page cache, beside `numpy.take` of the same in memory. Imports no Ray."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from actors.storage import Folder
from actors.store.encodings import VALUES, Encoding
from actors.store.keys import Piece
from actors.store.shard import Rows, name_of, packed
from actors.store.shelf import Shelf
from benchmarks.sidebyside import Goal, Ratio, alternate, show

CLASSES = 1000
AT_ONCE = 256
PIECE = Piece("logits", Encoding("float16", (CLASSES,)), '"rows that were drawn"')
STORE, MEMORY = "Shelf.find", "numpy.take"
STORE_THERE, MEMORY_THERE = "Shelf.find, into memory that is there", "numpy.take, into memory that is there"
AGAINST = {STORE: MEMORY, STORE_THERE: MEMORY_THERE}
WARM_CALLS = 10
AT_MOST = 2.0

Found = dict[str, list[float]]


class Filled(NamedTuple):
    """A store and the same rows in memory, in the order of `keys`."""

    shelf: Shelf
    keys: np.ndarray
    digests: np.ndarray
    array: np.ndarray


class Asked(NamedTuple):
    """The same rows by their numbers in memory and by what finds them in the store."""

    rows: np.ndarray
    keys: np.ndarray
    digests: np.ndarray


@contextmanager
def filled(num_shards: int, rows_each: int, where: str | None) -> Iterator[Filled]:
    """Shards of random rows in a folder that is gone afterwards; reading them to check them leaves them in the page
    cache."""
    with TemporaryDirectory(dir=where, prefix="collegium-gathering-") as name:
        folder, dice = Folder(name), np.random.default_rng(0)
        total = num_shards * rows_each
        array = np.empty((total, CLASSES), np.float16)
        keys = dice.permutation(total).astype(np.uint64) << np.uint64(32)
        digests = dice.integers(0, 1 << 64, total, np.uint64)
        for start in range(0, total, rows_each):
            part = slice(start, start + rows_each)
            array[part] = _drawn(dice, rows_each)
            content = packed(Rows(keys[part], digests[part], {VALUES: array[part]}), PIECE.encoding, PIECE.identity)
            (folder / PIECE.key).write(name_of(content), content)
        yield Filled(Shelf(folder, PIECE), keys, digests, array)


def _drawn(dice: np.random.Generator, rows: int) -> np.ndarray:
    """Finite float16 numbers: any 14 bits, of which the exponent is none of infinity's."""
    return dice.integers(0, 1 << 14, (rows, CLASSES), np.uint16).view(np.float16)


def gathered(store: Filled, rounds: int, calls: int) -> Found:
    """Microseconds of a call, the median of each turn. Rows are drawn anew for each call."""
    dice = np.random.default_rng(1)
    found_there, taken_there = PIECE.encoding.empty(AT_ONCE), np.empty((AT_ONCE, CLASSES), np.float16)

    def find(asked: Asked, into: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        columns = PIECE.encoding.empty(AT_ONCE) if into is None else into
        found, _ = store.shelf.find(asked.keys, asked.digests, columns)
        assert found.all()
        return columns[VALUES]

    def take(asked: Asked) -> np.ndarray:
        return np.take(store.array, asked.rows, axis=0)

    ways = {
        STORE: find,
        MEMORY: take,
        STORE_THERE: lambda asked: find(asked, found_there),
        MEMORY_THERE: lambda asked: np.take(store.array, asked.rows, axis=0, out=taken_there, mode="clip"),
    }
    asked = _asked(store, dice)
    assert np.array_equal(find(asked), take(asked))
    return alternate({name: lambda way=way: _usual_us(way, dice, store, calls) for name, way in ways.items()}, rounds)


def _asked(store: Filled, dice: np.random.Generator) -> Asked:
    rows = dice.integers(0, len(store.keys), AT_ONCE)
    return Asked(rows, store.keys[rows], store.digests[rows])


def _usual_us(way: Callable[[Asked], object], dice: np.random.Generator, store: Filled, calls: int) -> float:
    taken = []
    for _ in range(WARM_CALLS + calls):
        asked = _asked(store, dice)
        start = time.perf_counter()
        way(asked)
        taken.append(1e6 * (time.perf_counter() - start))
    return median(taken[WARM_CALLS:])


def measure(arguments: argparse.Namespace) -> tuple[Found, list[Goal]]:
    with filled(arguments.shards, arguments.shard_rows, arguments.folder) as store:
        gigabytes = store.array.nbytes / 1e9
        found = gathered(store, arguments.rounds, arguments.calls)
    return found, show_gathering(found, gigabytes)


def show_gathering(found: Found, gigabytes: float) -> list[Goal]:
    rows, goals = [], []
    for ours, memory in AGAINST.items():
        ratio = Ratio.of(found[ours], found[memory])
        rows.append((memory, f"{median(found[memory]):.0f}", ""))
        rows.append((ours, f"{median(found[ours]):.0f}", str(ratio)))
        goals.append(Goal(f"(c) {ours} against {memory}", ratio, AT_MOST, at_least=False))
    title = f"(c) {AT_ONCE} random rows of {CLASSES} float16 numbers, of {gigabytes:.2f} GB in the page cache"
    show(title, ("", "microseconds", "of numpy.take"), rows)
    return goals
