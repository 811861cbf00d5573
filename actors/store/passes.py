"""How often teachers were asked, and how often they had to compute. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Passes:
    """Rows of one teacher. `asked`: by students; `read`: of these, found in the store; `computed`: judged by the
    teacher; `written`: into the store; `other_pixels`: found, but of other pixels, so that they were judged anew."""

    asked: int = 0
    read: int = 0
    computed: int = 0
    written: int = 0
    other_pixels: int = 0


def summed(several: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, int]]:
    """Counts by teacher of several processes as one."""
    totals: dict[str, Passes] = {}
    for teachers in several:
        for teacher, counts in teachers.items():
            total = totals.setdefault(teacher, Passes())
            for field in fields(Passes):
                setattr(total, field.name, getattr(total, field.name) + int(counts.get(field.name, 0)))
    return {teacher: asdict(total) for teacher, total in totals.items()}
