"""Several ways of doing one thing, side by side in one run: they take turns, so that whatever else the machine does
falls on all of them.

`alternate` runs them, `Ratio` sets one against another, `Goal` says what is to be reached; `show` prints, `keep` writes
JSON. Imports no Ray.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.table import Table

OUT = Path("benchmarks/out")
WIDTH = 140
BUSY = 0.5
"""A load above it, before a benchmark begins, is worth a word."""
Name = TypeVar("Name")
Measured = TypeVar("Measured")


def alternate(ways: Mapping[Name, Callable[[], Measured]], rounds: int) -> dict[Name, list[Measured]]:
    """What each way measured, by round. Every other round goes backwards, so that no way always follows the same."""
    measured: dict[Name, list[Measured]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            measured[name].append(ways[name]())
    return measured


@dataclass(frozen=True)
class Ratio:
    """One way against another: the ratio of their medians, and the lowest and highest that any round gave."""

    of_medians: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float], against: Sequence[float]) -> Ratio:
        by_round = [value / other for value, other in zip(values, against, strict=True)]
        return cls(median(values) / median(against), min(by_round), max(by_round))

    def __str__(self) -> str:
        return f"{self.of_medians:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


@dataclass(frozen=True)
class Goal:
    """What a ratio of medians should be: at least, or at most, `bound`."""

    what: str
    ratio: Ratio
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.ratio.of_medians >= self.bound if self.at_least else self.ratio.of_medians <= self.bound

    def __str__(self) -> str:
        wanted = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        return f"{self.what}: {self.ratio}, wanted {wanted}: {'met' if self.met else 'MISSED'}"


def per_second(step: Callable[[], object], seconds: float, settle_s: float) -> float:
    """Steps a second: `step` is called for `settle_s` off the clock, then for `seconds` on it."""
    repeat(step, settle_s)
    steps, taken = repeat(step, seconds)
    return steps / taken


def repeat(step: Callable[[], object], seconds: float) -> tuple[int, float]:
    """How often `step` was called, and the seconds that it took."""
    start, steps, taken = time.perf_counter(), 0, 0.0
    while taken < seconds:
        step()
        steps += 1
        taken = time.perf_counter() - start
    return steps, taken


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console = Console(width=WIDTH)
    console.print(title, table, "", sep="\n")


def show_goals(goals: Sequence[Goal]) -> None:
    for goal in goals:
        print(goal)


def keep(benchmark: str, settings: Mapping[str, Any], **found: Any) -> Path:
    """Writes the numbers of a benchmark, with those of the machine, and says where."""
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"{benchmark}.json"
    file.write_text(json.dumps({"machine": machine(), "settings": dict(settings), **found}, indent=1, default=_plain))
    print(f"all numbers: {file}")
    return file


def _plain(value: Any) -> Any:
    return {**asdict(value), "met": value.met} if isinstance(value, Goal) else asdict(value)


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "ray", "numpy")},
    }


def say_whether_idle() -> None:
    """Numbers of a machine that does something else as well are worth less: it says so."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"this machine is not idle (load {load:.1f}): ratios hold better than times")
