"""The files of a store: plain Arrow, what its numbers mean, how several become one, what is torn or foreign."""

import json
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.storage import Folder
from actors.store import leases, upkeep
from actors.store.encodings import Encoding, from_bfloat16
from actors.store.index import MISSING, Index
from actors.store.keys import Piece, row_keys
from actors.store.leases import Lease, held
from actors.store.shard import SUFFIX, Rows
from actors.store.shelf import Shelf
from actors.store.upkeep import listed, prune

LOGITS = torch.tensor([[0.5, -2.0, 3.25, 1.0, 7.0, -1.5, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])


def piece(name="float32", shape=(8,), dtype="float32", weights="w1") -> Piece:
    encoding = {"name": name, "shape": shape, "dtype": dtype}
    judge = {"weights": weights, "model": {"target": "lab:net"}}
    identity = json.dumps({"teacher": judge, "output": "logits", "encoding": encoding})
    return Piece("logits", Encoding(name, shape, dtype), identity)


def rows(of: Piece, tensor, ids, view=0) -> Rows:
    ids = np.array(ids)
    return Rows(row_keys(ids, np.full(len(ids), view)), ids.astype(np.uint64) * 11, of.encoding.encode(tensor))


def filled(store: Folder, of: Piece, tensor=LOGITS, ids=(3, 5), view=0) -> Shelf:
    shelf = Shelf(store, of)
    shelf.add(rows(of, tensor, ids, view))
    assert shelf.write()
    return shelf


def found(shelf: Shelf, ids, view=0):
    ids = np.array(ids)
    into = shelf.piece.encoding.empty(len(ids))
    there, others = shelf.find(row_keys(ids, np.full(len(ids), view)), ids.astype(np.uint64) * 11, into)
    return there, others, shelf.piece.encoding.decode({name: column[there] for name, column in into.items()})


def test_a_shard_is_read_by_pyarrow_alone(tmp_path):
    store = Folder(str(tmp_path))
    filled(store, piece("int8"), view=2)
    [name] = (store / piece("int8").key).names()
    table = pa.ipc.open_file(pa.memory_map((store / piece("int8").key).file(name))).read_all()
    assert table.column_names == ["id", "view", "digest", "values", "scale", "offset"]
    assert table["id"].to_pylist() == [3, 5] and table["view"].to_pylist() == [2, 2]
    assert table["digest"].to_pylist() == [33, 55]
    levels = np.array(table["values"].to_pylist(), dtype=np.float32)
    scale, offset = (upper_half(table[name].to_numpy()) for name in ("scale", "offset"))
    assert np.abs(offset + scale * levels - LOGITS.numpy()).max() <= 9.1 / 255 / 2 and offset[0, 0] == -2.0
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["format"] == "collegium knowledge 1" and metadata["shape"] == "8" and metadata["encoding"] == "int8"
    assert "offset + scale * level" in metadata["column scale"]
    assert json.loads(metadata["identity"])["output"] == "logits"


def upper_half(bits):
    """bfloat16 by numpy alone, as a column."""
    return (bits.astype(np.int64) << 16).astype(np.uint32).view(np.float32)[:, None]


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("float32", 0.0),
        ("float16", 7 * 2**-11),
        ("bfloat16", 7 * 2**-8),
        ("int16", 9.1 / 65535 / 2),
        ("int8", 9.1 / 255 / 2),
    ],
)
def test_what_an_encoding_loses_is_bounded(name, most):
    torch.manual_seed(0)
    logits = torch.cat([LOGITS, torch.rand(50, 8) * 9 - 2])
    encoding = Encoding(name, (8,))
    decoded = encoding.decode(encoding.encode(logits))
    assert decoded.dtype == torch.float32 and decoded.shape == logits.shape
    assert float((decoded - logits).abs().max()) <= most
    assert torch.equal(decoded, encoding.decode(encoding.encode(decoded))) or encoding.is_scaled
    assert torch.equal(decoded[1], logits[1]), "a row of one number"


