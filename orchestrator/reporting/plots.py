"""The figures of a report: plain figures in, drawings out. What they look like is in `figures`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.printing import bytes_text
from orchestrator.reporting.figures import PAINT, PARTS, Figure, Look, as_svg, canvas, legend_of, shortened
from orchestrator.reporting.recorded import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PANEL_IN, EDGE_IN = 1.55, 0.45
LOG_FROM = 30
MOST_CLASSES = 24
MOST_NAMES = 8
FEWEST = 10
Looks = Mapping[str, Look]


def losses(rungs: Sequence[Values], look: Looks, title: str) -> Figure:
    """A panel for every loss term."""
    terms = list(dict.fromkeys(term for rung in rungs for epoch in rung["history"] for term in epoch["terms"]))
    with canvas(PANEL_IN * len(terms) + EDGE_IN, len(terms)) as (drawing, panels):
        for term, panel in zip(terms, panels, strict=True):
            for rung in rungs:
                epochs = [epoch for epoch in rung["history"] if term in epoch["terms"]]
                _curve(panel, epochs, [epoch["terms"][term] for epoch in epochs], look[rung["name"]])
            panel.set_title(shortened(term, 40))
            _log_where_wide(panel)
            _mark_epochs(panel, max(len(rung["history"]) for rung in rungs))
        panels[-1].set_xlabel("epoch")
        svg = as_svg(drawing, title, f"{title}: {', '.join(terms)}, over epochs")
    reading = "Unweighted mean of each loss over an epoch of training; terms have scales of their own."
    return Figure(title, reading, svg, legend_of(look, [rung["name"] for rung in rungs]))


def accuracy(rungs: Sequence[Values], look: Looks, title: str) -> Figure:
    with canvas(2.9) as (drawing, [panel]):
        for rung in rungs:
            values = [100 * epoch["accuracy"] for epoch in rung["history"]]
            _curve(panel, rung["history"], values, look[rung["name"]])
        _mark_epochs(panel, max(len(rung["history"]) for rung in rungs))
        panel.set_ylabel("accuracy, %")
        panel.set_xlabel("epoch")
        last = [f"{rung['name']} {rung['history'][-1]['accuracy']:.1%}" for rung in rungs if rung["history"]]
        svg = as_svg(drawing, title, f"{title} over epochs; at the end {', '.join(last)}")
    reading = "On the validation slice, after each epoch. The table above has the test set."
    return Figure(title, reading, svg, legend_of(look, [rung["name"] for rung in rungs]))


def accuracy_against(models: Sequence[Values], look: Looks, what: str) -> Figure:
    """`what`: size or latency. The student alone and the distilled one are joined by a line."""
    values = {"size": _size, "latency": _latency}[what]
    shown = [model for model in models if values(model)]
    with canvas(2.9) as (drawing, [panel]):
        panel.set_xscale("log")
        for model in shown:
            dot(panel, values(model), 100 * model["accuracy"], look[model["name"]], model["role"])
        _join_alone_and_student(panel, shown, values)
        label_log(panel.xaxis, bytes_text if what == "size" else milliseconds)
        panel.set_ylabel("test accuracy, %")
        panel.set_xlabel("size on disk" if what == "size" else "latency of one image, one CPU thread")
        spoken = [f"{model['name']} {model['accuracy']:.1%}" for model in shown]
        svg = as_svg(drawing, f"against-{what}", f"Test accuracy against {what}: {', '.join(spoken)}")
    reading = (
        "Up and to the left is better. The line is what distilling adds; the ensemble costs the sum of its teachers."
    )
    return Figure(f"Accuracy against {what}", reading, svg, legend_of(look, [model["name"] for model in shown]), True)


def reliability(models: Sequence[Values], look: Looks) -> Figure:
    with canvas(3.5) as (drawing, [panel]):
        panel.plot([0, 100], [0, 100], color=PAINT["faint"], linewidth=1.4)
        for model in models:
            bins, one = _filled(model["reliability"]), look[model["name"]]
            total = max(sum(each["count"] for each in bins), 1)
            x, y = ([100 * each[key] for each in bins] for key in ("confidence", "accuracy"))
            panel.plot(x, y, **one.line, linewidth=1.9 if model["role"] == "student" else 1.3)
            sizes = [8 + 90 * each["count"] / total for each in bins]
            panel.scatter(x, y, s=sizes, color=one.paint, linewidths=0, zorder=3)
        panel.set_xlabel("confidence, %")
        panel.set_ylabel("accuracy, %")
        spoken = ", ".join(f"{model['name']} {model['ece']:.3f}" for model in models)
        svg = as_svg(drawing, "reliability", f"Reliability diagram; expected calibration error: {spoken}")
    reading = (
        "On the diagonal, 80 % confident is 80 % right; below it a model is too sure. Larger dots hold more samples; "
        f"bins of fewer than {FEWEST} are left out."
    )
    legend = [(f"{model['name']}, ECE {model['ece']:.3f}", look[model["name"]]) for model in models]
    return Figure("Calibration", reading, svg, legend)


def agreement(names: Sequence[str], shares: Sequence[Sequence[float]]) -> Figure:
    count = len(names)
    from matplotlib.patches import Rectangle

    lowest = min((share for row in shares for share in row), default=0)
    with canvas(1.1 + 0.42 * count) as (drawing, [panel]):
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                strength = 0.06 + 0.5 * (share - lowest) / (1 - lowest or 1)
                panel.add_patch(Rectangle((column, row), 0.96, 0.94, color=PAINT["one"], alpha=strength, linewidth=0))
                text = f"{100 * share:.1f}" if count <= MOST_NAMES else f"{100 * share:.0f}"
                panel.text(column + 0.48, row + 0.48, text, ha="center", va="center", fontsize=11)
        panel.set(xlim=(0, count), ylim=(count, 0))
        at = [number + 0.48 for number in range(count)]
        panel.set_xticks(at, [shortened(name, 13) for name in names], rotation=40, ha="right", rotation_mode="anchor")
        panel.set_yticks(at, [shortened(name, 13) for name in names])
        _bare(panel)
        svg = as_svg(drawing, "agreement", f"Agreement between {', '.join(names)}, as shares of the test samples")
    reading = "Share of test samples, in %, on which two models give the same answer, right or wrong."
    return Figure("Agreement", reading, svg)


def gain_per_class(classes: Sequence[str], student: Values, alone: Values, look: Looks) -> Figure:
    """Sorted; of many classes the ends alone."""
    pairs = zip(classes, student["per_class"], alone["per_class"], strict=True)
    gains = sorted(((100 * (s - a), name) for name, s, a in pairs if s is not None and a is not None), reverse=True)
    half = MOST_CLASSES // 2
    shown = gains if len(gains) <= MOST_CLASSES else gains[:half] + gains[-half:]
    with canvas(0.8 + 0.25 * len(shown)) as (drawing, [panel]):
        values = [gain for gain, _ in shown]
        paints = [look["student"].paint if gain >= 0 else look["alone"].paint for gain in values]
        panel.barh(range(len(shown)), values, color=paints, height=0.66)
        for row, gain in enumerate(values):
            side = 1 if gain >= 0 else -1
            panel.annotate(
                f"{gain:+.1f}", (gain, row), (4 * side, 0), textcoords="offset points", fontsize=11, va="center",
                ha="left" if side > 0 else "right",
            )  # fmt: skip
        panel.axvline(0, color=PAINT["ink"], linewidth=0.8)
        panel.set_yticks(range(len(shown)), [shortened(name) for _, name in shown])
        panel.invert_yaxis()
        panel.margins(x=0.22, y=0.02)
        panel.grid(visible=False, axis="y")
        panel.tick_params(length=0)
        panel.set_xlabel("points of accuracy over the student alone")
        spoken = ", ".join(f"{name} {gain:+.1f}" for gain, name in shown)
        svg = as_svg(drawing, "per-class", f"Points of accuracy over the student alone, per class: {spoken}")
    cut = (
        "" if len(shown) == len(gains) else f" The {half} that gained most and the {half} that gained least are shown."
    )
    reading = f"Test accuracy of the student on each class minus that of the student alone.{cut}"
    return Figure("Gain per class", reading, svg)


def times(rungs: Sequence[Values]) -> Figure:
    """Where the time went, a bar for each rung that was trained."""
    with canvas(0.75 + 0.4 * len(rungs)) as (drawing, [panel]):
        for row, rung in enumerate(rungs):
            left = 0.0
            for part in PARTS:
                share = 100 * rung["shares"].get(part, 0.0)
                panel.barh(row, share, left=left, height=0.62, color=PAINT[part])
                left += share
        panel.set_yticks(range(len(rungs)), [shortened(rung["name"]) for rung in rungs])
        panel.set_xlim(0, 100)
        panel.invert_yaxis()
        panel.grid(visible=False, axis="y")
        panel.tick_params(length=0)
        panel.set_xlabel("share of the time of worker 0, %")
        waits = ", ".join(f"{rung['name']} {rung['shares'].get('wait', 0):.0%}" for rung in rungs)
        svg = as_svg(drawing, "times", f"Where the time went; waiting for knowledge: {waits}")
    speeds = ", ".join(f"{rung['name']} {rung['images_per_s']:,.0f}" for rung in rungs)
    reading = (
        "Asking is handing requests to the teachers, or their computing in the student's own process; waiting is "
        "standing still for their answers: where that is large, the teachers are the brake. "
        f"Images per second: {speeds}."
    )
    return Figure("Where the time went", reading, svg, [(part, Look(part)) for part in PARTS])


def teacher_weights(history: Sequence[Values], look: Looks) -> Figure | None:
    """Each teacher's mean weight per epoch, stacked; a panel for each loss. None where there is none."""
    names = list(dict.fromkeys(loss for epoch in history for loss in epoch["weights"]))
    if not names:
        return None
    teachers = list(dict.fromkeys(one for epoch in history for by in epoch["weights"].values() for one in by))
    with canvas(PANEL_IN * len(names) + EDGE_IN, len(names)) as (drawing, panels):
        for loss, panel in zip(names, panels, strict=True):
            below = [0.0] * len(history)
            for teacher in teachers:
                part = [epoch["weights"].get(loss, {}).get(teacher, 0.0) for epoch in history]
                top = [low + one for low, one in zip(below, part, strict=True)]
                edges = [epoch["epoch"] + 0.5 for epoch in history] + [history[-1]["epoch"] + 1.5]
                panel.stairs(top, edges, baseline=below, fill=True, color=look[teacher].paint, alpha=0.85, linewidth=0)
                below = top
            panel.set_title(shortened(loss, 40))
            panel.set_ylim(0, max([*below, 1e-9]))
            panel.set_xlim(history[0]["epoch"] + 0.5, history[-1]["epoch"] + 1.5)
            _mark_epochs(panel, len(history))
        panels[-1].set_xlabel("epoch")
        svg = as_svg(drawing, "weights", f"Weights of {', '.join(teachers)} over epochs in {', '.join(names)}")
    reading = "Mean weight of each teacher in a loss, epoch by epoch; the heights of a column are the weights."
    return Figure("Teachers' weights over time", reading, svg, legend_of(look, teachers))


