"""One file of a store: an Arrow IPC file with one batch of fixed-width rows, named by its own content.

What is read may have been written by anybody: it is data, and is used once everything about it fits what is expected.
Imports no Ray.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.store.encodings import LEVELS, OFFSET, SCALE, VALUES, Columns, Encoding, from_bfloat16
from actors.store.flatbuffer import is_compressed

FORMAT = "collegium knowledge 1"
SUFFIX = ".arrow"
CHECKSUM_LENGTH = 32
MAGIC = b"ARROW1\0\0"
EXTENSION = re.compile(b"ARROW:extension:")
"""A column that says so makes Arrow run the code of whoever registered the type in this process: Ray does, say."""
ID, VIEW, DIGEST = "id", "view", "digest"
OWN = {ID: pa.uint32(), VIEW: pa.uint32(), DIGEST: pa.uint64()}
ROWS_AT_ONCE = 4096
BFLOAT16_EXPONENT = 0x7F80
"""All of its bits are set in infinity and NaN alone."""
ABOUT = {
    "id": "number of the sample in the training set, from 0",
    "view": "number of the augmentation draw, from 0",
    "digest": "of the pixels that were judged, of all inputs in the order of their names: see row_digests of Collegium",
    "values": "the row in C order; bfloat16 as the upper 16 bits of a float32; int16 and int8 as levels from 0 on",
    "scale": "int16 and int8 alone: a number is offset + scale * level; bfloat16, the upper 16 bits of a float32",
    "offset": "int16 and int8 alone: where the levels begin; bfloat16, the upper 16 bits of a float32",
}


class ShardError(ValueError):
    """A file of a store that is torn, altered, or is none."""


@dataclass(frozen=True)
class Rows:
    """Rows of a piece of knowledge: `keys` (id and view), `digests` of their pixels, the encoded `columns`."""

    keys: np.ndarray
    digests: np.ndarray
    columns: Columns

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows: np.ndarray | slice) -> Rows:
        return Rows(self.keys[rows], self.digests[rows], {name: column[rows] for name, column in self.columns.items()})


def joined(several: Sequence[Rows]) -> Rows:
    return Rows(
        np.concatenate([rows.keys for rows in several]),
        np.concatenate([rows.digests for rows in several]),
        {name: np.concatenate([rows.columns[name] for rows in several]) for name in several[0].columns},
    )


def schema_of(encoding: Encoding, identity: str) -> pa.Schema:
    """`identity`: JSON of all that the rows depend on."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in OWN.items()]
    fields += [pa.field(name, _kind(dtype, width), nullable=False) for name, (dtype, width) in _columns(encoding)]
    about = {f"column {field.name}": ABOUT[field.name] for field in fields}
    shape = "x".join(map(str, encoding.shape))
    return pa.schema(
        fields,
        {"format": FORMAT, "identity": identity, "encoding": encoding.stored, "shape": shape, **about},
    )


def _columns(encoding: Encoding) -> list[tuple[str, tuple[np.dtype, int]]]:
    return list(encoding.columns.items())


def _kind(dtype: np.dtype, width: int) -> pa.DataType:
    number = pa.from_numpy_dtype(dtype)
    return number if width == 1 else pa.list_(pa.field("item", number, nullable=False), width)


def packed(rows: Rows, encoding: Encoding, identity: str) -> bytes:
    """A whole file."""
    schema = schema_of(encoding, identity)
    own = [rows.keys >> np.uint64(32), rows.keys & np.uint64(0xFFFFFFFF), rows.digests]
    arrays = [pa.array(values.astype(kind.to_pandas_dtype())) for values, kind in zip(own, OWN.values(), strict=True)]
    for name, (dtype, width) in encoding.columns.items():
        flat = pa.array(np.ascontiguousarray(rows.columns[name], dtype).reshape(-1))
        arrays.append(flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, type=schema.field(name).type))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:CHECKSUM_LENGTH] + SUFFIX


def opened(path: str, name: str, encoding: Encoding, identity: str) -> Rows:
    """The rows of a file, over its memory map. `name`: under which it lies in the store.

    Raises:
        ShardError: its content is not that of its name, or not what is expected.
    """
    content = mapped(path)
    if hashlib.sha256(content).hexdigest()[:CHECKSUM_LENGTH] + SUFFIX != name:
        raise ShardError("its content has another checksum than its name")
    return read(content, encoding, identity)


