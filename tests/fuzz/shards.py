"""Shards for the fuzz of the reader: valid ones of every encoding, and what others might write in their place."""

import json
import random
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import torch

from actors.store.encodings import OFFSET, SCALE, VALUES, Encoding
from actors.store.keys import Piece
from actors.store.shard import Rows, packed, schema_of

ENCODINGS = (
    *(
        Encoding(name, shape)
        for name in ("float32", "float16", "bfloat16", "int16", "int8")
        for shape in ((10,), (1,), (2, 3))
    ),
    Encoding("int8", (4, 4)),
    Encoding("float32", (5,), "int16"),
    Encoding("int8", (1,), "int64"),
    Encoding("float16", (3,), "uint8"),
)
NUM_ROWS = (1, 3, 8, 50)


@dataclass(frozen=True)
class Shard:
    piece: Piece
    rows: Rows
    content: bytes

    @property
    def schema(self) -> pa.Schema:
        return schema_of(self.piece.encoding, self.piece.identity)

    @property
    def batch(self) -> pa.RecordBatch:
        return pa.ipc.open_file(self.content).get_batch(0)


def rows_of(encoding: Encoding, count: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    numbers = torch.from_numpy(rng.normal(0, 50, (count, *encoding.shape))).to(getattr(torch, encoding.dtype))
    keys = (np.arange(count, dtype=np.uint64) << np.uint64(32)) | rng.integers(0, 4, count).astype(np.uint64)
    return Rows(keys, rng.integers(0, 1 << 63, count).astype(np.uint64), encoding.encode(numbers))


@cache
def shard(encoding: Encoding, count: int, teacher: str = "a") -> Shard:
    piece = Piece("logits", encoding, json.dumps({"teacher": teacher, "encoding": asdict(encoding)}))
    rows = rows_of(encoding, count)
    return Shard(piece, rows, packed(rows, encoding, piece.identity))


def file_of(*batches: pa.RecordBatch, schema: pa.Schema | None = None, **options) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema or batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def stream_of(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def compressed(one: Shard, rng: random.Random) -> bytes:
    return file_of(one.batch, compression=rng.choice(("lz4", "zstd")))


def bomb(one: Shard, rng: random.Random) -> bytes:
    """A few kilobytes that say they are hundreds of megabytes."""
    return _bomb(one.piece.encoding, one.piece.identity, rng.choice(("lz4", "zstd")))


@cache
def _bomb(encoding: Encoding, identity: str, codec: str) -> bytes:
    many = (160 << 20) // (encoding.bytes_per_row + 16)
    columns = {name: np.zeros((many, width), dtype) for name, (dtype, width) in encoding.columns.items()}
    whole = packed(Rows(np.zeros(many, np.uint64), np.zeros(many, np.uint64), columns), encoding, identity)
    return file_of(pa.ipc.open_file(whole).get_batch(0), compression=codec)


def claims_compression(one: Shard, rng: random.Random) -> bytes:
    """The metadata of a compressed file over bytes that are not."""
    small, whole = compressed(one, rng), one.content
    start = whole.index(one.rows.digests.tobytes()[:8])
    return small[: min(start, len(small))] + whole[start:]


def other_schema(one: Shard, rng: random.Random) -> bytes:
    """The same rows under columns of other types, names, order, or metadata."""
    batch, place = one.batch, rng.randrange(len(one.schema))
    field, column = batch.schema.field(place), batch.column(place)
    fields, columns = list(batch.schema), list(batch.columns)
    kinds = (pa.int32(), pa.int64(), pa.float64(), pa.float32(), pa.uint16(), pa.string(), pa.binary(), pa.bool_())
    change = rng.choice(
        ("kind", "nullable", "dictionary", "missing", "extra", "order", "name", "about", "null", "deep")
    )
    if change == "kind":
        kind = rng.choice([kind for kind in kinds if kind != field.type])
        fields[place], columns[place] = field.with_type(kind), pa.array([None] * len(column), kind)
    elif change == "null":
        columns[place] = pa.array([None, *column.to_pylist()[1:]], field.type)
    elif change == "nullable":
        fields[place] = field.with_nullable(True)
    elif change == "dictionary":
        columns[place] = pa.array(["x"] * len(column)).dictionary_encode()
        fields[place] = field.with_type(columns[place].type)
    elif change == "missing":
        del fields[place], columns[place]
    elif change == "extra":
        fields.append(pa.field("extra", field.type))
        columns.append(column)
    elif change == "order":
        fields, columns = fields[::-1], columns[::-1]
    elif change == "name":
        fields[place] = field.with_name(rng.choice(("", "x" * 10_000, field.name + " ", "é")))
    elif change == "about":
        fields[place] = field.with_metadata({"a": "b" * rng.choice((1, 1 << 16))})
    else:
        kind = pa.int8()
        for _ in range(rng.randrange(1, 63)):
            kind = rng.choice((pa.list_(kind), pa.list_(kind, 2), pa.struct([pa.field("s", kind)]), pa.list_(kind, 0)))
        fields[place], columns[place] = field.with_type(kind), pa.nulls(len(column), kind)
    schema = pa.schema(fields, batch.schema.metadata)
    return file_of(unchecked(columns, schema), schema=schema)


def unchecked(columns: list, schema: pa.Schema) -> pa.RecordBatch:
    """Also with empty values in columns that say they have none."""
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def other_metadata(one: Shard, rng: random.Random) -> bytes:
    about = {key.decode(): value.decode() for key, value in one.schema.metadata.items()}
    key = rng.choice((*about, "more"))
    about[key] = rng.choice(("", about.get(key, "") + " ", "x" * (1 << 20), "\0"))
    return file_of(one.batch.replace_schema_metadata(about))


def extension_type(one: Shard, rng: random.Random) -> bytes:
    """A column that says it is of a type that this process may know."""
    names = ("arrow.json", "arrow.uuid", "arrow.fixed_shape_tensor", "arrow.bool8", "arrow.opaque", "fuzz.raises")
    about = {
        "ARROW:extension:name": rng.choice(names),
        "ARROW:extension:metadata": rng.choice(("", "{", '{"shape": 1}')),
    }
    place = rng.randrange(len(one.schema))
    schema = one.schema.set(place, one.schema.field(place).with_metadata(about))
    return file_of(unchecked(list(one.batch.columns), schema), schema=schema)


def several_batches(one: Shard, rng: random.Random) -> bytes:
    return file_of(*[one.batch] * rng.choice((2, 3, 500)))


def nothing(one: Shard, rng: random.Random) -> bytes:
    return rng.choice((b"", b"ARROW1", b"ARROW1\0\0ARROW1", file_of(one.batch.slice(0, 0)), file_of(schema=one.schema)))


def stream(one: Shard, rng: random.Random) -> bytes:
    return rng.choice((b"", b"ARROW1\0\0")) + stream_of(one.batch) + rng.choice((b"", b"\0\0\0\0ARROW1"))


def foreign(one: Shard, rng: random.Random) -> bytes:
    others = [shard(encoding, len(one.rows)) for encoding in ENCODINGS if encoding != one.piece.encoding]
    return rng.choice((*others, shard(one.piece.encoding, len(one.rows), "b"))).content


def unbounded(one: Shard, rng: random.Random) -> bytes:
    """Numbers that decode to NaN or infinity; of whole numbers, another file."""
    encoding, columns = one.piece.encoding, {name: column.copy() for name, column in one.rows.columns.items()}
    row = rng.randrange(len(one.rows))
    if SCALE in columns:
        name, bad = rng.choice(((SCALE, np.nan), (SCALE, -1.0), (OFFSET, -np.inf), (SCALE, 3e38), ("both", 3e36)))
        if name == "both":
            columns[SCALE][row], columns[OFFSET][row] = bits(bad), bits(-3.3e38)
        else:
            columns[name][row] = bits(bad)
    elif encoding.stored == "bfloat16":
        columns[VALUES][row, -1] = rng.choice((0x7F80, -0x80, 0x7FC0, 0x7F81))
    elif columns[VALUES].dtype.kind == "f":
        columns[VALUES][row, 0] = rng.choice((np.nan, np.inf, -np.inf))
    else:
        return foreign(one, rng)
    return packed(Rows(one.rows.keys, one.rows.digests, columns), encoding, one.piece.identity)


def bits(number: float) -> int:
    """Of the nearest bfloat16."""
    return int(torch.tensor(number).to(torch.bfloat16).view(torch.int16))


def one_key(one: Shard, rng: random.Random) -> bytes:
    """One sample's row, of very many different pixels."""
    count = rng.choice((100, 20_000))
    columns = {name: np.repeat(column[:1], count, axis=0) for name, column in one.rows.columns.items()}
    digests = np.arange(count, dtype=np.uint64)[::-1].copy()
    return packed(Rows(np.zeros(count, np.uint64), digests, columns), one.piece.encoding, one.piece.identity)