def dot(panel: Axes, x: float, y: float, look: Look, role: str) -> None:
    """One model: the student is large and filled, the student alone a cross, others hollow."""
    size, marker = (95, "o") if role == "student" else (55, look.marker)
    marker = "x" if role == "alone" else marker
    if role == "alone":
        panel.scatter(x, y, s=size, color=look.paint, marker=marker, linewidths=1.8, zorder=3)
        return
    face = look.paint if role == "student" else "none"
    panel.scatter(x, y, s=size, facecolor=face, edgecolor=look.paint, marker=marker, linewidths=1.8, zorder=3)


def label_log(axis: Axis, text: Callable[[float], str]) -> None:
    """Plain numbers along a logarithmic axis, few enough to stand apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    subs = (1,) if high / low > 300 else (1, 3) if high / low > 20 else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def milliseconds(value: float) -> str:
    return f"{value:g} ms"


def _curve(panel: Axes, epochs: Sequence[Values], values: Sequence[float], one: Look) -> None:
    x = [epoch["epoch"] + 1 for epoch in epochs]
    panel.plot(x, values, **one.line, marker=one.marker if len(x) < 12 else None, markersize=4)


def _mark_epochs(panel: Axes, count: int) -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator

    few = count <= 7
    panel.xaxis.set_major_locator(FixedLocator(range(1, count + 1)) if few else MaxNLocator(7, integer=True))
    if count == 1:
        panel.set_xlim(0.5, 1.5)


def _log_where_wide(panel: Axes) -> None:
    values = [value for line in panel.lines for value in line.get_ydata()]  # pyright: ignore
    if values and min(values) > 0 and max(values) / min(values) > LOG_FROM:
        panel.set_yscale("log")
        label_log(panel.yaxis, lambda value: f"{value:g}")


def _join_alone_and_student(panel: Axes, models: Sequence[Values], values: Callable[[Values], float]) -> None:
    ends = [model for model in models if model["role"] in ("alone", "student")]
    if len(ends) == 2:
        x, y = ([values(end) for end in ends], [100 * end["accuracy"] for end in ends])
        panel.plot(x, y, color=PAINT["student"], linewidth=1.3)


def _bare(panel: Axes) -> None:
    panel.grid(visible=False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _filled(bins: Sequence[Values]) -> list[Values]:
    return [each for each in bins if each["count"] >= FEWEST]


def _size(model: Values) -> float:
    return model["bytes_on_disk"]


def _latency(model: Values) -> float:
    return model["latency_ms"]["1"] if model["latency_ms"] else 0.0