def mapped(path: str) -> pa.Buffer:
    """A file's content; raises ShardError where it has none."""
    with _as_shard_error(), pa.memory_map(path) as file:
        return file.read_buffer()


def read(content: pa.Buffer, encoding: Encoding, identity: str) -> Rows:
    """The rows of a file's content; raises ShardError where they are not what is expected."""
    wanted = schema_of(encoding, identity)
    batch = _batch(content, wanted)
    own = [batch.column(name).to_numpy(zero_copy_only=True) for name in OWN]
    columns = {name: _matrix(batch.column(name), width) for name, (_, width) in encoding.columns.items()}
    if not _bounded(columns, encoding):
        raise ShardError("it holds NaN, infinite values, or a scale below 0")
    keys = (own[0].astype(np.uint64) << np.uint64(32)) | own[1].astype(np.uint64)
    return Rows(keys, own[2], columns)


def _batch(content: pa.Buffer, wanted: pa.Schema) -> pa.RecordBatch:
    """Message by message: Arrow's reader of files would decompress whatever a file says that it is."""
    schema = _schema(content)
    with _as_shard_error():
        messages = pa.ipc.MessageReader.open_stream(content.slice(len(MAGIC)))
        first, second = messages.read_next_message(), messages.read_next_message()
        if (first.type, second.type) != ("schema", "record batch"):  # Arrow takes the caller's word for it, and crashes
            raise ShardError("it is no batch after its schema")
        if not all(one.equals(wanted, check_metadata=True) for one in (schema, pa.ipc.read_schema(first))):
            raise ShardError("it is of other knowledge or of another format")
        if is_compressed(memoryview(second.metadata)):
            raise ShardError("it is compressed")
        batch = pa.ipc.read_record_batch(second, wanted)
        batch.validate(full=True)
    if batch.num_rows == 0 or any(column.null_count for column in batch.columns):
        raise ShardError("it has no rows, or lacks some values")
    if not all(_inside(column, content) for column in batch.columns):
        raise ShardError("its columns do not lie in the file")
    return batch


def _schema(content: pa.Buffer) -> pa.Schema:
    """What the end of a file of one batch says of its columns."""
    if EXTENSION.search(memoryview(content)):
        raise ShardError("its columns are of somebody's own types")
    with _as_shard_error(), pa.ipc.open_file(content) as reader:
        if reader.num_record_batches != 1:
            raise ShardError(f"it holds {reader.num_record_batches} batches, expected 1")
        return reader.schema


@contextmanager
def _as_shard_error() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, OverflowError, MemoryError, UnicodeDecodeError, StopIteration) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise ShardError(f"it is no whole Arrow file: {said[0]}") from error


def _inside(column: pa.Array, content: pa.Buffer) -> bool:
    end = content.address + content.size
    return all(
        content.address <= buffer.address and buffer.address + buffer.size <= end
        for buffer in column.buffers()
        if buffer is not None
    )


def _matrix(column: pa.Array, width: int) -> np.ndarray:
    flat = column if width == 1 else column.flatten()
    return flat.to_numpy(zero_copy_only=True).reshape(-1, width)


def _bounded(columns: Columns, encoding: Encoding) -> bool:
    """Whether all decode to finite numbers."""
    if encoding.is_scaled:
        scale, offset = (from_bfloat16(columns[name]) for name in (SCALE, OFFSET))
        highest = offset + scale * LEVELS[encoding.stored]
        return bool((offset.isfinite() & highest.isfinite() & (scale >= 0)).all())
    values = columns[VALUES]
    parts = (values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE))
    if encoding.stored == "bfloat16":
        return not any(((part & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT).any() for part in parts)
    return values.dtype.kind != "f" or all(np.isfinite(part).all() for part in parts)


def metadata_of(content: pa.Buffer) -> Mapping[str, str]:
    """What a file says of itself; raises ShardError where it is none of a store's."""
    with _as_shard_error():
        found = {name.decode(): value.decode() for name, value in (_schema(content).metadata or {}).items()}
    if found.get("format") != FORMAT or "identity" not in found:
        raise ShardError(f"it is no {FORMAT}")
    return found
