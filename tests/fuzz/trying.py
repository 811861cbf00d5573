"""One input of the fuzz: given to the store's reader under a name that is right, and what came of it is judged."""

import logging
import resource
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from actors.storage import Folder
from actors.store.shard import Rows, ShardError, metadata_of, name_of, opened
from actors.store.shelf import Shelf
from tests.fuzz.mutations import Input

LONGEST_S = 2.0
MOST_TIMES, MOST_BYTES = 12, 48 << 20
"""Of memory: so many times an input's own size, and so much beside."""
ROOM = 2 << 30


class Raises(pa.ExtensionType):
    """A type of somebody else's, which this process happens to know."""

    def __init__(self) -> None:
        super().__init__(pa.int8(), "fuzz.raises")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        raise RuntimeError("somebody else's code was run")


def prepared() -> None:
    """For a process of its own."""
    pa.register_extension_type(Raises())
    pa.set_cpu_count(1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


@contextmanager
def little_room():
    """An allocation that is out of all proportion fails, instead of the machine."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def tried(given: Input, folder: Path) -> tuple[str, float, int]:
    """What the reader said, how long it took, and by how much memory grew. Raises where a promise is broken."""
    store = folder / given.shard.piece.key
    store.mkdir(exist_ok=True)
    name = name_of(given.content)
    path = store / name
    path.write_bytes(given.content)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_bytes(), time.process_time()
    try:
        with little_room():
            said = _read(given, path, folder)
    finally:
        for left in (path, store / "set-aside" / name):
            left.unlink(missing_ok=True)
    seconds, grown = time.process_time() - start, peak_bytes() - before
    assert seconds < LONGEST_S, f"took {seconds:.1f} s"
    assert grown < MOST_TIMES * len(given.content) + MOST_BYTES, f"took {grown >> 20} MiB for {len(given.content)}"
    return said, seconds, grown


def _read(given: Input, path: Path, folder: Path) -> str:
    piece = given.shard.piece
    try:
        about = metadata_of(pa.py_buffer(given.content))
        assert all(isinstance(text, str) for pair in about.items() for text in pair)
    except ShardError:
        pass
    try:
        rows = opened(str(path), path.name, piece.encoding, piece.identity)
    except ShardError as error:
        assert not len(Shelf(Folder(str(folder)), piece)), "the shelf took what was refused"
        return str(error)
    assert not given.must_be_refused, "was accepted"
    _fits(rows, given)
    _is_found(rows, Shelf(Folder(str(folder)), piece))
    return "accepted"


def _fits(rows: Rows, given: Input) -> None:
    encoding = given.shard.piece.encoding
    assert len(rows) > 0 and rows.keys.shape == rows.digests.shape == (len(rows),)
    assert rows.keys.dtype == rows.digests.dtype == np.uint64
    assert rows.columns.keys() == encoding.columns.keys()
    for name, (dtype, width) in encoding.columns.items():
        assert rows.columns[name].dtype == dtype and rows.columns[name].shape == (len(rows), width), name
    held = rows.digests.nbytes + sum(column.nbytes for column in rows.columns.values())
    assert held + rows.keys.nbytes <= len(given.content), "rows that the file does not hold"
    decoded = encoding.decode({name: column.copy() for name, column in rows.columns.items()})
    assert decoded.shape == (len(rows), *encoding.shape) and bool(decoded.double().isfinite().all())


def _is_found(rows: Rows, shelf: Shelf) -> None:
    assert len(shelf) == len(rows)
    asked = rows.at(slice(0, 200))
    pairs = {(key, digest): row for row, (key, digest) in enumerate(zip(rows.keys, rows.digests, strict=True))}
    into = shelf.piece.encoding.empty(len(asked))
    found, others = shelf.find(asked.keys, asked.digests, into)
    assert found.all() and not others.any()
    if len(pairs) == len(rows):
        assert all(into[name].tobytes() == column.tobytes() for name, column in asked.columns.items())
    for keys, digests in ((asked.keys, asked.digests ^ np.uint64(1)), (asked.keys ^ np.uint64(1 << 40), asked.digests)):
        into = {name: np.full_like(column, 77) for name, column in asked.columns.items()}
        found, _ = shelf.find(keys, digests, into)
        there = [(key, digest) in pairs for key, digest in zip(keys, digests, strict=True)]
        assert found.tolist() == there
        assert all((column[~found] == 77).all() for column in into.values())
