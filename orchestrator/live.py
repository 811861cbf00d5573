"""The live terminal view: a table of the rungs that train now, or one plain line per epoch where there is no
terminal.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from actors.progress import Progress

HEADINGS = ("rung", "epoch", "", "losses", "validation", "images/s", "waiting", "left")


class LiveView:
    """Shows what rungs report. A context: outside it nothing is drawn."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._rungs: dict[str, Progress] = {}
        self._accuracy: dict[str, float] = {}
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
        if not self.console.is_terminal:
            if progress.epoch_done:
                self.say(plain_line(progress))
            return
        if progress.epoch_done and progress.epoch + 1 == progress.epochs:
            self.say(plain_line(self._rungs.pop(progress.rung)))
        self._live.update(self.table() if self._rungs else "")

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
    """The share of the time that the student stood still, and the teacher it stood still for longest."""
    share = f"{progress.shares.get('wait', 0):.0%}"
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
