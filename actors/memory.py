"""How the C library of a process that computes keeps its memory. Standard library only."""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30
MOST_FROM_HEAP_BYTES = 1 << 25


def keep_freed_memory() -> None:
    """What a step has freed stays with the process for the next step. glibc else gives large tensors back at once and
    every step faults them in again page by page, a tenth of a small student's time. Elsewhere: nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(MMAP_THRESHOLD, MOST_FROM_HEAP_BYTES)
