"""Who worked and who waited when: the lanes of an epoch, and the replicas over time. Plain figures in, drawings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from actors.serving import MOST_SPANS, Span
from orchestrator.reporting.figures import PAINT, WIDE_IN, Figure, Look, as_svg, canvas, legend_of, shortened
from orchestrator.reporting.plots import Looks
from orchestrator.reporting.recorded import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLICES = 200
CLOSE_STEPS = 30
MOST_LANES = 36
ROW_IN, AROUND_IN, PANEL_IN = 0.2, 0.62, 1.05
MARGIN, THIN = 0.12, 0.4
POINTS = 72
MINUTES_FROM_S = 180


@dataclass(frozen=True)
class Lane:
    """One student worker or one replica. `busy`: whose colour, and when; the first are its work, others its waits;
    `height`: in rows.
    """

    name: str
    busy: Sequence[tuple[Look, Sequence[Span]]]
    height: int = 1
    opens_group: bool = False


@dataclass(frozen=True)
class Epoch:
    """The workers' lanes and then the replicas' on one clock. `end`: until when all was recorded; `note`: what is not
    shown.
    """

    lanes: Sequence[Lane]
    end: float
    note: str
    legend: Sequence[tuple[str, Look]]

    @property
    def num_rows(self) -> int:
        return sum(lane.height for lane in self.lanes)

    @property
    def rows(self) -> Iterator[tuple[int, Lane]]:
        """Each lane with the row that it begins at, from above."""
        return zip(accumulate((lane.height for lane in self.lanes), initial=0), self.lanes, strict=False)


def epoch_figures(rung: str, timelines: Sequence[Values], look: Looks) -> list[Figure]:
    """The whole of a recorded epoch, and some of its steps close by; a short epoch whole alone."""
    recorded = [(rank, one) for rank, one in enumerate(timelines) if one["steps"]]
    if not recorded:
        return []
    epoch = aligned(rung, recorded, look)
    steps = epoch.lanes[0].busy[0][1]
    number = f"epoch {recorded[0][1]['epoch'] + 1} of {rung}"
    if len(steps) <= CLOSE_STEPS:
        return [bars(epoch, (0.0, epoch.end), f"Who worked when, {number}")]
    middle = (len(steps) - CLOSE_STEPS) // 2
    last_start, last_s = steps[middle + CLOSE_STEPS - 1]
    return [
        heights(epoch, f"Who worked when, {number}"),
        bars(epoch, (steps[middle][0], last_start + last_s), f"{CLOSE_STEPS} steps from the middle of {number}"),
    ]


def aligned(rung: str, recorded: Sequence[tuple[int, Values]], look: Looks) -> Epoch:
    """`recorded`: the workers' timelines, each with its rank."""
    began = min(one["began"] for _, one in recorded)
    workers = [
        _worker(rung if len(recorded) == 1 else f"{rung}, worker {rank}", rung, one, one["began"] - began, look)
        for rank, one in recorded
    ]
    ends = [max(start + seconds for _, spans in lane.busy for start, seconds in spans) for lane in workers]
    full = [end for (_, one), end in zip(recorded, ends, strict=True) if _num_spans(one) >= MOST_SPANS]
    end = min(full, default=max(ends))
    note = f" Recorded are the first {end:.3g} s: a worker notes {MOST_SPANS:,} spans." if full else ""
    answers = _answers(recorded, began, look)
    most = max(1, MOST_LANES // max(1, len(answers)))
    if any(len(replicas) > most for replicas in answers.values()):
        note += f" Of each teacher the {most} replicas that answered most are shown."
    lanes = [lane for teacher, spans in answers.items() for lane in _replicas(teacher, spans, look[teacher], most)]
    return Epoch([*workers, *lanes], end, note, legend_of(look, [rung, *answers]))


def _worker(name: str, rung: str, timeline: Values, shift: float, look: Looks) -> Lane:
    steps = (look[rung], _shifted(timeline["steps"], shift))
    waits = [(look[teacher], _shifted(spans, shift)) for teacher, spans in timeline["waits"].items()]
    return Lane(name, [steps, *waits], height=2)


def _answers(recorded: Sequence[tuple[int, Values]], began: float, look: Looks) -> dict[str, dict[str, list[Span]]]:
    """By teacher and replica, to whichever worker; teachers in their order everywhere."""
    found: dict[str, dict[str, list[Span]]] = {}
    for _, one in recorded:
        for teacher in (name for name in look if name in one["answers"]):
            for replica, spans in one["answers"][teacher].items():
                found.setdefault(teacher, {}).setdefault(replica, []).extend(_shifted(spans, one["began"] - began))
    return {teacher: found[teacher] for teacher in look if teacher in found}


def _replicas(teacher: str, answers: Mapping[str, Sequence[Span]], look: Look, most: int) -> list[Lane]:
    busiest = sorted(answers, key=lambda replica: -len(answers[replica]))[:most]
    shown = sorted(busiest, key=lambda replica: (len(replica), replica))
    return [Lane(f"{teacher} {one}", [(look, answers[one])], opens_group=one == shown[0]) for one in shown]


def heights(epoch: Epoch, title: str) -> Figure:
    """Each lane as high as its share of busy time, slice by slice: as true of a million spans as of ten."""
    edges = np.linspace(0.0, epoch.end, SLICES + 1)
    with canvas(AROUND_IN + ROW_IN * epoch.num_rows, width_in=WIDE_IN) as (drawing, [panel]):
        _rule(panel, epoch, (0.0, epoch.end))
        for row, lane in epoch.rows:
            base = np.full(SLICES, float(row + lane.height))
            for look, spans in lane.busy:
                top = np.maximum(base - (lane.height - MARGIN) * busy_share(spans, edges), row + MARGIN)
                panel.stairs(top, edges, baseline=base, fill=True, color=look.paint, linewidth=0)
                base = top
        whole = np.array([0.0, epoch.end])
        shares = [f"{lane.name} {busy_share(lane.busy[0][1], whole)[0]:.0%}" for lane in epoch.lanes]
        svg = as_svg(drawing, title, f"{title}; busy: {', '.join(shares)}")
    reading = (
        f"A lane's height is the share of the time that it was busy, in each of {SLICES} slices. A student's lane: its "
        "steps in its own colour and, above them, its waits in the colour of the teacher that it waited for; the rest "
        f"is data and evaluation. A replica's lane: its answers, but for those given ahead of the student's first "
        f"step.{epoch.note}"
    )
    return Figure(title, reading, svg, epoch.legend, is_wide=True)


def bars(epoch: Epoch, between: Span, title: str) -> Figure:
    """Each span as a bar."""
    with canvas(AROUND_IN + ROW_IN * epoch.num_rows, width_in=WIDE_IN) as (drawing, [panel]):
        _rule(panel, epoch, between)
        for row, lane in epoch.rows:
            for number, (look, spans) in enumerate(lane.busy):
                x = _ends(spans, between)
                thick = (THIN if number else lane.height - 2 * MARGIN) * ROW_IN * POINTS
                y = np.full(x.size, row + lane.height / 2)
                panel.plot(x, y, color=look.paint, linewidth=thick, solid_capstyle="butt")
        svg = as_svg(drawing, title, f"{title}, span by span")
    reading = (
        "Thick bars: the student's steps, the replicas' answers. Thin bars in a student's lane: it stands still, in "
        f"the colour of the teacher that it waits for.{epoch.note}"
    )
    return Figure(title, reading, svg, epoch.legend, is_wide=True)


def _ends(spans: Sequence[Span], between: Span) -> np.ndarray:
    """Beginning and end of each span that is seen, with a gap after it."""
    first, last = between
    seen = [(start, start + seconds, np.nan) for start, seconds in spans if start + seconds >= first and start <= last]
    return np.clip(np.array(seen, dtype=float).reshape(-1), first, last)


def busy_share(spans: Sequence[Span], edges: np.ndarray) -> np.ndarray:
    """Of each slice between two edges, the share that the spans cover."""
    if not len(spans):
        return np.zeros(len(edges) - 1)
    starts, lengths = np.array(spans, dtype=float).T
    before = np.clip(edges[:, None] - starts, 0.0, lengths).sum(axis=1)
    return np.minimum(np.diff(before) / np.diff(edges), 1.0)


def replicas(rung: str, pool: Values, seconds: float, look: Looks) -> Figure | None:
    """A panel for each teacher: how many served, over time; a dot where something happened. None where none did."""
    counts: Mapping[str, Sequence[Sequence[float]]] = {name: each for name, each in pool["replicas"].items() if each}
    if not counts:
        return None
    from matplotlib.ticker import MaxNLocator

    end = max([seconds, *(at for each in counts.values() for at, _ in each), *(event[0] for event in pool["events"])])
    unit, per = ("minutes", 60) if end > MINUTES_FROM_S else ("seconds", 1)
    with canvas(PANEL_IN * len(counts) + 0.4, len(counts)) as (drawing, panels):
        for (teacher, changes), panel in zip(counts.items(), panels, strict=True):
            times, numbers = np.array([*changes, [end, changes[-1][1]]], dtype=float).T
            panel.step(times / per, numbers, where="post", color=look[teacher].paint)
            at = np.array([event[0] for event in pool["events"] if event[1] == teacher])
            panel.scatter(at / per, count_at(times, numbers, at), s=22, color=PAINT["ink"], linewidths=0, zorder=3)
            panel.set_title(_titled(teacher, pool["restarts"].get(teacher, 0)))
            panel.set(xlim=(0, end / per), ylim=(0, max(numbers) * 1.15 + 0.2))
            panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            panel.tick_params(labelbottom=panel is panels[-1])
        panels[-1].set_xlabel(f"{unit} since the pool started")
        spoken = ", ".join(f"{name} {int(max(n for _, n in each))} at most" for name, each in counts.items())
        svg = as_svg(drawing, f"replicas-{rung}", f"Replicas over time: {spoken}")
    return Figure("Replicas over time", "Replicas that served. A dot: something happened, see the list.", svg)


def count_at(times: np.ndarray, counts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The count that held at each moment; before the first change, that one's."""
    return counts[np.maximum(np.searchsorted(times, at, side="right") - 1, 0)]


def _rule(panel: Axes, epoch: Epoch, between: Span) -> None:
    """Names beside the lanes, a rule above each teacher's."""
    panel.set(xlim=between, ylim=(epoch.num_rows, 0))
    middles = [row + lane.height / 2 for row, lane in epoch.rows]
    panel.set_yticks(middles, [shortened(lane.name, 24) for lane in epoch.lanes])
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0, labelsize=10)
    panel.set_xlabel("seconds since the first step")
    for row, lane in epoch.rows:
        if lane.opens_group:
            panel.axhline(row, color=PAINT["faint"], linewidth=0.8)


def _shifted(spans: Sequence[Span], by: float) -> list[Span]:
    return [(start + by, seconds) for start, seconds in spans]


def _num_spans(timeline: Values) -> int:
    answers = (spans for replicas in timeline["answers"].values() for spans in replicas.values())
    return len(timeline["steps"]) + sum(map(len, timeline["waits"].values())) + sum(map(len, answers))


def _titled(teacher: str, restarts: int) -> str:
    again = f", {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
    return shortened(teacher, 30) + again
