"""How figures look: matplotlib drawings as SVG text whose colours are variables of the page, so that light and dark are
one drawing.

`Figure` is a finished one; `Look` is how one model is drawn everywhere; `canvas` and `as_svg` begin and end a drawing.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from orchestrator.reporting.recorded import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

WIDTH_IN, WIDE_IN = 5.2, 13.0
SERIES = ("one", "two", "three", "four", "five", "six")
PARTS = ("data", "ask", "wait", "forward", "backward", "evaluation", "checkpoint")
_VARIABLES = ("ink", "faint", "student", "alone", *SERIES, *PARTS)
# Matplotlib wants real colours: these stand for the page's variables until the drawing is text.
PAINT = {name: f"#a0b0{number:02x}" for number, name in enumerate(_VARIABLES)}
_METADATA = ("Date", "Creator", "Format", "Type")
MARKERS = "sD^vp>"
# The same shapes for legends, in a box of 22 x 12.
_OUTLINES = {
    "o": "M11 1.5a4.5 4.5 0 1 0 .01 0z",
    "x": "M6.5 1.5l9 9m0-9l-9 9",
    "h": "M11 1l4.3 2.5v5L11 11 6.7 8.5v-5z",
    "s": "M7 2h8v8H7z",
    "D": "M11 .8L16.2 6 11 11.2 5.8 6z",
    "^": "M11 1l5 9.5H6z",
    "v": "M11 11l5-9.5H6z",
    "p": "M11 1l5 3.7-1.9 6H7.9L6 4.7z",
    ">": "M16 6L6.5 1v10z",
}
DASHES = {"": "solid", "5 3": (0, (5, 3)), "2 2": (0, (2, 2))}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "collegium",
    "text.parse_math": False,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), PAINT["ink"]),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), PAINT["faint"]),
}


@dataclass(frozen=True)
class Look:
    """A variable of the page, a dash pattern and a marker."""

    variable: str
    dash: str = ""
    marker: str = "o"

    @property
    def paint(self) -> str:
        return PAINT[self.variable]

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.paint, "linestyle": DASHES[self.dash]}

    @property
    def outline(self) -> str:
        return _OUTLINES[self.marker]

    @property
    def is_filled(self) -> bool:
        return self.marker == "o"


@dataclass(frozen=True)
class Figure:
    """`reading` says how to read it; `legend` names what is drawn, each with its look: as markers or as lines. A wide
    one is as wide as the page, and scrolls where that is narrow.
    """

    title: str
    reading: str
    svg: Markup
    legend: Sequence[tuple[str, Look]] = ()
    is_marked: bool = False
    is_wide: bool = False


def looks(models: Sequence[Values]) -> dict[str, Look]:
    """How each model is drawn, the same in every figure; the student alone has the accent colour."""
    fixed = {
        "student": Look("student"),
        "alone": Look("alone", marker="x"),
        "ensemble": Look("ink", dash="5 3", marker="h"),
    }
    found, others = {}, 0
    for model in models:
        if model["role"] in fixed:
            found[model["name"]] = fixed[model["role"]]
        else:
            found[model["name"]] = numbered(others)
            others += 1
    return found


def numbered(number: int) -> Look:
    """The look of one of many; the colours come round again with another dash."""
    dash = tuple(DASHES)[number // len(SERIES) % len(DASHES)]
    return Look(SERIES[number % len(SERIES)], dash, MARKERS[number % len(MARKERS)])


@contextmanager
def canvas(height_in: float, panels: int = 1, *, width_in: float = WIDTH_IN) -> Iterator[tuple[Drawing, list[Axes]]]:
    """A drawing of panels, one above the other."""
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    with matplotlib.rc_context(_RC):
        drawing = Drawing(figsize=(width_in, height_in), layout="constrained")
        yield drawing, list(drawing.subplots(panels, 1, squeeze=False)[:, 0])


def as_svg(drawing: Drawing, slug: str, label: str) -> Markup:
    """The drawing as an element of the page. `slug` keeps its ids apart from other drawings'; `label` is read aloud."""
    slug = re.sub(r"\W+", "-", slug.lower())
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawing.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{_quoted(label)}">', text, count=1
    )
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', text)
    text = text.replace("xlink:href", "href").replace("url(#", f"url(#{slug}-").replace('href="#', f'href="#{slug}-')
    text = re.sub(r"font: (?:(\d+) )?([\d.]+)px[^;\"]*", _font, text)
    text = re.sub(r'(?<= d=")[^"]+', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), text)
    for name, paint in PAINT.items():
        text = text.replace(paint, f"var(--{name})")
    return Markup(text)


def shortened(name: str, length: int = 16) -> str:
    """A name that fits beside an axis: its beginning and its end; only what can be printed."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    end = length // 2
    return clean if len(clean) <= length else f"{clean[: length - end - 1]}…{clean[-end:]}"


def legend_of(look: Mapping[str, Look], names: Sequence[str]) -> list[tuple[str, Look]]:
    return [(name, look[name]) for name in names]


def _quoted(label: str) -> str:
    return str(escape(label)).replace("\\", "\\\\")


def _font(found: re.Match[str]) -> str:
    weight, size = found.groups()
    return f"font-size: {size}px" + (f"; font-weight: {weight}" if weight else "")
