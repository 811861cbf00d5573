"""The list of methods: every loss and ensemble rule of Collegium, read from what the code says of itself.

`Method` is one of them; `losses` and `rules` find them, `print_methods` shows them in a terminal, `as_markdown` makes
docs/methods.md of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from actors import ensemble
from actors import losses as loss_functions
from actors.losses import metadata_of
from actors.specs import ENSEMBLE_RULES, FIXED_WEIGHTS, RULE_ARGUMENTS

GROUPS = {
    "response": "Losses on what models answer",
    "feature": "Losses on what models see on the way",
    "relation": "Losses on how samples lie to one another",
    "labels": "Losses on labels",
    "target": "Ensemble rules that make one target of the teachers' answers",
    "weights": "Ensemble rules that weigh the losses against each teacher",
}
GIVEN = ("labels", "ids", "reduction")
HEADINGS = ("name", "what it is", "needs", "arguments", "per sample", "paper")
CITATION = re.compile(r" \(([^()]*(?:arXiv|CVPR)[^()]*)\)$")
PREFACE = """\
# Methods

Made from the code by `make docs`; `collegium methods` shows the same. How to write your own:
[extending.md](extending.md).

A loss is written as `loss: "actors.losses:kd_loss"`, its arguments as `kwargs`; an ensemble rule by its bare name as
`ensemble`. *Needs* says what a method wants to have of each teacher (its logits, or a tap), of the batch (labels) or of
the run. *Per sample*: of a loss, that it has a value for every sample, and so works where only some rows have labels
and under rules that weigh samples; of a rule, that it does weigh samples.

## What travels

What a loss makes of a feature by itself is made at the teacher where that is smaller: for `attention_transfer_loss`
maps travel. `reduce: student` sends the feature, to compare, or to try other arguments of the loss on the same
answers.

With `top_k: 16` any loss on logits hears of each teacher the 16 largest, their classes, and the logsumexp of the
others: 100 bytes a sample where 1,000 classes take 4,000. Under a class map they are the largest of the classes that
the teacher knows. `rest` says what becomes of the others; it changes nothing of what travels or is stored.

- `rest: spread` (the default): the student rebuilds logits in which the others share their mass evenly, so that every
  such loss and every ensemble rule works on them. *Kept*: at temperature 1 the 16 largest probabilities and the mass of
  the others are the teacher's. *Given up*: which of the others is likelier than another, so that a student who says
  just what its teacher says is drawn away from it; and at temperatures above 1 the others get more mass than the
  teacher gives them, at the cost of the 16 (`standardize` and correlations, as of `dist_loss`, differ too).
- `rest: bucket`: the others are one class more, whose logit is their logsumexp; so are the student's others, at the
  same 17 classes. *Kept*: a student equal to its teacher has no loss; at temperature 1 all 17 probabilities are the
  teacher's, and a KL is never above that of all classes. *Given up*: how mass lies among the others is not taught; and
  at temperature T the bucket is one class with that logit, not the others softened one by one.
- `rest: ignore`: both are compared at the 16 classes alone, over which a softmax adds up to 1. *Kept*: how likely the
  16 are beside each other, at any temperature. *Given up*: how much mass the others have; the student may put any
  there.

`bucket` and `ignore` are for losses of one row and its teacher: `check` refuses losses that take labels or have no
`reduction`, and rules that make one target of all teachers. Rules that weigh teachers by their answers read these as
under `spread`.
"""


@dataclass(frozen=True)
class Method:
    """One loss or ensemble rule: its group, what it is, and the arguments that a config may give."""

    name: str
    group: str
    about: str
    paper: str
    needs: tuple[str, ...]
    arguments: tuple[str, ...]
    per_sample: bool


def losses() -> list[Method]:
    exported = {name: getattr(loss_functions, name) for name in loss_functions.__all__ if name.endswith("_loss")}
    return [_loss(name, function) for name, function in exported.items()]


def rules() -> list[Method]:
    return [_rule(name) for name in ENSEMBLE_RULES]


def print_methods(console: Console) -> None:
    for group, methods in _grouped():
        table = Table(title=GROUPS[group], title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(overflow="fold", style="bold")
        table.add_column(overflow="fold", ratio=1)
        for method in methods:
            table.add_row(Text(method.name), _described(method))
        console.print(table)
        console.print()


def as_markdown() -> str:
    """The page docs/methods.md."""
    return "\n".join([PREFACE, *(_section(GROUPS[group], methods) for group, methods in _grouped())])


def _grouped() -> Iterator[tuple[str, list[Method]]]:
    every = [*losses(), *rules()]
    for group in GROUPS:
        members = [method for method in every if method.group == group]
        if members:
            yield group, members


def _loss(name: str, function: Callable[..., Any]) -> Method:
    metadata = metadata_of(function)
    compared = [name for name in inspect.signature(function).parameters if name.startswith("teacher_")]
    about, cited = _first_line(function)
    taught = "logits" if compared == ["teacher_logits"] else "two taps" if len(compared) > 1 else "a tap"
    return Method(
        name=name,
        group=metadata.kind if metadata else "labels",
        about=about,
        paper=metadata.paper if metadata else cited,
        needs=(taught, *metadata.needs) if metadata else ("labels, no teacher",),
        arguments=_arguments(function, GIVEN),
        per_sample="reduction" in inspect.signature(function).parameters,
    )


def _rule(name: str) -> Method:
    rule = getattr(ensemble, name)
    metadata = ensemble.rule_metadata(rule)
    assert metadata is not None
    about, _ = _first_line(rule)
    weights = (f"{FIXED_WEIGHTS}=None",) if "shares" in inspect.signature(rule).parameters else ()
    arguments = (*weights, *_arguments(rule, RULE_ARGUMENTS))
    return Method(name, metadata.gives, about, metadata.paper, metadata.needs, arguments, metadata.per_sample)


def _first_line(function: Callable[..., Any]) -> tuple[str, str]:
    """Of the docstring, and the paper that it ends with."""
    line = (inspect.getdoc(function) or "").partition("\n")[0].removesuffix(".")
    cited = CITATION.search(line)
    return CITATION.sub("", line), cited[1] if cited else ""


def _arguments(function: Callable[..., Any], given: Collection[str]) -> tuple[str, ...]:
    """The keyword-only arguments that a config may give, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    chosen = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in given]
    return tuple(one.name if one.default is one.empty else f"{one.name}={one.default!r}" for one in chosen)


def _described(method: Method) -> Group:
    needs = f"needs {', '.join(method.needs)}" if method.needs else ""
    details = [needs, "per sample" if method.per_sample else "", ", ".join(method.arguments)]
    lines = [method.paper, "; ".join(detail for detail in details if detail)]
    return Group(Text(method.about), *(Text(line, style="dim") for line in lines if line))


def _section(title: str, methods: Sequence[Method]) -> str:
    lines = [f"## {title}\n", _row(HEADINGS), _row(["---"] * len(HEADINGS)), *map(_method_row, methods)]
    return "\n".join(lines) + "\n"


def _method_row(method: Method) -> str:
    arguments = ", ".join(f"`{argument}`" for argument in method.arguments)
    paper = re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", method.paper)
    per_sample = "yes" if method.per_sample else "no"
    return _row([f"`{method.name}`", method.about, ", ".join(method.needs), arguments, per_sample, paper])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
