"""A dataset that lies once per node: bytes and arrays, opened without a copy."""

import pickle

import numpy as np
import pytest
import torch

from actors.data import SharedDataset, training_rows
from actors.digests import row_digests
from tests.unit.digits_setup import DATA, FashionLike, digits


class Holder:
    def __init__(self, **parts) -> None:
        self.__dict__.update(parts)


def sent(dataset) -> SharedDataset:
    """As Ray's object store hands it over: the arrays are read-only."""
    shared = SharedDataset.of(dataset)
    arrays = [array.copy() for array in shared.arrays]
    for array in arrays:
        array.flags.writeable = False
    return SharedDataset(pickle.loads(pickle.dumps(shared.pickled)), arrays)


def lies_within(address: int, num_bytes: int, shared: SharedDataset) -> bool:
    spans = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in shared.arrays]
    return any(start <= address and address + num_bytes <= end for start, end in spans)


@pytest.mark.parametrize("make", [FashionLike, digits])
def test_a_dataset_comes_back_with_the_same_rows(make):
    shared = sent(make())
    opened = shared.open()
    assert type(opened) is type(make()) and len(opened) == len(make())
    ids, views = np.arange(40), np.arange(40, dtype=np.int32)
    ours, labels = training_rows(opened, DATA).build(ids, views)
    theirs, same_labels = training_rows(make(), DATA).build(ids, views)
    assert np.array_equal(row_digests(ours), row_digests(theirs)) and torch.equal(labels, same_labels)


def test_tensors_lie_in_the_shared_memory_and_not_in_the_pickle():
    shared = sent(FashionLike(rows=500))
    first, second = shared.open(), shared.open()
    assert len(shared.pickled) < 2000 and sum(array.nbytes for array in shared.arrays) == 500 * 28 * 28 + 500 * 8
    assert lies_within(first.data.data_ptr(), first.data.nbytes, shared)
    assert lies_within(first.targets.data_ptr(), first.targets.nbytes, shared)
    assert first.data.data_ptr() == second.data.data_ptr(), "one copy serves every reader"
    assert torch.equal(first.data, FashionLike(rows=500).data) and first.classes == ["boot", "bag"]


def test_arrays_lie_in_the_shared_memory_and_cannot_be_written():
    shared = sent(digits())
    opened = shared.open()
    assert lies_within(opened.images.ctypes.data, opened.images.nbytes, shared)
    assert not opened.images.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        opened.images[0] = 0


def test_rows_can_be_built_over_read_only_memory_and_written_to():
    inputs, labels = training_rows(sent(FashionLike()).open(), DATA).build(np.arange(3), np.zeros(3, dtype=np.int32))
    inputs["image"].zero_()
    labels.zero_()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
        torch.tensor(3.5),
        torch.zeros(0, 3),
        torch.tensor([1.5, -2.0]).half(),
        torch.tensor([1.5, -2.0]).bfloat16(),
        torch.tensor([1 + 2j]).conj(),
        torch.eye(3).to_sparse(),
    ],
    ids=["transposed", "bool", "scalar", "empty", "half", "bfloat16", "conjugate", "sparse"],
)
def test_odd_tensors_survive(tensor):
    found = sent(Holder(part=tensor)).open().part
    assert found.dtype == tensor.dtype and found.shape == tensor.shape
    assert torch.equal(found.to_dense(), tensor.to_dense())


def test_odd_arrays_survive():
    fortran, strided = np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(20)[::3]
    opened = sent(Holder(fortran=fortran, strided=strided, words=np.array(["a", "b"]), twice=[fortran, fortran])).open()
    assert np.array_equal(opened.fortran, fortran) and np.array_equal(opened.strided, strided)
    assert opened.words.tolist() == ["a", "b"] and opened.twice[0] is opened.twice[1] is opened.fortran
