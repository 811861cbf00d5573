"""The live terminal view: tables of the rungs that train now and of how their teachers serve them, or one plain line
per epoch where there is no terminal. How a rung was served is said when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from actors.progress import Progress
from actors.serving import Summary
from orchestrator.printing import bytes_text
from orchestrator.reporting.serving import by_worker, rows, share_text, time_text

HEADINGS = ("rung", "epoch", "", "losses", "validation", "images/s", "waiting", "left")


SERVED = ("taught", "by", "replicas", "images/s", "answer (p99)", "queue (p99)", "waited", "a sample", "asked again")


class LiveView:
    """Shows what rungs report. A context: outside it nothing is drawn."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._rungs: dict[str, Progress] = {}
        self._accuracy: dict[str, float] = {}
        self._records: dict[str, list[Mapping[str, Any]]] = {}
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        self._rungs[progress.rung] = progress
        if progress.accuracy is not None:
            self._accuracy[progress.rung] = progress.accuracy
        if progress.record is not None:
            self._records.setdefault(progress.rung, []).append(progress.record)
        is_last = progress.epoch_done and progress.epoch + 1 == progress.epochs
        if is_last or (progress.epoch_done and not self.console.is_terminal):
            self.say(plain_line(progress))
        if is_last:
            del self._rungs[progress.rung]
            self._say_served(progress.rung)
        if self.console.is_terminal:
            self._live.update(Group(self.table(), self._serving_now()) if self._rungs else "")

    def _say_served(self, rung: str) -> None:
        workers = by_worker(self._records.pop(rung, []))
        if any(workers):
            self.console.print(serving_table({rung: workers}))

    def _serving_now(self) -> Table | str:
        """Of the latest epoch of each rung that trains."""
        latest = {rung: by_worker(records[-1:]) for rung, records in self._records.items()}
        taught = {rung: workers for rung, workers in latest.items() if any(workers)}
        return serving_table(taught) if taught else ""

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in HEADINGS:
            table.add_column(heading, no_wrap=heading != "losses")
        for progress in self._rungs.values():
            accuracy = self._accuracy.get(progress.rung)
            done = progress.epoch * progress.steps + progress.step
            table.add_row(
                progress.rung,
                f"{progress.epoch + 1}/{progress.epochs}",
                ProgressBar(total=progress.epochs * progress.steps, completed=done, width=10),
                terms_text(progress),
                "" if accuracy is None else f"{accuracy:.2%}",
                f"{progress.images_per_s:,.0f}",
                waiting_text(progress),
                "" if progress.left_s is None else duration(progress.left_s),
            )
        return table


def serving_table(rungs: Mapping[str, Sequence[Mapping[str, Summary]]]) -> Table:
    """How each teacher served each rung, over all its workers, and below that each worker where there are several."""
    table = Table(box=None, pad_edge=False)
    for heading in SERVED:
        table.add_column(heading, no_wrap=True)
    for rung, workers in rungs.items():
        for row in rows(workers, None):
            one = row.summary
            table.add_row(
                rung if row.rank is None else "",
                row.teacher if row.rank is None else f"  worker {row.rank}",
                str(one["replicas"]),
                f"{one['images_per_s']:,.0f}",
                f"{time_text(one['service_ms']['median'])} ({time_text(one['service_ms']['p99'])})",
                f"{time_text(one['queue_ms']['median'])} ({time_text(one['queue_ms']['p99'])})",
                share_text(one["waited_share"]),
                bytes_text(one["bytes_per_sample"]),
                str(one["retries"]),
            )
    return table


def plain_line(progress: Progress) -> str:
    """One finished epoch as text."""
    accuracy = "" if progress.accuracy is None else f"  accuracy {progress.accuracy:.2%}"
    left = "" if not progress.left_s else f"  {duration(progress.left_s)} left"
    return (
        f"{progress.rung}  epoch {progress.epoch + 1}/{progress.epochs}  {terms_text(progress)}{accuracy}  "
        f"{progress.images_per_s:,.0f} images/s  waiting {waiting_text(progress)}{left}"
    )


def terms_text(progress: Progress) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in progress.terms.items())


def waiting_text(progress: Progress) -> str:
    """The share of the time that the student stood still for its teachers, and for which of them longest."""
    share = f"{sum(progress.waited.values()):.0%}"
    longest = max(progress.waited, key=progress.waited.__getitem__, default="")
    return f"{share} ({longest})" if longest and share != "0%" else share


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 07 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
