"""Slices, rows and batches: pure functions of seeds, ids, views and positions."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.data import NO_LABEL, BatchSampler, RememberedRows, Rows, evaluation_rows, slice_ids, training_rows
from actors.digests import row_digests
from actors.knowledge import Position
from actors.specs import ImportSpec
from tests.unit.digits_setup import DATA, digits, sampler

IDS, VIEWS = np.array([5, 0, 1396, 17, 17, 300]), np.array([0, 1, 2, 3, 4, 0], dtype=np.int32)
HERE = "tests.unit.test_data"


def mixed_memory(dataset, sample_id, generator):
    """Of three channels; every second sample lies in memory with the channels last."""
    image = np.stack([dataset[sample_id][0]] * 3, axis=2)
    channels_first = image.transpose(2, 0, 1)
    return (channels_first if sample_id % 2 else np.ascontiguousarray(channels_first)), 0


def mixed_types(dataset, sample_id, generator):
    image = dataset[sample_id][0][None]
    return (image if sample_id % 2 else image.astype(np.float32) / 15), 0


def negative(dataset, sample_id, generator):
    return dataset[sample_id][0][None], -2


def two_inputs(dataset, sample_id, generator):
    image = dataset[sample_id][0]
    return {"left": image[None, :, :4], "right": image[None, :, 4:]}, 1


def digest(ids, views, seed=0):
    rows = Rows(digits(), DATA.views, seed)
    return row_digests(rows.build(np.asarray(ids), np.asarray(views))[0])


def test_slices_are_disjoint_seeded_and_sorted():
    slices = slice_ids({"a": 50, "b": 30, "c": 20}, 100, seed=4)
    assert [len(ids) for ids in slices.values()] == [50, 30, 20] and list(slices) == ["a", "b", "c"]
    assert sorted(np.concatenate(list(slices.values())).tolist()) == list(range(100))
    assert all((np.diff(ids) > 0).all() for ids in slices.values())
    assert slices["a"].tolist() != list(range(50)), "drawn, not the first ones"
    again, other = slice_ids({"a": 50, "b": 30}, 100, seed=4), slice_ids({"a": 50}, 100, seed=5)
    assert np.array_equal(again["a"], slices["a"]) and np.array_equal(again["b"], slices["b"])
    assert not np.array_equal(other["a"], slices["a"])


def test_slices_larger_than_the_data_are_refused_with_numbers():
    assert len(slice_ids({"a": 6, "b": 4}, 10, 0)["a"]) == 6
    with pytest.raises(ValueError, match=r"^data\.slices: they add up to 11 samples, data\.train has 10; make one"):
        slice_ids({"a": 6, "b": 5}, 10, 0)


def test_pixels_are_the_same_in_any_order_and_grouping():
    np.random.seed(99)
    torch.manual_seed(99)
    rows = [digest([i], [v]) for i, v in zip(IDS[::-1], VIEWS[::-1], strict=True)]
    assert np.array_equal(np.concatenate(rows[::-1]), digest(IDS, VIEWS))
    assert np.array_equal(np.concatenate([digest(IDS[:4], VIEWS[:4]), digest(IDS[4:], VIEWS[4:])]), digest(IDS, VIEWS))


def test_pixels_are_the_same_from_threads_that_share_the_rows():
    rows = training_rows(digits(), DATA)
    wanted = digest(IDS, VIEWS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: row_digests(rows.build(IDS, VIEWS)[0]), range(32)):
            assert np.array_equal(found, wanted)


def test_another_seed_view_or_id_gives_other_pixels():
    views = digest([17] * 40, range(40))
    assert len(set(views.tolist())) > 10, "18 are possible: 9 crops and their mirror images"
    seeds = [digest([17] * 20, range(20), seed).tolist() for seed in range(3)]
    assert seeds[0] != seeds[1] != seeds[2] != seeds[0]
    assert len(set(digest(range(50), [0] * 50).tolist())) == 50


def test_rows_are_uint8_where_the_data_is_and_labels_int64():
    inputs, labels = evaluation_rows(digits(), DATA).build(np.array([3, 7]), np.zeros(2, dtype=np.int32))
    assert inputs["image"].dtype == torch.uint8 and inputs["image"].shape == (2, 1, 8, 8)
    assert inputs["image"][1, 0].tolist() == digits().images[7].tolist()
    assert labels.dtype == torch.int64 and labels.tolist() == [digits()[3][1], digits()[7][1]]


class CountedReads:
    def __init__(self):
        self.dataset, self.reads = digits(), 0

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        self.reads += 1
        return self.dataset[index]


def test_remembered_rows_are_read_once_as_far_as_memory_goes_and_nobody_can_alter_them():
    dataset, none = CountedReads(), np.zeros(8, dtype=np.int32)
    row = 8 * 8 + 8
    rows = RememberedRows(dataset, DATA, max_bytes=3 * 8 * row)
    for _ in range(2):
        for start in range(0, 32, 8):
            ids = np.arange(start, start + 8)
            inputs, labels = rows.build(ids, none)
            fresh, fresh_labels = evaluation_rows(digits(), DATA).build(ids, none)
            assert torch.equal(inputs["image"], fresh["image"]) and torch.equal(labels, fresh_labels)
            inputs["image"].zero_()
            labels.zero_()
    assert dataset.reads == 4 * 8 + 8, "of four pieces three are kept"


def test_remembered_rows_are_those_of_their_view():
    data = replace(DATA, evaluation_view=DATA.views)
    rows, ids = RememberedRows(digits(), data, max_bytes=1 << 20), np.arange(8)
    for view in (0, 1, 0, 1):
        views = np.full(8, view, dtype=np.int32)
        assert torch.equal(
            rows.build(ids, views)[0]["image"], evaluation_rows(digits(), data).build(ids, views)[0]["image"]
        )


def test_a_view_may_give_several_named_inputs():
    inputs, labels = Rows(digits(), ImportSpec(f"{HERE}:two_inputs"), 0).build(np.array([2, 4]), np.zeros(2, int))
    assert {name: tuple(tensor.shape) for name, tensor in inputs.items()} == {
        "left": (2, 1, 8, 4),
        "right": (2, 1, 8, 4),
    }
    assert torch.cat([inputs["left"], inputs["right"]], dim=3)[1, 0].tolist() == digits().images[4].tolist()
    assert labels.tolist() == [1, 1]


@pytest.mark.parametrize("ids", [[1], [1, 3], [0], [0, 2], [0, 1], [1, 0, 3]])
def test_rows_lie_in_one_memory_order_whatever_their_neighbours(ids):
    """Channels last in memory gives other last bits than channels first: a batch must not take over its rows' order."""
    inputs, _ = Rows(digits(), ImportSpec(f"{HERE}:mixed_memory"), 0).build(np.array(ids), np.zeros(len(ids), int))
    assert inputs["image"].stride() == (3 * 64, 64, 8, 1)


