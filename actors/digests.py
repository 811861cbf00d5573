"""By what pixels are recognised: eight bytes a row. Imports no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

WORD = 8
WORDS_AT_ONCE = 1 << 15
"""What is computed with stays in a processor's cache."""
PLACE = np.uint64(0x9E3779B97F4A7C15)
SHIFTS_AND_FACTORS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST_SHIFT = np.uint64(31)


def row_digests(inputs: Mapping[str, Tensor]) -> np.ndarray:
    """(rows,) uint64 of the bytes of each row's inputs, in the order of their names. Rows of other pixels have other
    digests, unless somebody searched for two that have not.

    The 8-byte words of the inputs, each input's last one filled up with zeros, are numbered through from 1. To each,
    `PLACE` times its number is added, the finaliser of SplitMix64 (Steele, Lea and Flood, 2014,
    doi:10.1145/2660193.2660195) stirs it, and the digest is the sum of them all, modulo 2^64.
    """
    digests, number = np.zeros(len(next(iter(inputs.values()))), dtype=np.uint64), 1
    for name in sorted(inputs):
        for words in _blocks(inputs[name]):
            numbers = np.arange(number, number + words.shape[1], dtype=np.uint64)
            digests += _stirred(words + numbers * PLACE).sum(axis=1, dtype=np.uint64)
            number += words.shape[1]
    return digests


def _blocks(tensor: Tensor) -> Iterator[np.ndarray]:
    """(rows, words), a few words of each row at a time."""
    array = np.ascontiguousarray(tensor.numpy())
    content = array.reshape(len(array), -1).view(np.uint8)
    missing = -content.shape[1] % WORD
    words = (np.pad(content, ((0, 0), (0, missing))) if missing else content).view(np.uint64)
    step = max(1, WORDS_AT_ONCE // max(1, len(words)))
    for start in range(0, words.shape[1], step):
        yield words[:, start : start + step]


def _stirred(words: np.ndarray) -> np.ndarray:
    """In place."""
    shifted = np.empty_like(words)
    for shift, factor in SHIFTS_AND_FACTORS:
        words ^= np.right_shift(words, shift, out=shifted)
        words *= factor
    words ^= np.right_shift(words, LAST_SHIFT, out=shifted)
    return words