@pytest.mark.parametrize("name", ["int16", "int8"])
def test_levels_hold_for_any_row(name):
    """Of all sizes, around any middle, of one number, with zeros of both signs: never off by more than a step."""
    torch.manual_seed(0)
    sizes = 10.0 ** torch.arange(-40, 38, 3.0)
    rows = torch.cat([torch.randn(40, 1, 9) * sizes[:, None], torch.full((1, len(sizes), 9), -0.0)])
    rows = torch.cat(
        [rows.reshape(-1, 9), torch.rand(50, 9) + 1000, -torch.rand(50, 9) * 1e-3, torch.full((3, 9), 7.3)]
    )
    encoding = Encoding(name, (9,))
    encoded = encoding.encode(rows)
    decoded, step = encoding.decode(encoded), from_bfloat16(encoded["scale"])
    assert bool(decoded.isfinite().all()) and bool(((decoded - rows).abs() <= 0.51 * step + rows.abs() * 1e-6).all())


def test_maps_keep_their_shape_whole_numbers_their_kind_and_short_rows_are_not_scaled():
    maps = torch.randn(3, 2, 4, 4)
    assert Encoding("int8", (2, 4, 4)).decode(Encoding("int8", (2, 4, 4)).encode(maps)).shape == maps.shape
    classes = torch.tensor([[1, 70], [3, 2]], dtype=torch.int16)
    whole = Encoding("int8", (2,), "int16")
    assert torch.equal(whole.decode(whole.encode(classes)), classes) and whole.bytes_per_row == 4
    assert Encoding("int8", (7,)).stored == "float16" and Encoding("int8", (8,)).bytes_per_row == 12


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(2, 9), r"expected rows of \(8,\) float32, got \(9,\)"),
        (torch.zeros(2, 8, dtype=torch.float64), "torch.float64"),
        (torch.full((1, 8), -7e4), "float16 ends at 65504, got 70000"),
    ],
)
def test_what_does_not_fit_is_refused(tensor, said):
    with pytest.raises(ValueError, match=said):
        Encoding("float16", (8,)).encode(tensor)


def test_ids_and_views_beyond_the_key_are_refused():
    with pytest.raises(ValueError, match="store: ids and views must lie in"):
        row_keys(np.array([2**32]), np.array([0]))
    with pytest.raises(ValueError, match="store: ids and views must lie in"):
        row_keys(np.array([1]), np.array([-1]))


def test_an_index_finds_every_row_whatever_came_when():
    dice, index, truth = np.random.default_rng(0), Index(), {}
    for number in range(60):
        count = int(dice.integers(1, 40))
        keys, digests = dice.integers(0, 300, count).astype(np.uint64), dice.integers(0, 3, count).astype(np.uint64)
        places = np.arange(count) + number * 1000
        index.add(keys, digests, places)
        for key, digest, place in zip(keys.tolist(), digests.tolist(), places.tolist(), strict=True):
            truth.setdefault((key, digest), set()).add(place)
    keys, digests = dice.integers(0, 330, 500).astype(np.uint64), dice.integers(0, 4, 500).astype(np.uint64)
    places, others = index.find(keys, digests)
    known = {key for key, _ in truth}
    for key, digest, place, other in zip(keys.tolist(), digests.tolist(), places.tolist(), others, strict=True):
        assert place in truth.get((key, digest), {MISSING})
        assert other == (place == MISSING and key in known)
    assert index.holds(keys).tolist() == [key in known for key in keys.tolist()]
    assert index.keys().tolist() == sorted(known)


def test_several_small_files_become_one_and_readers_of_the_old_ones_go_on(tmp_path):
    store, of = Folder(str(tmp_path)), piece("float16")
    writer, names = Shelf(store, of), []
    for number in range(4):
        writer.add(rows(of, LOGITS + number, [2 * number, 2 * number + 1]))
        names.append(writer.write())
    reader = Shelf(store, of)
    writer.merge(names)
    assert len((store / of.key).names()) == 1
    for shelf in (reader, writer, Shelf(store, of)):
        there, _, decoded = found(shelf, range(8))
        assert there.all() and torch.equal(decoded[4], (LOGITS + 2)[0])
    reader.consolidate()
    there, _, decoded = found(reader, [7, 0])
    assert there.all() and torch.equal(decoded[0], (LOGITS + 3)[1]) and len(reader) == 8


def test_a_shelf_tells_other_pixels_from_other_samples(tmp_path):
    shelf = filled(Folder(str(tmp_path)), piece())
    there, others = shelf.find(
        row_keys(np.array([3, 5, 6]), np.zeros(3, dtype=np.int32)),
        np.array([33, 1, 66], dtype=np.uint64),
        shelf.piece.encoding.empty(3),
    )
    assert there.tolist() == [True, False, False] and others.tolist() == [False, True, False]


