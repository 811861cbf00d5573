"""The store's reader against files that anybody may have written; `tests.fuzz.store_reader` draws very many more."""

import random

import pyarrow as pa
import pytest

from actors.store.encodings import Encoding
from actors.store.shard import ShardError, metadata_of, read
from tests.fuzz import shards
from tests.fuzz.mutations import drawn
from tests.fuzz.shards import ENCODINGS, shard
from tests.fuzz.store_reader import fuzzed


def test_some_thousands_of_altered_files_are_refused_or_fit(tmp_path):
    result = fuzzed(1000, 1, 2, tmp_path)
    assert result["broken"] == 0, (tmp_path / "broke" / "why.txt").read_text()
    assert sum(result["said"].values()) == 1000 and 20 < result["accepted"] < 500


def test_inputs_are_drawn_again_by_their_number():
    assert drawn("7-1").content == drawn("7-1").content != drawn("7-2").content


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_what_was_written_is_read(encoding):
    one = shard(encoding, 8)
    rows = read(pa.py_buffer(one.content), encoding, one.piece.identity)
    assert (rows.keys == one.rows.keys).all() and (rows.digests == one.rows.digests).all()
    assert all((rows.columns[name] == column).all() for name, column in one.rows.columns.items())
    assert metadata_of(pa.py_buffer(one.content))["identity"] == one.piece.identity


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_file_is_refused_before_anything_is_unpacked(codec):
    one = shard(ENCODINGS[0], 50)
    packed = shards.file_of(one.batch, compression=codec)
    before = pa.total_allocated_bytes()
    with pytest.raises(ShardError, match="it is compressed"):
        read(pa.py_buffer(packed), one.piece.encoding, one.piece.identity)
    assert pa.total_allocated_bytes() == before


class Foreign(pa.ExtensionType):
    """A type of another library in this process; its code would run."""

    def __init__(self):
        super().__init__(pa.uint32(), "test.foreign")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        raise AssertionError("somebody else's code was run")


def test_the_code_of_registered_types_is_not_run():
    one = shard(ENCODINGS[0], 3)
    about = {"ARROW:extension:name": "test.foreign", "ARROW:extension:metadata": ""}
    schema = one.schema.set(0, one.schema.field(0).with_metadata(about))
    content = pa.py_buffer(shards.file_of(shards.unchecked(list(one.batch.columns), schema), schema=schema))
    pa.register_extension_type(Foreign())
    try:
        for act in (lambda: read(content, one.piece.encoding, one.piece.identity), lambda: metadata_of(content)):
            with pytest.raises(ShardError, match="somebody's own types"):
                act()
    finally:
        pa.unregister_extension_type("test.foreign")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_numbers_that_decode_to_no_number_are_refused(encoding: Encoding):
    one = shard(encoding, 8)
    for seed in range(12):
        content = shards.unbounded(one, random.Random(seed))
        with pytest.raises(ShardError):
            read(pa.py_buffer(content), encoding, one.piece.identity)
