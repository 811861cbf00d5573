"""How often teachers were asked, and how often they had to compute. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

PASSES = "passes-"
"""With what the files begin in which the workers of a rung say it."""


@dataclass
class Passes:
    """Rows of one teacher. `asked`: by students; `read`: of these, found in the store; `computed`: judged by the
    teacher; `written`: into the store; `other_pixels`: found, but of other pixels, so that they were judged anew."""

    asked: int = 0
    read: int = 0
    computed: int = 0
    written: int = 0
    other_pixels: int = 0


def summed(several: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, int]]:
    """Counts by teacher, of several processes, as one."""
    totals: dict[str, Passes] = {}
    for teachers in several:
        for teacher, counts in teachers.items():
            total = totals.setdefault(teacher, Passes())
            for one in fields(Passes):
                setattr(total, one.name, getattr(total, one.name) + counts[one.name])
    return {teacher: asdict(total) for teacher, total in totals.items()}