def test_torn_and_foreign_files_are_named_and_set_aside(tmp_path, caplog):
    store, of = Folder(str(tmp_path)), piece()
    shelf = filled(store, of)
    folder = store / of.key
    [name] = folder.names()
    content = folder.read(name)
    folder.write(name, content[:-100])
    foreign = Folder(str(tmp_path / "other"))
    filled(foreign, piece(weights="w2"), LOGITS, (9, 10))
    [other] = (foreign / piece(weights="w2").key).names()
    folder.write(other, (foreign / piece(weights="w2").key).read(other))
    again = Shelf(store, of)
    assert len(again) == 0 and sorted(again.put_aside) == sorted([name, other])
    assert sorted((folder / "set-aside").names()) == sorted([name, other]) and folder.names() == []
    assert name in caplog.text and "another checksum than its name" in caplog.text and "other knowledge" in caplog.text
    assert found(shelf, [3])[0].all(), "who had it open before still has it"


def test_what_lies_there_is_listed(tmp_path):
    store = Folder(str(tmp_path))
    filled(store, piece("int8"), LOGITS, (3, 5))
    filled(store, piece("int8"), LOGITS[:1], (3,), view=1)
    filled(store, piece(weights="w2"))
    (store / "readers").write("x", b"[]")
    one, two = sorted(listed(store), key=lambda report: report.teacher)
    assert (one.teacher, one.rows, one.samples, one.views, one.shards, one.share) == ("w1", 3, 2, 2, 2, 0.75)
    assert (two.teacher, two.share) == ("w2", 1.0)
    assert one.num_bytes == sum(entry.num_bytes for entry in (store / one.key).entries())


def test_pruning_takes_what_all_conditions_say_and_nothing_that_is_read(tmp_path, monkeypatch):
    store = Folder(str(tmp_path))
    for weights in ("w1", "w2", "w3"):
        filled(store, piece(weights=weights))
        time.sleep(0.02)
    lease = Lease(store)
    lease.hold({piece(weights="w2").key})
    done = prune(store, to_bytes=0, dry=True)
    assert [one.teacher for one in done.removed] == ["w1", "w3"] and [one.teacher for one in done.read_now] == ["w2"]
    assert len(listed(store)) == 3
    assert prune(store, teacher="w3", older_than_s=3600).removed == ()
    size = listed(store)[0].num_bytes
    assert [one.teacher for one in prune(store, to_bytes=2 * size).removed] == ["w1"], "the oldest"
    assert [one.teacher for one in prune(store, teacher="w3").removed] == ["w3"]
    assert prune(store, teacher="w2").removed == ()
    monkeypatch.setattr(leases, "LASTS_S", -1.0)
    assert held(store) == set() and [one.teacher for one in prune(store, teacher="w2").removed] == ["w2"]
    assert listed(store) == [] and (store / "readers").names() == []


def test_a_lease_is_renewed_and_ends(tmp_path, monkeypatch):
    store = Folder(str(tmp_path))
    lease = Lease(store)
    lease.renew()
    assert held(store) == set()
    lease.hold({"a"})
    lease.hold({"b"})
    assert held(store) == {"a", "b"}
    monkeypatch.setattr(leases, "RENEWED_EACH_S", 0.0)
    [before] = (store / "readers").entries()
    time.sleep(0.02)
    lease.renew()
    assert (store / "readers").entries()[0].changed_s > before.changed_s
    lease.end()
    assert held(store) == set()


def test_what_killed_writers_left_is_cleaned_away_after_an_hour(tmp_path, monkeypatch):
    store, of = Folder(str(tmp_path)), piece()
    filled(store, of)
    left = tmp_path / of.key / f".{'0' * 32}{SUFFIX}.abc"
    left.write_bytes(b"half")
    prune(store, teacher="none")
    assert left.exists()
    monkeypatch.setattr(upkeep, "LEFT_BEHIND_S", -1.0)
    prune(store, teacher="none")
    assert not left.exists() and len(listed(store)) == 1


def test_a_wider_piece_is_another_piece():
    assert piece().key != replace(piece(shape=(9,)), name="logits").key != piece("float16").key
