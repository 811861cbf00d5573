"""Finding rows by key and digest: whatever their order, and however they came."""

import numpy as np
import pytest

from actors.store.index import MISSING, UNSTIR, Index


def looked_up(added, key, digest):
    """The place, and whether the key is there with other pixels alone: what was added last of the same wins."""
    places = [place for one, other, place in added if (one, other) == (key, digest)]
    return (places[-1], False) if places else (MISSING, any(one == key for one, _, _ in added))


@pytest.mark.parametrize("far", [1, 1_000_003])
@pytest.mark.parametrize(("ids", "views"), [(3, 1), (3, 4), (500, 1), (500, 4)])
def test_rows_are_found_as_in_a_list(ids, views, far):
    dice, index, added = np.random.default_rng(ids + views), Index(), []

    def drawn(count):
        keys = (dice.integers(0, ids, count) * far).astype(np.uint64) << np.uint64(32)
        return keys | dice.integers(0, views, count).astype(np.uint64), dice.integers(0, 3, count).astype(np.uint64)

    for start in (0, 70, 140):
        keys, digests = drawn(70)
        places = np.arange(start, start + 70)
        index.add(keys, digests, places)
        added += zip(keys.tolist(), digests.tolist(), places.tolist(), strict=True)
    keys, digests = drawn(200)
    keys[:3] = 0, 1 << 63, (1 << 64) - 1
    expected = [looked_up(added, *row) for row in zip(keys.tolist(), digests.tolist(), strict=True)]

    places, others = index.find(keys, digests)

    same = [place == MISSING for place, _ in expected]
    assert (places == MISSING).tolist() == same
    assert others.tolist() == [other for _, other in expected]
    there = {place: (key, digest) for key, digest, place in added}
    found = [there[place] for place in places.tolist() if place != MISSING]
    assert found == [
        row for row, no in zip(zip(keys.tolist(), digests.tolist(), strict=True), same, strict=True) if not no
    ]
    assert index.holds(keys).tolist() == [any(key == one for one, _, _ in added) for key in keys.tolist()]


def test_keys_that_somebody_chose_to_lie_together_are_found_all_the_same():
    index, places = Index(), np.arange(3000)
    together = places.astype(np.uint64) * UNSTIR
    index.add(together, np.zeros(3000, dtype=np.uint64), places)
    found, _ = index.find(together[::-1], np.zeros(3000, dtype=np.uint64))
    assert found.tolist() == places[::-1].tolist() and index.holds(together).all()


def test_no_rows_are_nothing_to_look_for():
    index, nothing = Index(), np.zeros(0, dtype=np.uint64)
    index.add(nothing, nothing, np.zeros(0, dtype=np.int64))
    one = np.ones(1, dtype=np.uint64)

    assert index.find(one, one)[0].tolist() == [MISSING]
    assert index.holds(one).tolist() == [False]
