"""What travels: knowledge as one flat dict of arrays."""

import math
import pickle

import numpy as np
import pytest
import torch

from actors.digests import row_digests
from actors.errors import KnowledgeError
from actors.knowledge import (
    Knowledge,
    Position,
    TeacherRequest,
    pack,
    refuse_unbounded,
    unbounded_rows,
    unpack,
)
from tests.unit.digits_setup import batches

HARD_FLOATS = [0.0, -0.0, 1e-45, -1e-40, math.inf, -math.inf, 3.4e38, 1 / 3, 1 + 2**-23]


def bits(tensor):
    return tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int64])
def test_knowledge_comes_back_bit_for_bit(dtype):
    feature = torch.tensor(HARD_FLOATS).nan_to_num(7, 9, -9).to(dtype).reshape(3, 1, 3)
    sent = Knowledge(
        "wide", torch.tensor([HARD_FLOATS] * 2), {"late": feature, "early": feature[:, 0, 1:]}, version="v"
    )
    packed = pack(sent)
    got = unpack(pickle.loads(pickle.dumps(packed)))
    assert (got.teacher, got.version, got.digests) == ("wide", "v", None)
    assert got.logits is not None and bits(got.logits) == bits(torch.tensor([HARD_FLOATS] * 2))
    assert list(got.features) == ["late", "early"] and got.features["late"].dtype == dtype
    assert all(bits(got.features[tap]) == bits(sent.features[tap]) for tap in sent.features)
    assert got.num_bytes == sent.num_bytes


def test_nan_keeps_its_bits():
    strange = torch.tensor([0x7FC00001, 0x7F800001], dtype=torch.int32).view(torch.float32)
    got = unpack(pack(Knowledge("wide", strange[None]))).logits
    assert got is not None and bits(got) == bits(strange)


def test_packed_knowledge_is_flat_and_holds_no_tensor():
    digests = np.array([1, 2], dtype=np.uint64)
    packed = pack(Knowledge("wide", None, {"tensor:odd": torch.ones(2, 3)}, digests, "v"))
    assert {type(value) for value in packed.values()} <= {str, np.ndarray}
    got = unpack(packed)
    assert got.logits is None and list(got.features) == ["tensor:odd"] and got.digests is digests


def test_unpacking_copies_nothing_even_from_read_only_memory():
    packed = pack(Knowledge("wide", torch.ones(2, 3)))
    packed["tensor:logits"].flags.writeable = False
    got = unpack(packed)
    assert got.logits is not None and got.logits.data_ptr() == packed["tensor:logits"].ctypes.data


def test_bytes_are_those_of_the_tensors():
    known = Knowledge("wide", torch.zeros(5, 10), {"map": torch.zeros(5, 2, 4, 4)}, np.zeros(5, dtype=np.uint64))
    assert known.num_bytes == 4 * (5 * 10 + 5 * 2 * 4 * 4)
    assert list(known.tensors) == ["logits", "map"]
    assert Knowledge("wide", None, {"map": torch.zeros(1)}).num_bytes == 4


def test_a_move_to_a_device_keeps_everything():
    digests = np.array([4], dtype=np.uint64)
    moved = Knowledge("wide", torch.ones(1, 2), {"map": torch.ones(1)}, digests, "v").to(torch.device("cpu"))
    assert (moved.teacher, moved.version, moved.digests) == ("wide", "v", digests) and list(moved.features) == ["map"]


def test_requests_and_positions_are_values():
    assert TeacherRequest("wide") == TeacherRequest("wide", True, ()) != TeacherRequest("wide", True, ("pool",))
    assert Position() == Position(0, 0) and len({Position(1, 2), Position(1, 2)}) == 1


def test_a_batch_computes_its_digests_once():
    (batch,) = batches(1)
    assert batch.digests is batch.digests and np.array_equal(batch.digests, row_digests(batch.inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_marks_its_row_alone(dtype, bad):
    values = torch.zeros(5, 3, 2, dtype=dtype)
    values[3, 1, 0] = bad
    assert unbounded_rows(values).tolist() == [False, False, False, True, False]


def test_infinite_values_do_not_cancel():
    values = torch.zeros(4, 2)
    values[0, 1], values[2, 0] = math.inf, -math.inf
    assert unbounded_rows(values).tolist() == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_finite_values_whose_sum_overflows_are_finite(dtype):
    values = torch.full((70000, 2), torch.finfo(dtype).max, dtype=dtype)
    assert not values.sum().isfinite() and not unbounded_rows(values).any()
    values[1, 1] = math.nan
    assert unbounded_rows(values).nonzero()[0].tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(4,), (4, 0), (0, 3), (4, 2, 2)])
def test_whole_numbers_are_always_finite(dtype, shape):
    found = unbounded_rows(torch.ones(shape, dtype=dtype))
    assert found.dtype == bool and found.tolist() == [False] * shape[0]


def test_what_cannot_be_learned_from_names_teacher_tap_and_ids():
    feature = torch.zeros(20, 3, 2)
    feature[[1, 5], 2, 1] = math.nan
    ids = np.arange(100, 120)
    refuse_unbounded(Knowledge("wide", torch.zeros(20, 10), {"pool": torch.zeros(20, 3, 2)}), ids)
    with pytest.raises(KnowledgeError) as refusal:
        refuse_unbounded(Knowledge("wide", torch.zeros(20, 10), {"pool": feature}), ids)
    assert str(refusal.value) == (
        "teacher 'wide' sent NaN or infinite values, tap 'pool', sample ids 101, 105; "
        "check its weights and its input section"
    )
    with pytest.raises(KnowledgeError, match=r"tap 'logits', sample ids 100, (\d+, ){6}107 and 12 more; check"):
        refuse_unbounded(Knowledge("wide", torch.full((20, 10), -math.inf)), ids)