def test_a_view_whose_type_differs_from_row_to_row_is_refused():
    """Else a uint8 row would become float, and so escape scaling, because of its neighbour."""
    with pytest.raises(TypeError, match="cast"):
        Rows(digits(), ImportSpec(f"{HERE}:mixed_types"), 0).build(np.array([0, 1]), np.zeros(2, int))


def small(**changes) -> BatchSampler:
    settings = {
        "labelled": np.arange(100, 130),
        "unlabelled": np.arange(200, 218),
        "batch_size": 12,
        "seed": 0,
        "num_views": 3,
    }
    return BatchSampler(**{**settings, **changes})


def ids_of(one: BatchSampler, epoch: int) -> list[list[int]]:
    rows = training_rows(digits(), DATA)
    return [batch.ids.tolist() for batch in one.batches(rows, one.positions(Position(), epoch))]


def test_every_epoch_is_a_new_permutation():
    epochs = [sum(ids_of(small(), epoch), []) for epoch in range(3)]
    everyone = [*range(100, 130), *range(200, 218)]
    assert small().steps_per_epoch == 4 and all(sorted(epoch) == everyone for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != everyone and epochs[0] == sum(ids_of(small(), 0), [])
    assert epochs[0] != sum(ids_of(small(seed=1), 0), [])


def test_what_does_not_fill_a_batch_is_left_out_of_that_epoch_only():
    first, second = (set(sum(ids_of(small(batch_size=20), epoch), [])) for epoch in (0, 1))
    assert len(first) == len(second) == 40 and first != second


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_workers_parts_make_up_the_one_workers_batch(world_size):
    parts = [ids_of(small(rank=rank, world_size=world_size), 1) for rank in range(world_size)]
    for whole, *shares in zip(ids_of(small(), 1), *parts, strict=True):
        assert [len(share) for share in shares] == [12 // world_size] * world_size
        assert sum(shares, []) == whole


def test_unlabelled_rows_have_no_label_and_the_others_their_own():
    one = small()
    batch = one.batch(training_rows(digits(), DATA), Position(0, 1))
    truth = {i: digits()[i][1] if i < 200 else NO_LABEL for i in batch.ids.tolist()}
    assert batch.labels.tolist() == list(truth.values())
    assert {-1} < set(batch.labels.tolist()), "both kinds are in this batch"


def fractional(dataset, sample_id, generator):
    image, label = dataset[sample_id]
    return image[None], label + 0.7


def test_a_label_that_is_no_whole_number_names_the_sample():
    with pytest.raises(ValueError, match=r"^data: sample 5 has label [\d.]+7, expected the number of a class"):
        Rows(digits(), ImportSpec(f"{HERE}:fractional"), 0).build(np.array([5]), np.zeros(1, dtype=np.int32))


def test_a_negative_label_of_a_labelled_row_is_refused():
    """It would be taken for an unlabelled row, and silently be masked."""
    rows = Rows(digits(), ImportSpec(f"{HERE}:negative"), 0)
    with pytest.raises(ValueError, match=r"^data\.train: sample 1\d\d has a negative label; expected at least 0"):
        small(unlabelled=np.arange(0)).batch(rows, Position())
    batch = small(labelled=np.arange(0)).batch(rows, Position())
    assert set(batch.labels.tolist()) == {NO_LABEL}, "of an unlabelled row it does not matter"


def test_a_resumed_run_sees_the_batches_that_an_undisturbed_one_sees():
    one, rows = small(), training_rows(digits(), DATA)
    undisturbed = list(one.batches(rows, one.positions(Position(), 1)))
    for batch in one.batches(rows, one.positions(Position(0, 3), 0)):
        assert batch.position == Position(0, 3), "other batches than epoch 1's are drawn in between"
    resumed = list(one.batches(rows, one.positions(Position(1, 2), 1)))
    assert [batch.position for batch in resumed] == [Position(1, 2), Position(1, 3)]
    for ours, theirs in zip(resumed, undisturbed[2:], strict=True):
        assert np.array_equal(ours.digests, theirs.digests) and np.array_equal(ours.ids, theirs.ids)
        assert torch.equal(ours.labels, theirs.labels) and np.array_equal(ours.views, theirs.views)
    assert list(one.positions(Position(1, 4), 1)) == []
    assert len(list(one.positions(Position(1, 2), 2))) == 4, "a later epoch begins at its first step"


def test_an_epochs_view_goes_round_or_is_fresh():
    assert [small().view(epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert [small(num_views=None).view(epoch) for epoch in (0, 3, 70)] == [0, 3, 70]
    batch = small().batch(training_rows(digits(), DATA), Position(4, 0))
    assert batch.views.tolist() == [1] * 12 and (batch.views.dtype, batch.ids.dtype) == (np.int32, np.int64)


def test_a_batch_shows_the_pixels_of_its_ids_and_views():
    batch = sampler().batch(training_rows(digits(), DATA), Position(1, 2))
    assert np.array_equal(batch.digests, digest(batch.ids, batch.views)) and len(batch) == 24
    assert batch.digests[5] == row_digests({"image": batch.inputs["image"][5:6]})[0]
