"""Pixels of several batches, put together and sent once."""

import pickle

import numpy as np
import pytest

from actors.pool.parcel import INLINE_BYTES, Parcel


def test_small_pixels_become_the_same_bytes_for_every_host():
    parcel = Parcel()
    assert [parcel.add({"image": np.full((2, 3), number, dtype=np.uint8)}) for number in range(3)] == [0, 1, 2]
    assert not parcel.is_sent

    sent = parcel.sent()

    assert parcel.is_sent and parcel.sent() is sent, "sent once"
    assert [pixels["image"][0, 0] for pixels in pickle.loads(sent)] == [0, 1, 2]
    assert len(sent) < INLINE_BYTES


def test_nothing_joins_what_is_sent():
    parcel = Parcel()
    parcel.add({"image": np.zeros(3, dtype=np.uint8)})
    parcel.sent()
    with pytest.raises(AssertionError):
        parcel.add({"image": np.zeros(3, dtype=np.uint8)})
