"""Digests of pixels: what they are of, and that different pixels have different ones."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from actors import digests
from actors.digests import row_digests
from tests.unit.digits_setup import images

LOWER = (1 << 64) - 1


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def by_hand(content: bytes, number: int) -> int:
    """The sum over the words of one input, the first of which has this number; in whole numbers of Python."""
    found = 0
    for start in range(0, len(content), 8):
        word = int.from_bytes(content[start : start + 8], "little") + (number + start // 8) * 0x9E3779B97F4A7C15 & LOWER
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & LOWER
        word = (word ^ word >> 27) * 0x94D049BB133111EB & LOWER
        found += word ^ word >> 31
    return found & LOWER


def test_the_finaliser_is_that_of_splitmix64():
    """Its first numbers from 0, as its authors' code gives them."""
    assert [by_hand(bytes(8), number) for number in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_a_digest_is_of_a_rows_bytes_in_the_order_of_the_inputs_names():
    left, right = images(3)[:, :, :, :5], images(3, seed=1).float()
    found = row_digests({"right": right, "left": left})
    expected = by_hand(bits(left[1]), 1) + by_hand(bits(right[1]), 1 + 5)
    assert (found.dtype, found.shape, int(found[1])) == (np.uint64, (3,), expected & LOWER)


def test_bytes_that_fill_no_word_count_too():
    odd = torch.arange(22, dtype=torch.uint8).reshape(2, 11)
    assert row_digests({"odd": odd}).tolist() == [by_hand(bits(row), 1) for row in odd]


def test_rows_of_many_words_are_taken_in_parts(monkeypatch):
    whole = row_digests({"image": images(5)})
    monkeypatch.setattr(digests, "WORDS_AT_ONCE", 15)
    assert np.array_equal(row_digests({"image": images(5)}), whole)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_rows_that_differ_in_one_bit_or_two_have_different_digests(value):
    row = np.unpackbits(np.full(16, value, dtype=np.uint8))
    flips = [(), *combinations(range(128), 1), *combinations(range(128), 2)]
    rows = np.tile(row, (len(flips), 1))
    for number, flipped in enumerate(flips):
        rows[number, list(flipped)] ^= 1
    found = row_digests({"image": torch.from_numpy(np.packbits(rows, axis=1))})
    assert len(np.unique(found)) == len(flips)


def test_the_order_of_words_counts():
    words = torch.arange(32, dtype=torch.uint8).reshape(1, 4, 8)
    orders = [row_digests({"image": words[:, list(order)]})[0] for order in permutations(range(4))]
    assert len(set(orders)) == 24


def test_any_changed_pixel_changes_the_digest_of_its_row_alone():
    pixels = images(4)
    before = row_digests({"image": pixels})
    for position in range(64):
        changed = pixels.clone()
        changed[2, 0, position // 8, position % 8] ^= 1
        after = row_digests({"image": changed})
        assert (after != before).tolist() == [False, False, True, False]


def test_a_digest_depends_on_neither_neighbours_nor_memory_order():
    pixels = images(5).expand(-1, 3, -1, -1)
    whole = row_digests({"image": pixels})
    assert whole[3] == row_digests({"image": pixels[3:4]})[0]
    assert np.array_equal(whole, row_digests({"image": pixels.contiguous(memory_format=torch.channels_last)}))
    assert np.array_equal(row_digests({"image": pixels[[4, 0]]}), whole[[4, 0]])


def test_a_row_may_be_a_single_number():
    found = row_digests({"length": torch.tensor([1.0, 2.0, 1.0])})
    assert found[0] == found[2] != found[1]
